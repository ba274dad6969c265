"""Shards: tar files of images and of their labels, as WebDataset has them, read where they lie.

The files of one sample share their name up to its first dot: `0001.jpg`, `0001.cls`, `0001.json`
(https://github.com/webdataset/webdataset). Nothing is unpacked or fetched: an image is read from its place in its
shard, which may lie in a folder or in object storage.
"""

import functools
import hashlib
import io
import itertools
import json
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from search.data import folders, labels, reading
from search.data.columns import KNOWN
from search.data.folders import PICTURES, SPLITS, printable
from search.data.scan import Checked, Found, Progress, Scan, as_they_are, in_threads, why
from search.data.settings import DataSettings
from search.errors import DataError

ENDING = ".tar"
CLASS, TEXT, JSON = "cls", "txt", "json"  # files that say the label
_BRACES = re.compile(r"\{([^{}]*)\}")
_NUMBERS = re.compile(r"(\d+)\.\.(\d+)")
_FEW = 8
_BLOCK, _CHUNK = 512, 1 << 20
_OPEN = 64  # shards at a time

Place = tuple[int, int]  # of a file in its shard: where it begins, and how many bytes it has


@dataclass
class _Sample:
    """The files of one sample that are used: its image, and what says its label."""

    shard: str
    image: str = ""
    place: Place = (0, 0)
    told: dict[str, bytes] = field(default_factory=dict)


def owns(source: str) -> bool:
    """Whether a source names shards: a pattern with braces."""
    return "{" in source and source.partition("?")[0].lower().endswith(ENDING)


def whole(source: str) -> str:
    """A pattern that means the same in every folder: its path is absolute, or it is a URI."""
    return source if "://" in source else str(Path(source).expanduser().absolute())


class Shards:
    """The shards that a pattern names, in its order: `{000..099}` is a range, `{train,val}` a choice.

    Args:
        source: the pattern, as a path or as the URI of object storage, with `?endpoint_override=…` for other services
            than S3.

    Attributes:
        names: of the shards, relative to the folder that holds all of them.

    Raises:
        ValueError: braces hold neither, or the URI is none.
        OSError: the object storage cannot be reached.
    """

    def __init__(self, source: str) -> None:
        from pyarrow import fs

        path, mark, query = whole(source).partition("?")
        fixed = path.partition("{")[0].rpartition("/")[0]
        parts = _BRACES.split(path[len(fixed) + 1 :])
        choices = [[part] if place % 2 == 0 else _choices(part) for place, part in enumerate(parts)]
        self.names = ["".join(chosen) for chosen in itertools.product(*choices)]
        self._service: Any = fs.LocalFileSystem()
        self._root = fixed
        if "://" in source:
            self._service, self._root = fs.FileSystem.from_uri(fixed + mark + query)
        self._opened = functools.lru_cache(_OPEN)(self._open)

    def missing(self) -> list[str]:
        """The shards that are not there.

        Raises:
            OSError: the object storage cannot be reached.
        """
        from pyarrow import fs

        known = self._service.get_file_info([f"{self._root}/{name}" for name in self.names])
        return [name for name, info in zip(self.names, known, strict=True) if info.type != fs.FileType.File]

    def places(self, name: str) -> dict[str, Place]:
        """The files of a shard, and where each lies.

        Raises:
            OSError, tarfile.TarError, ValueError: it cannot be read, is damaged, or is cut short.
        """
        with self._open(name) as native, io.BufferedReader(native, _CHUNK) as file:
            with tarfile.open(fileobj=file, mode="r:") as packed:
                found = {member.name: (member.offset_data, member.size) for member in packed if member.isfile()}
            file.seek(packed.offset)  # tarfile takes a damaged header, or the end of the file, for the archive's end
            if file.read(_BLOCK) != bytes(_BLOCK):
                raise ValueError("its end is missing")
        return found

    def content(self, name: str, place: Place) -> bytes:
        """The bytes of a file in a shard; from several threads at once.

        Raises:
            OSError: it cannot be read.
        """
        return bytes(self._opened(name).read_at(place[1], place[0]))

    def _open(self, name: str) -> Any:
        return self._service.open_input_file(f"{self._root}/{name}")


def faults(source: str) -> list[str]:
    """What is wrong with a pattern that can be seen without reading a shard."""
    try:
        shards = Shards(source)
        found, missing = shards.names, shards.missing()
    except (ValueError, OSError) as error:
        return [f"{source}: {str(error).splitlines()[0]}"]
    if not missing:
        return []
    more = f" and {len(missing) - _FEW} more" if len(missing) > _FEW else ""
    named = ", ".join(missing[:_FEW])
    return [f"{source}: of its {len(found)} shards {len(missing)} are not there: {named}{more}"]


