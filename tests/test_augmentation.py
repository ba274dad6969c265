"""Views of images are fixed, stay within what is stated, and never show anything but the image."""

import hashlib
from itertools import product

import numpy as np
import pytest

from search.data.augmentation import CONTRAST, ROTATION, SHIFT, ZOOM, view

SIDE = 49  # odd, so that a pixel lies in the middle
MANY = 300


def digests(count: int) -> list[str]:
    """As many digests as asked, all different."""
    return [hashlib.sha256(str(number).encode()).hexdigest() for number in range(count)]


def noise(count: int, size: int) -> np.ndarray:
    """Images of random pixels, all different."""
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)


def many(image: np.ndarray) -> np.ndarray:
    """One view of each of many copies of an image, every copy with a digest of its own."""
    return view(np.broadcast_to(image, (MANY, *image.shape)), digests(MANY), number=1, seed=0)


def halves(top: int, bottom: int) -> np.ndarray:
    """An image whose upper half is one grey and whose lower half another."""
    image = np.full((32, 32, 3), top, np.uint8)
    image[16:] = bottom
    return image


@pytest.fixture(scope="module")
def dots() -> np.ndarray:
    """Where three soft dots on black go in many views (n, 3, 2), in pixels right of and below the middle.

    Red began 8 pixels to the left of the middle, green in the middle, blue 8 pixels to the right.
    """
    down, right = np.mgrid[:SIDE, :SIDE] - SIDE // 2
    image = np.stack([200 * np.exp(-((right - x) ** 2 + down**2) / 6) for x in (-8, 0, 8)], axis=-1)
    views = many(np.rint(image).astype(np.uint8)).astype(float)
    total = views.sum(axis=(1, 2))
    places = [np.tensordot(views, offsets, axes=([1, 2], [0, 1])) / total for offsets in (right, down)]
    return np.stack(places, axis=-1)


def test_view_0_is_the_image_itself() -> None:
    """Training without augmentation, or on the first view of each image, would not see the user's own pixels."""
    images = noise(3, 8)
    assert view(images, digests(3), number=0, seed=5) is images


@pytest.mark.parametrize("size", [1, 2, 8, 33])
def test_shape_and_type_are_kept(size: int) -> None:
    """Views could not be cached beside the images; or tiny images, or no images at all, end in an error."""
    for count in (0, 2):
        images = noise(count, size)
        before = images.copy()
        images.flags.writeable = False
        views = view(images, digests(count), number=1, seed=0)
        assert (images.shape, np.uint8, np.ndarray) == (views.shape, views.dtype, type(views))
        assert np.array_equal(before, images)


def test_a_view_depends_on_its_image_alone() -> None:
    """An image gets another view in another batch or place: what is cached would not be what is asked for."""
    images, names = noise(6, 16), digests(6)
    views = view(images, names, number=3, seed=7)
    assert np.array_equal(views, view(images, names, number=3, seed=7))
    assert np.array_equal(views[::-1], view(images[::-1], names[::-1], number=3, seed=7))
    for row, name in enumerate(names):
        assert np.array_equal(views[row : row + 1], view(images[row : row + 1], [name], number=3, seed=7))


def test_everything_named_counts() -> None:
    """Two views, seeds or images share one transform, and the user augments with less than was asked for."""
    image, names = noise(1, 16), digests(2)
    asked = [(name, number, seed) for name in names for number in (1, 2, 3) for seed in (0, 1, 2)]
    seen = {view(image, [name], number, seed).tobytes() for name, number, seed in asked} | {image.tobytes()}
    assert len(asked) + 1 == len(seen)


def test_randomness_is_the_documented_one(dots: np.ndarray) -> None:
    """Another process or release draws other views, and a cache mixes both."""
    flipped = dots[:, 0, 0] > dots[:, 2, 0]
    seeds = [[0, 1, int(name[:16], 16)] for name in digests(MANY)]
    assert [np.random.default_rng(seed).uniform(-1, 1) < 0 for seed in seeds] == flipped.tolist()


def test_as_many_digests_as_images() -> None:
    """A caller's slip goes unseen, and rows without content are trained on."""
    with pytest.raises(ValueError, match="shorter"):
        view(noise(3, 8), digests(2), number=1, seed=0)


