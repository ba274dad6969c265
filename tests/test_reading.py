"""An image is read in one way: by the search, by the README's recipe, and by plain Keras where that reads it well."""

import hashlib
import io
import itertools
import json
import re
import struct
import textwrap
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from search.data import reading, store
from search.record.record import write_reading

SIZE = 8
README = Path(__file__).parents[1] / "README.md"
ORIENTATIONS = range(1, 9)  # https://exiftool.org/TagNames/EXIF.html
TAGGED = ("JPEG", "PNG", "WEBP", "TIFF", "AVIF")
LOW, HIGH = 29_000, 31_000  # hundredths of a kelvin, as thermal cameras store them
Pixels = np.ndarray
Read = tuple[store.Dataset, dict[str, Pixels]]


def paint(number: int, size: tuple[int, int] = (11, 13)) -> Image.Image:
    """An image in colours that no other number gives."""
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (size[1], size[0], 4), np.uint8))


def save_plain(folder: Path) -> None:
    """One image of every format and mode that plain Keras reads well."""
    colour = paint(0)
    plain = colour.convert("RGB")
    palette = plain.quantize(16)
    plain.save(folder / "rgb.png")
    colour.save(folder / "rgba.png")
    plain.convert("L").save(folder / "grey.png")
    plain.convert("1").save(folder / "bilevel.png")
    colour.convert("LA").save(folder / "la.png")
    palette.save(folder / "palette.png")
    palette.save(folder / "transparent_colour.png", transparency=3)
    palette.save(folder / "transparent.png", transparency=bytes(range(0, 256, 16)))
    plain.save(folder / "frames.png", save_all=True, append_images=[plain.rotate(90)])
    plain.save(folder / "rgb.jpg")
    plain.save(folder / "rgb.jfif", "JPEG")
    plain.save(folder / "two.jpg", "MPO", save_all=True, append_images=[plain.rotate(90)])
    plain.convert("L").save(folder / "grey.jpeg")
    plain.convert("CMYK").save(folder / "cmyk.jpg")
    plain.save(folder / "frames.gif", save_all=True, append_images=[plain.rotate(90)])
    palette.save(folder / "transparent.gif", transparency=3)
    plain.save(folder / "rgb.bmp")
    palette.save(folder / "palette.bmp")
    plain.save(folder / "rgb.webp")
    colour.save(folder / "rgba.webp", lossless=True)
    plain.save(folder / "rgb.tif")
    colour.save(folder / "rgba.tiff")
    plain.save(folder / "packed.tif", compression="tiff_lzw")
    plain.convert("CMYK").save(folder / "cmyk.tif")
    plain.save(folder / "pages.tif", save_all=True, append_images=[plain.rotate(90)])
    plain.save(folder / "rgb.avif")
    plain.save(folder / "rgb.heic", "HEIF")
    plain.resize((SIZE, SIZE)).save(folder / "right_size.png")
    plain.save(folder / "no ending", "PNG")
    plain.save(folder / "in truth a jpeg.png", "JPEG", quality=71)
    plain.save(folder / "in truth a png.txt", "PNG", compress_level=1)


def turned(orientation: int, kind: str, number: int) -> bytes:
    """A file whose tag says how it is to be turned."""
    tags, file = Image.Exif(), io.BytesIO()
    tags[ExifTags.Base.Orientation] = orientation
    paint(number).convert("RGB").save(file, kind, exif=tags)
    return file.getvalue()


def late_tag(content: bytes) -> bytes:
    """A PNG with its tags behind its pixels, where the standard allows them too."""
    chunks, at = [], 8
    while at < len(content):
        length = struct.unpack(">I", content[at : at + 4])[0] + 12
        chunks.append(content[at : at + length])
        at += length
    tags = [chunk for chunk in chunks if chunk[4:8] == b"eXIf"]
    others = [chunk for chunk in chunks if chunk not in tags]
    return content[:8] + b"".join([*others[:-1], *tags, others[-1]])


def save_turned(folder: Path) -> None:
    """Files with every orientation, in every format that has tags."""
    for position, kind in enumerate(TAGGED):
        for orientation in ORIENTATIONS:
            content = turned(orientation, kind, 10 * position + orientation)
            (folder / f"turned{orientation}.{kind.lower()}").write_bytes(content)
    for number, (mode, orientation) in enumerate(itertools.product(("L", "P", "RGBA", "CMYK"), ORIENTATIONS)):
        stored = paint(200 + number, (20, 16)).convert("RGB").convert(mode)
        stored.save(folder / f"turned{orientation}{mode}.tif", tiffinfo={ExifTags.Base.Orientation: orientation})
    (folder / "late.png").write_bytes(late_tag(turned(6, "PNG", 60)))


