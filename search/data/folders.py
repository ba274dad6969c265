"""Decides what the folders of a data set are: classes, splits that hold classes, or unclear, which is an error."""

import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from search.errors import DataError

SPLITS = ("train", "val", "test")
LAYOUTS = "DIR/<class>/* or DIR/{train,val,test}/<class>/*"
CLASSES = "--set folders=classes"
# Endings of image files, to count image files without opening them.
PICTURES = (".png", ".jpg", ".jpeg", ".jfif", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".avif", ".heic", ".heif")
# Names, in lower case, of folders of thumbnails and waste that network drives, archives and systems create.
WASTE = frozenset(
    ("@eadir", ".@__thumb", "__macosx", "#recycle", "@recycle", "$recycle.bin", "#snapshot", "lost+found")
)

UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

_WORDS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "validate", "dev", "development"),
    "test": ("test", "testing", "eval", "evaluation", "holdout"),
}
_SPLIT_OF = {word: split for split, words in _WORDS.items() for word in words}
_FILLERS = frozenset(
    f"{word}{ending}"
    for word in ("data", "dataset", "dir", "image", "img", "photo", "picture", "set", "split")
    for ending in ("", "s")
)


@dataclass(frozen=True)
class Folders:
    """What the folders directly inside a data set's folder are.

    Args:
        splits: folder → its split, if the data set is already split; empty if its folders are classes.
        classes: the names of all class folders, sorted.
        notes: what the user should know about the folders.
    """

    splits: Mapping[str, str] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def place(self, path: PurePath) -> tuple[str, str] | None:
        """The class and the split of a file; the split is empty if not given; `None` outside the class folders.

        Args:
            path: relative to the data set's folder.
        """
        *folders, _ = path.parts
        split = self.splits.get(folders.pop(0), "") if self.splits and folders else ""
        if not folders or (self.splits and not split):
            return None
        return one_form(folders[0]), split