def scan(source: str, settings: DataSettings, progress: Progress) -> Scan:
    """Find the images of all shards; read the header and hash the content of each, in threads.

    Raises:
        DataError: a shard is damaged or cut short, or only some are called like splits; names every fault.
    """
    shards, samples, wrong = Shards(source), dict[str, _Sample](), list[str]()
    for number, shard in enumerate(shards.names, 1):
        try:
            samples |= {f"{shard}/{key}": sample for key, sample in _samples(shards, shard)}
        except (tarfile.TarError, ValueError) as error:
            wrong.append(f"{shard} is damaged or cut short: {printable(str(error))}; fetch it again")
        except OSError as error:
            wrong.append(f"{shard} {why(error)}")
        progress("reading shards", number, len(shards.names))
    splits = {shard: _split(shard) for shard in shards.names}
    if any(splits.values()) and not all(splits.values()):
        unknown = [shard for shard, split in splits.items() if not split]
        wrong.append(f"some shards are called like splits, and {', '.join(unknown[:_FEW])} are not")
    if wrong:
        raise DataError(wrong, subject=source)
    return _scan(shards, samples, splits, settings, progress)


def _scan(
    shards: Shards,
    samples: Mapping[str, _Sample],
    splits: Mapping[str, str],
    settings: DataSettings,
    progress: Progress,
) -> Scan:
    told, broken = dict[str, tuple[tuple[str, ...], str]](), dict[str, str]()
    for key, sample in samples.items():
        try:
            told[key] = _told(sample, settings)
        except (ValueError, TypeError):
            broken[key] = f"its .{JSON} holds no object in JSON"
    columns = _columns(settings)
    read = labels.reader(settings.task, columns, (texts for texts, _ in told.values()), settings.label_separator)
    images, bad, found = list[Found](), list[tuple[str, str]](), list[labels.Label]()
    checked = in_threads(lambda sample: _check(shards, sample), list(samples.values()), "scanning images", progress)
    for (key, sample), one in zip(samples.items(), checked, strict=True):
        try:
            if key in broken:
                raise ValueError(broken[key])
            label = read(told[key][0])
        except ValueError as error:
            bad.append((printable(key), str(error)))
            continue
        if not one.digest:
            bad.append((printable(key), one.reason))
            continue
        found.append(label)
        more = None if settings.task == "classification" else label
        path, split = f"{sample.shard}/{sample.image}", splits[sample.shard]
        images.append(Found(path, label.text, split, one.digest, one.header, told[key][1], more))
    return Scan(
        splits=tuple(split for split in SPLITS if split in splits.values()),
        classes=labels.names(settings.task, columns, found),
        images=tuple(sorted(images, key=lambda image: image.path)),
        bad=tuple(sorted(bad)),
        notes=tuple(as_they_are(images)),
        advice=(),
        kind=settings.task,
    )


def _samples(shards: Shards, shard: str) -> Iterator[tuple[str, _Sample]]:
    """The samples of a shard, by what their files are called up to the first dot."""
    found: dict[str, _Sample] = {}
    for name, place in shards.places(shard).items():
        folder, slash, file = name.rpartition("/")
        key, dot, kind = file.partition(".")
        if not dot or folders.left_out(file):
            continue
        sample = found.setdefault(f"{folder}{slash}{key}", _Sample(shard))
        if f".{kind.lower()}" in PICTURES:
            sample.image, sample.place = name, place
        elif kind.lower() in (CLASS, TEXT, JSON):
            sample.told[kind.lower()] = shards.content(shard, place)
    yield from found.items()


def _check(shards: Shards, sample: _Sample) -> Checked:
    if not sample.image:
        return Checked(reason="no image")
    try:
        file = io.BytesIO(shards.content(sample.shard, sample.place))
        with reading.open_image(file) as image:
            header = reading.header(image)
        return Checked(hashlib.sha256(file.getvalue()).hexdigest(), header)
    except Exception as error:  # noqa: BLE001 (a corrupt file makes Pillow raise anything)
        return Checked(reason=why(error))


def _told(sample: _Sample, settings: DataSettings) -> tuple[tuple[str, ...], str]:
    """The texts of a sample's label, and its group.

    Raises:
        ValueError, TypeError: what should be an object in JSON is none.
    """
    columns, more = _columns(settings), dict[str, Any](json.loads(sample.told.get(JSON, b"{}")))
    files = [sample.told[kind] for kind in (CLASS, TEXT) if kind in sample.told]
    alone = files[0].decode("utf-8", "replace").strip() if files else ""
    asked = settings.label_column is not None
    known = [name for name in (columns if asked else (*KNOWN["label"], CLASS)) if name in more]
    if asked or (not alone and known):
        texts = tuple(_text(more.get(name)) for name in (columns if asked else known[:1]))
    else:
        texts = (alone,)
    return texts, _text(more.get(settings.group_column or KNOWN["group"][0]))


def _columns(settings: DataSettings) -> tuple[str, ...]:
    """The names of what a label consists of."""
    return tuple(name.strip() for name in (settings.label_column or "label").split(","))


def _text(value: object) -> str:
    if isinstance(value, list):
        return labels.SEPARATORS[0].join(map(str, value))
    return "" if value is None else str(int(value) if isinstance(value, bool) else value).strip()


def _split(shard: str) -> str:
    """The split that a shard's name, or a folder's that it is in, stands for; empty if none."""
    parts = [Path(shard).stem, *Path(shard).parts[:-1]]
    return next((split for part in parts if (split := folders.split_of(part))), "")


def _choices(part: str) -> Sequence[str]:
    if numbers := _NUMBERS.fullmatch(part):
        first, last = numbers.groups()
        return [f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1)]
    if "," in part:
        return part.split(",")
    raise ValueError(f"'{{{part}}}' is neither numbers, as in {{000..099}}, nor names, as in {{train,val}}")