def colour_of_16_bits(path: Path) -> None:
    """A PNG with 16 bits in each colour, which Pillow does not write."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    values = np.random.default_rng(5).integers(0, 65536, (9, 7, 3)).astype(">u2")
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 7, 9, 16, 2, 0, 0, 0))
    rows = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in values)))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + rows + chunk(b"IEND", b""))


def save_deep(folder: Path) -> None:
    """Greys of more than 8 bits in every form, each with both ends of the range."""
    greys = np.linspace(LOW, HIGH, 9 * 7).reshape(9, 7)
    Image.fromarray(greys.astype("uint16")).save(folder / "16.png")
    Image.fromarray(greys.astype("uint16").T).save(folder / "16.tif")
    Image.fromarray(greys.astype("uint16")[::-1].T).save(folder / "16t.tif", tiffinfo={ExifTags.Base.Orientation: 6})
    Image.fromarray(greys.astype("uint16")[::-1]).save(folder / "packed16.tif", compression="tiff_lzw")
    Image.fromarray(greys.astype("int32")[:, ::-1]).save(folder / "32.tif")
    Image.fromarray(greys.astype("float32")[::-1, ::-1]).save(folder / "fractions.tif")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Read:
    """A data set of all kinds of files, and how the search reads each of them."""
    assert "HEIF" in reading.formats()
    root = tmp_path_factory.mktemp("reading")
    folders = [root / "photos" / split / name for split in store.SPLITS for name in ("a", "b")]
    for number, folder in enumerate(folders):
        folder.mkdir(parents=True)
        paint(100 + number).save(folder / "any.png")
    save_plain(folders[0])
    save_turned(folders[0])
    save_deep(folders[0])
    colour_of_16_bits(folders[0] / "48.png")
    beyond = np.linspace(0, 65535, 40).astype("uint16").reshape(5, 8)  # more than any training image has
    Image.fromarray(beyond).save(folders[2] / "beyond.png")
    Image.fromarray(beyond[::-1]).save(folders[4] / "beyond.png")
    return found(root / "photos", root / "cache")


def found(folder: Path, cache: Path) -> Read:
    """A folder's data set, and how the search reads each image."""
    looked = store.find(str(folder), seed=0, max_bad_files=0)
    dataset = store.decode(looked, max_bad_files=0, image_size=SIZE, cache=cache)
    read = {}
    for split in store.SPLITS:
        images, _ = store.load(dataset, split, SIZE, cache)
        read |= dict(zip(dataset.items[split], images, strict=True))
    return dataset, read


