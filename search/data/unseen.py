"""Images that belong to no data set: found in a folder, and read just as a search reads its own."""

from collections.abc import Callable, Iterator
from pathlib import Path

from PIL import UnidentifiedImageError

from search.data import reading, scan
from search.data.folders import left_out
from search.data.reading import Greys, Pixels
from search.data.sources import Unread


def find(given: Path) -> list[Path]:
    """The files of a folder and of the folders in it, sorted; or the one file that is given.

    Hidden files, thumbnail folders and waste are left out, as in a search, and so are captions and the like
    (`scan.BESIDE`). Links are followed, unless they lead back to a folder above them.

    Raises:
        OSError: a folder cannot be read.
    """
    return list(_walk(given, frozenset())) if given.is_dir() else [given]


def _walk(folder: Path, above: frozenset[Path]) -> Iterator[Path]:
    within = above | {folder.resolve()}
    for path in sorted(folder.iterdir()):
        if left_out(path.name):
            continue
        if not path.is_dir():
            yield from [] if path.suffix.lower() in scan.BESIDE else [path]
        elif path.resolve() not in within:
            yield from _walk(path, within)


def reader(image_size: int, greys: Greys) -> Callable[[Path], Pixels | Unread]:
    """What reads one image file, or says why it cannot; it may be called from several threads.

    Args:
        image_size: side in pixels.
        greys: as of `reading.pixels`.
    """

    def read(path: Path) -> Pixels | Unread:
        try:
            if path.exists() and not path.is_file():
                return Unread("not a file", changed=False)
            with path.open("rb") as file, reading.open_image(file) as image:
                reading.header(image)  # refuses what Pillow would misread
                return reading.pixels(image, image_size, greys)
        except UnidentifiedImageError as error:
            return Unread(scan.told(path, scan.why(error)), changed=False)
        except Exception as error:  # noqa: BLE001 (a corrupt file makes Pillow raise anything)
            return Unread(scan.why(error), changed=False)

    return read