def find(root: Path, asked: str) -> Folders:
    """Decide what the folders of a data set are.

    Args:
        root: the data set's folder.
        asked: `classes` if its folders are classes, whatever they look like; else `auto`.

    Raises:
        DataError: the folders look like splits, but a split is missing or the names are not those of splits.
        OSError: a folder cannot be read.
    """
    folders = subfolders(root)
    splits = {} if asked == "classes" else _splits(root, folders)
    parents = [root / name for name in splits] or [root]
    named = defaultdict(set)
    for parent in parents:
        for folder in subfolders(parent):
            named[one_form(folder.name)].add(folder.name)
    notes = [
        *_split_notes(splits, folders),
        *_hidden(parents),
        *_deep(parents),
        *(
            f"class '{printable(name)}' is written in {len(forms)} Unicode forms, and taken for one"
            for name, forms in sorted(named.items())
            if len(forms) > 1
        ),
    ]
    return Folders(splits, tuple(sorted(named)), tuple(notes))


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted, without hidden ones and waste; links to folders are included."""
    return _folders(folder, lambda name: not left_out(name))


def left_out(name: str) -> bool:
    """Whether a file or folder of this name is ignored."""
    return name.startswith(".") or name.lower() in WASTE


def one_form(name: str) -> str:
    """The name in one Unicode form (NFC), because file systems and archives may change the form."""
    return unicodedata.normalize("NFC", name)


def further_in(root: Path, folder: Path) -> str:
    """If a data set has images only in `folder`, a line that advises what to give as --data instead; else "".

    Args:
        folder: directly inside `root`.
    """
    folder, folders = _descended(folder)
    if not folders:
        return ""
    inside = folder.relative_to(root).as_posix()
    return f"inside '{inside}' are the folders {_listed(folders)}: if these are the classes, give --data {folder}"


def printable(name: str) -> str:
    """The name with its control characters, and bytes that are not UTF-8, written as escapes."""
    return UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], name)


def _descended(folder: Path) -> tuple[Path, list[Path]]:
    """Descend while a folder has exactly one subfolder; return the last folder, and the folders in it."""
    while len(folders := subfolders(folder)) == 1:
        (folder,) = folders
    return folder, folders


def _splits(root: Path, folders: Sequence[Path]) -> dict[str, str]:
    """Folder → split, by the folders' names; empty if they are classes.

    Raises:
        DataError: the folders look like splits, but which ones is not clear.
    """
    known = {folder.name: split for folder in folders if (split := split_of(folder.name))}
    if len(known) <= 1 < len(folders):
        _demand_no_splits(root, folders, known)
        return {}
    faults = []
    for split in SPLITS:
        same = [name for name, one in known.items() if one == split]
        if len(same) > 1:
            faults.append(f"the folders {' and '.join(same)} are both taken for the split '{split}'; keep one of them")
        elif known and not same and split != "val":
            faults.append(f"{' and '.join(known)} are taken for splits, and there is no '{split}' beside; add it")
    for name in known:
        inside = subfolders(root / name)
        if not inside:
            faults.append(f"{name} is taken for a split, and holds no class folders; expected {name}/<class>/*")
        elif len(inside) == 1 and len(below := _descended(inside[0])[1]) > 1:
            held = f"{inside[0].name} alone, and in it are the folders {_listed(below)}"
            faults.append(f"{name} holds {held}; move the classes up into {name}")
    if faults:
        trained = [root / name for name, split in known.items() if split == "train" and subfolders(root / name)]
        ways = [f"give --data {folder}, to have it split" for folder in trained]
        faults[-1] += f"; or {', or '.join([*ways, _either()])}"
        raise DataError(faults, subject=str(root))
    return known


def _demand_no_splits(root: Path, folders: Sequence[Path], known: Collection[str]) -> None:
    """Check that the folders, taken for classes, are not splits: a network would learn to tell splits apart.

    Args:
        known: those of the folders that have the name of a split.

    Raises:
        DataError: the folders hold folders as splits do.
    """
    readable = [folder for folder in folders if os.access(folder, os.R_OK | os.X_OK)]
    held = {folder.name: [one_form(inside.name) for inside in _descended(folder)[1]] for folder in readable}
    beside = {one_form(name) for name in held}
    often = Counter(name for names in held.values() for name in names)
    shared = {folder: [name for name in names if often[name] > 1] for folder, names in held.items()}
    alike = [folder for folder, names in shared.items() if len(names) > 1]
    around = [folder for folder, names in held.items() if len(beside.intersection(names) - {folder}) > 1]
    called = [folder for folder in known if len(held.get(folder, [])) > 1]
    if len(alike) > 1:
        fault = f"the folders {_listed(alike)} each hold the folders {_listed(shared[alike[0]])}, as splits do"
    elif around:
        fault = f"the folder {around[0]} holds folders of the same names as those beside it"
    elif called:
        fault = f"the folder {called[0]} is called like a split, and holds the folders {_listed(held[called[0]])}"
    else:
        return
    ways = f"if there are splits, call their folders train, val and test, with the classes in them; or {_either()}"
    raise DataError([f"{fault}: {ways}"], subject=str(root))


def _either() -> str:
    return f"{CLASSES}, if the folders are classes"


def split_of(name: str) -> str | None:
    """The split that a folder or a table calls by this name, such as `Training_set`; `None` if none."""
    words = [re.sub(r"(.)sets?$", r"\1", word) for word in re.findall(r"[a-z]+", name.lower())]
    telling = [word for word in words if word not in _FILLERS]
    return _SPLIT_OF.get(telling[0]) if len(telling) == 1 else None


def _split_notes(splits: Mapping[str, str], folders: Sequence[Path]) -> list[str]:
    renamed = [f"'{printable(name)}' for {split}" for name, split in splits.items() if name != split]
    beside = [folder.name for folder in folders if splits and folder.name not in splits]
    notes = [f"folders are taken for splits: {', '.join(renamed)}"] if renamed else []
    return notes + ([f"folders beside the splits are left out: {_listed(beside)}"] if beside else [])


def _deep(parents: Sequence[Path]) -> list[str]:
    """A note of class folders that contain more than one folder; all images in these belong to the class."""
    classes = [folder for parent in parents for folder in subfolders(parent) if os.access(folder, os.R_OK | os.X_OK)]
    found = [folder.name for folder in classes if len(subfolders(folder)) > 1]
    return [f"classes whose folders hold folders, which are not told apart: {_listed(found)}"] if found else []


def _hidden(parents: Sequence[Path]) -> list[str]:
    """A note of hidden folders beside the class folders, if they contain image files."""
    hidden = [folder for parent in parents for folder in _folders(parent, lambda name: name.startswith("."))]
    found = [folder for folder in hidden if folder.name.lower() not in WASTE and _holds_pictures(folder)]
    names = [folder.name for folder in found]
    return [f"hidden folders are left out, with the images in them: {_listed(names)}"] if found else []


def _holds_pictures(folder: Path) -> bool:
    return any(name.lower().endswith(PICTURES) for _, _, names in os.walk(folder) for name in names)


def _folders(folder: Path, wanted: Callable[[str], bool]) -> list[Path]:
    with os.scandir(folder) as entries:
        names = [
            entry.name
            for entry in entries
            if wanted(entry.name) and (Path(entry).is_dir() if entry.is_symlink() else entry.is_dir())
        ]
    return [folder / name for name in sorted(names)]


def _listed(folders: Sequence[Path | str], limit: int = 8) -> str:
    more = f" and {len(folders) - limit} more" if len(folders) > limit else ""
    return ", ".join(printable(PurePath(folder).name) for folder in folders[:limit]) + more