@pytest.fixture(scope="module")
def recipe(photos: Read, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The README's recipe, run as it stands beside a model and what it was read by."""
    text = README.read_text("utf-8").partition("Use the model anywhere")[2]
    code = re.search(r"(?:^    .*\n|^\n(?=    ))+", text, re.M)
    assert code
    folder = tmp_path_factory.mktemp("recipe")
    (folder / "best").mkdir()
    write_reading(folder / "best", photos[0].greys, SIZE)
    images = keras.Input((SIZE, SIZE, 3))
    keras.Model(images, keras.layers.GlobalAveragePooling2D()(images)).save(folder / "best" / "model.keras")
    paint(3).convert("RGB").save(folder / "cat.jpg")
    names: dict[str, Any] = {"folder": folder}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(textwrap.dedent(code[0]), names)  # noqa: S102 our own README
    return names


def quietly(call: Callable[[Path], Any], path: Path) -> Pixels:
    """What a call makes of a file; Keras's and Pillow's warnings are not at stake."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asarray(call(path))


def as_keras_loads(path: Path) -> Image.Image:
    """What people feed a model who do not know the recipe."""
    return keras.utils.load_img(path, target_size=(SIZE, SIZE), interpolation="bilinear")


def test_the_recipe_reads_what_the_search_read(photos: Read, recipe: dict[str, Any]) -> None:
    """The exported model sees other pixels in use than in the search."""
    dataset, read = photos
    assert dataset.skipped == ()
    assert len(read) == 6 + 31 + 5 * 8 + 4 * 8 + 1 + 6 + 1 + 2
    for item, pixels in read.items():
        assert np.array_equal(quietly(recipe["pixels"], Path(dataset.source) / item), pixels), item
    assert recipe["probabilities"].shape == (1, 3)


def test_plain_files_are_as_keras_loads_them(photos: Read) -> None:
    """Who uses `load_img` for ordinary files gets other pixels than the search."""
    dataset, read = photos
    plain = {
        item: pixels for item, pixels in read.items() if not re.search(r"turned|late|16|32|fractions|beyond", item)
    }
    assert len(plain) == 6 + 31 + 1
    for item, pixels in plain.items():
        assert np.array_equal(quietly(as_keras_loads, Path(dataset.source) / item), pixels), item


@pytest.mark.parametrize("kind", TAGGED)
def test_tagged_images_are_upright(photos: Read, kind: str) -> None:
    """Pictures that are upright only by their tag lie on their side, and the network learns from them so."""
    _, read = photos
    for orientation in ORIENTATIONS:
        with Image.open(io.BytesIO(turned(orientation, kind, 10 * TAGGED.index(kind) + orientation))) as image:
            upright = ImageOps.exif_transpose(image).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
            as_stored = Image.fromarray(np.asarray(image)).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        pixels = read[f"train/a/turned{orientation}.{kind.lower()}"]
        assert np.array_equal(upright, pixels)
        assert np.array_equal(as_stored, pixels) == (orientation == 1 or kind == "TIFF")  # Pillow turns TIFF itself


def test_notes_tell_how_images_are_read(photos: Read) -> None:
    """Images are turned or scaled without a word."""
    dataset, _ = photos
    assert dataset.notes == (
        "images turned upright, as their orientation tag says: 64",
        "images with 16 bits in each colour, of which the upper 8 are read: 1; these are at most 255 of 255",
        "TIFF images of several pages, of which the first is read: 1",
        "images with more than 8 bits of grey: 8; 29000 becomes 0, 31000 becomes 255",
        "but some hold whole numbers and some fractions, and share one range: convert them to one kind",
    )


def test_deep_greys_use_the_range_of_the_training_images(photos: Read) -> None:
    """Few greys are left of 9 to 14 bits in a 16-bit file; or test images decide how training images look."""
    dataset, read = photos
    assert dataset.greys == (LOW, HIGH)
    for item in ("16.png", "16.tif", "packed16.tif", "32.tif", "fractions.tif"):
        assert len(np.unique(read[f"train/a/{item}"])) > 40, item
    assert {0, 255} <= set(read["test/a/beyond.png"].ravel().tolist())


@pytest.mark.parametrize(
    ("values", "greys"),
    [
        ([[0, 4095]], (0, 4095)),
        ([[7, 7]], (7, 8)),
        ([[-5, 5]], (-5, 5)),
        ([[0.25, 0.5]], (0.25, 0.5)),
    ],
)
def test_ranges(tmp_path: Path, values: list[list[float]], greys: tuple[float, float]) -> None:
    """A range is wrong, or one without width divides by zero."""
    whole = all(value == int(value) for row in values for value in row)
    Image.fromarray(np.array(values, "int32" if whole else "float32")).save(tmp_path / "one.tif")
    with Image.open(tmp_path / "one.tif") as image:
        together = reading.together([None, reading.header(image).greys])
        assert together == greys
        assert reading.pixels(image, SIZE, together).dtype == np.uint8


def tiff(values: Pixels, **tags: int) -> bytes:
    """A TIFF of the simplest kind, with tags that Pillow does not write."""
    height, width, samples = (*values.shape, 1)[:3]
    numbers = {"subfile": 254, "width": 256, "height": 257, "bits": 258, "compression": 259, "photometric": 262}
    numbers |= {"offset": 273, "samples": 277, "rows": 278, "bytes": 279, "planar": 284, "format": 339}
    known = {"width": width, "height": height, "bits": 8 * values.itemsize, "compression": 1, "photometric": 1}
    known |= {"samples": samples, "rows": height, "bytes": values.nbytes, "planar": 1, "format": 1, **tags}
    known["offset"] = 8 + 2 + 12 * (len(known) + 1) + 4
    entries = sorted((numbers[name], value) for name, value in known.items())
    folder = b"".join(struct.pack("<HHII", number, 4, 1, value) for number, value in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + folder + bytes(4) + values.tobytes()


GREY = np.arange(40).reshape(5, 8)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (tiff(GREY.astype("uint8"), subfile=1), "a thumbnail"),
        (tiff(GREY.astype("uint16"), photometric=0), "0 is white in it"),
        (tiff(GREY.astype("int8"), format=2), "8 bits with a sign"),
        (tiff(GREY.astype("uint32") + (1 << 31)), "2,147,483,648 and more"),
        (tiff(np.zeros((4, 4, 3), "uint16"), photometric=2, planar=2), "its colours lie apart"),
        (tiff(GREY.astype("float64"), format=3), "of a kind of TIFF"),
    ],
)
def test_tiffs_that_pillow_misreads_are_bad(tmp_path: Path, content: bytes, told: str) -> None:
    """A picture is read as another one without a word."""
    for name in "ab":
        (tmp_path / name).mkdir()
        for number in range(6):
            paint(ord(name) + 100 * number).save(tmp_path / name / f"{number}.png")
    (tmp_path / "a" / "odd.tif").write_bytes(content)
    ((path, reason),) = store.find(str(tmp_path), seed=0, max_bad_files=0.1).skipped
    assert path == "a/odd.tif"
    assert told in reason


def test_the_simplest_tiff_is_read() -> None:
    """The files of the test before are bad for another reason than the one that is told."""
    with Image.open(io.BytesIO(tiff(GREY.astype("uint16")))) as image:
        assert reading.header(image).greys == (0, 39)


@pytest.mark.parametrize("orientation", [0, 9, 99])
def test_orientations_that_do_not_exist(orientation: int) -> None:
    """Images are told as turned that are not."""
    with Image.open(io.BytesIO(turned(orientation, "JPEG", 1))) as image:
        assert reading.header(image) == reading.ORDINARY


def test_broken_tags_are_named() -> None:
    """A PNG with broken EXIF data is said to be no TIFF."""
    file = io.BytesIO()
    paint(1).save(file, "PNG", exif=b"Exif\0\0garbage!")
    with Image.open(file) as image, pytest.raises(ValueError, match="EXIF data are broken"):
        reading.header(image)


def test_a_hot_pixel_is_told(tmp_path: Path) -> None:
    """One outlier leaves all images a handful of greys, and nobody hears of it."""
    numbers = np.random.default_rng(0)
    for name, low in (("a", 500), ("b", 900)):
        (tmp_path / name).mkdir()
        for number in range(6):
            values = numbers.integers(low, low + 500, (9, 7)).astype("uint16")
            values[0, 0] = 65535 if number == 0 else low
            Image.fromarray(values).save(tmp_path / name / f"{number}.png")
    notes = [store.find(str(tmp_path), seed=seed, max_bad_files=0).notes for seed in range(6)]
    assert {"becomes 255" in found[0] for found in notes} == {True}
    assert any(len(found) == 2 and "share few greys" in found[1] for found in notes)


def test_values_that_are_no_numbers_are_bad(tmp_path: Path) -> None:
    """One not-a-number makes the range of all images one."""
    for name in "ab":
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(10):
            paint(ord(name) + 100 * number).save(tmp_path / "photos" / name / f"{number}.png")
    Image.fromarray(np.array([[np.nan, 1]], "float32")).save(tmp_path / "photos" / "a" / "nan.tif")
    dataset = store.find(str(tmp_path / "photos"), seed=0, max_bad_files=0.1)
    assert dataset.skipped == (("a/nan.tif", "cannot be read: it holds values that are no numbers"),)


def test_the_fingerprint_tells_how_images_are_read(tmp_path: Path) -> None:
    """Features of images read in another way are taken; or those of ordinary data are lost with a new version."""
    for number, folder in enumerate([tmp_path / split / name for split in store.SPLITS for name in "ab"]):
        folder.mkdir(parents=True)
        paint(number).convert("RGB").save(folder / "any.png")
    dataset = store.find(str(tmp_path), seed=0, max_bad_files=0)
    asked = [dataset.classes, dataset.items, dataset.labels, dataset.digests]
    assert hashlib.sha256(json.dumps(asked).encode()).hexdigest() == dataset.fingerprint
    (tmp_path / "train" / "a" / "any.png").write_bytes(turned(6, "PNG", 0))
    tagged = store.find(str(tmp_path), seed=0, max_bad_files=0)
    asked = [tagged.classes, tagged.items, tagged.labels, tagged.digests]
    assert hashlib.sha256(json.dumps(asked).encode()).hexdigest() != tagged.fingerprint


@pytest.mark.slow
def test_a_saved_model_answers_as_the_model_does(recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The README's way around an older Keras does not run, or gives other probabilities."""
    text = README.read_text("utf-8")
    load, ask = re.findall(r"^    ((?:exported = tensorflow|exported\.serve).*?)(?: +#.*)?$", text, re.M)
    (inside,) = re.findall(r"`(keras\.layers\.TFSMLayer\(.*?\))`", text)
    monkeypatch.chdir(recipe["folder"])
    import tensorflow

    known = {**recipe, "tensorflow": tensorflow}
    recipe["model"].export("best/export/savedmodel/model", verbose=False)  # as search.export writes it
    exec(load, known)  # noqa: S102 our own README
    served, layer = (eval(line, known) for line in (ask, inside))  # noqa: S307 our own README

    np.testing.assert_array_equal(served, recipe["probabilities"])
    np.testing.assert_array_equal(layer(np.stack([recipe["pixels"]("cat.jpg")]).astype("float32")), served)