def test_half_of_the_views_are_flipped(dots: np.ndarray) -> None:
    """Flips are left out, or hardly anything else is seen."""
    assert np.mean(dots[:, 0, 0] > dots[:, 2, 0]) == pytest.approx(0.5, abs=0.1)


def test_shift_is_within_its_range(dots: np.ndarray) -> None:
    """What is in the middle leaves the image, or never moves one way."""
    shift = dots[:, 1] / SIDE
    assert np.abs(shift).max() <= SHIFT + 0.001
    assert shift.max(axis=0) == pytest.approx([SHIFT, SHIFT], rel=0.1)
    assert shift.min(axis=0) == pytest.approx([-SHIFT, -SHIFT], rel=0.1)
    assert abs(np.corrcoef(shift.T)[0, 1]) < 0.2, "only moved along a diagonal"


def test_rotation_and_zoom_are_within_their_ranges(dots: np.ndarray) -> None:
    """Content is turned or enlarged beyond what is stated, or never one way."""
    right, down = np.abs(dots[:, 2, 0] - dots[:, 0, 0]), dots[:, 2, 1] - dots[:, 0, 1]
    degrees, zoom = np.degrees(np.arctan2(down, right)), np.hypot(down, right) / 16
    assert (degrees.min(), degrees.max()) == pytest.approx((-ROTATION, ROTATION), rel=0.1)
    assert np.abs(degrees).max() <= ROTATION + 0.2
    assert (zoom.min(), zoom.max()) == pytest.approx((1 - ZOOM, 1 + ZOOM), abs=0.01)
    middles = (dots[:, 0] + dots[:, 2]) / 2
    assert np.abs(middles - dots[:, 1]).max() < 0.1, "not turned and zoomed about the middle"


def test_contrast_is_within_its_range() -> None:
    """Images become flat or harsh; or become brighter or darker where only their contrast should change."""
    views = many(halves(78, 178)).astype(float)
    darkest, brightest = views.min(axis=(1, 2, 3)), views.max(axis=(1, 2, 3))
    factors = (brightest - darkest) / 100
    assert (factors.min(), factors.max()) == pytest.approx((1 - CONTRAST, 1 + CONTRAST), abs=0.0101)
    assert np.abs((brightest + darkest) / 2 - 128).max() <= 1


def test_contrast_does_not_wrap_around() -> None:
    """Black becomes white where the contrast grows; or views are turned upside down."""
    views = many(halves(0, 255))
    limit = 128 * CONTRAST + 1
    assert views[:, :4].max() <= limit
    assert views[:, -4:].min() >= 255 - limit


@pytest.mark.parametrize("size", [1, 2, 8, 33])
@pytest.mark.parametrize("value", [200, 255])
def test_no_black_corners(size: int, value: int) -> None:
    """A network learns the black corners of turned images, which no image has in use."""
    assert np.unique(many(np.full((size, size, 3), value, np.uint8))).tolist() == [value]


@pytest.mark.parametrize("size", [8, 100])
def test_no_black_corners_at_the_limits(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """The rare view that is shifted, turned and made smaller as far as allowed looks beyond the mirrored pixels."""
    draws = iter(np.array(list(product((-1.0, 1.0), repeat=6))))

    class Extreme:
        def uniform(self, _low: float, _high: float, _count: int) -> np.ndarray:
            return next(draws)

    monkeypatch.setattr(np.random, "default_rng", lambda _seed: Extreme())
    bright = np.full((64, size, size, 3), 200, np.uint8)
    assert np.unique(view(bright, digests(64), number=1, seed=0)).tolist() == [200]
    assert list(draws) == []


def test_outside_is_a_mirror() -> None:
    """The far side of the image comes in, or its edge is smeared over the corners."""
    sides = many(np.ascontiguousarray(halves(55, 255).transpose(1, 0, 2))).astype(float)
    left, right = sides[:, :, :4].mean(axis=(1, 2, 3)), sides[:, :, -4:].mean(axis=(1, 2, 3))
    assert np.abs(left - right).min() > 150
    frame = np.full((32, 32, 3), 255, np.uint8)
    frame[1:-1, 1:-1] = 0
    assert np.mean(many(frame) > 128, axis=(1, 2, 3)).max() < 0.25


def test_brightness_is_kept() -> None:
    """Views are darker or brighter than the images: a network would learn what it never meets in use."""
    image = noise(1, 32)[0]
    assert np.abs(many(image).mean(axis=(1, 2, 3)) - image.mean()).max() < 8
