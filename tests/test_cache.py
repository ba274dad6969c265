"""Arrays on a node's disk are whole and as they were written, or not there; and they take no more room than allowed."""

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from search import cache

SHAPE = (20, 3, 4)
GIB = 2**30
MIB = 2**20


def values(seed: int = 0, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """Random numbers, all different."""
    return np.random.default_rng(seed).random(shape, np.float32)


def written(path: Path, array: np.ndarray | None = None) -> Path:
    """A file that holds an array, written in two parts."""
    array = values() if array is None else array
    with cache.Writer(path, array.shape, "float32") as writer:
        writer.write(array[:7])
        writer.write(array[7:])
    return path


def files(folder: Path) -> list[str]:
    """The names of all files below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a test's array goes."""
    return tmp_path / "x.npy"


# what was written is what is read


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("shape", [SHAPE, (5, 8), (0, 8)])
def test_an_array_comes_back(path: Path, shape: tuple[int, ...], dtype: str) -> None:
    """Trials would train on other values than the backbone gave; or a split without images ends in an error."""
    array = values(shape=shape).astype(dtype)
    with cache.Writer(path, shape, dtype) as writer:
        for row in range(0, len(array), 3):
            writer.write(array[row : row + 3])

    rows = cache.opened(path, shape, dtype)

    assert rows is not None
    assert (rows.shape, rows.dtype, rows.nbytes, len(rows)) == (shape, np.dtype(dtype), array.nbytes, len(array))
    assert np.array_equal(rows[:], array)
    assert np.array_equal(np.load(path), array), "plain NumPy cannot read it"


def test_other_numbers_are_cast_when_they_are_written(path: Path) -> None:
    """A network that computes in half precision, or gives strided values, would fill the file with garbage."""
    array = values()
    with cache.Writer(path, SHAPE, "float16") as writer:
        writer.write(array.transpose(0, 2, 1).copy().transpose(0, 2, 1))
    rows = cache.opened(path, SHAPE, "float16")
    assert rows is not None
    assert np.array_equal(rows[:], array.astype("float16"))


def test_rows_come_in_the_order_asked_for(path: Path) -> None:
    """Images would be trained with the labels of others."""
    array = values()
    rows = cache.opened(written(path, array), SHAPE, "float32")
    assert rows is not None
    for asked in ([3, 0, 19, 3], [], [7]):
        order = np.array(asked, np.int64)
        assert np.array_equal(rows[order], array[order])
    assert np.array_equal(rows[5:9], array[5:9])


def test_rows_are_copies(path: Path) -> None:
    """Who changes a batch in place would change the features of all trials; or rows vanish with the file."""
    array = values()
    rows = cache.opened(written(path, array), SHAPE, "float32")
    assert rows is not None
    for asked in (slice(2, 5), np.arange(2, 5)):
        taken = rows[asked]
        assert taken.flags.owndata
        taken += 1
        assert np.array_equal(rows[asked], array[2:5])
    kept = rows[:]
    path.unlink()
    del rows
    assert np.array_equal(kept, array)


# what is damaged is not opened


def truncated(path: Path) -> None:
    """Cut a file short."""
    os.truncate(path, path.stat().st_size - 4)


def altered(path: Path) -> None:
    """Change one bit of the values."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def replaced(path: Path) -> None:
    """Put another array's file in its place, of the same size."""
    written(path.with_name("other.npy"), values(1)).with_suffix(path.suffix).replace(path)


def emptied(path: Path) -> None:
    """Leave nothing of it."""
    path.write_bytes(b"")


def removed(path: Path) -> None:
    """Remove it."""
    path.unlink()


@pytest.mark.parametrize("damage", [truncated, altered, replaced, emptied, removed])
@pytest.mark.parametrize("ending", [".npy", ".json"])
def test_damage_is_noticed(path: Path, damage: object, ending: str) -> None:
    """A file that somebody cut, changed or removed would be trained on; or the trial ends in an error."""
    written(path)
    time.sleep(0.02)  # the clock of a file system is coarse
    assert callable(damage)
    damage(path.with_suffix(ending))
    assert cache.opened(path, SHAPE, "float32") is None


@pytest.mark.parametrize("text", ["null", "[]", "{}", '{"size": 1, "written_ns": 1}', "\x00\xff"])
def test_a_stamp_that_says_something_else_is_none(path: Path, text: str) -> None:
    """A stamp that a crash of the machine left half written would end the trial, or vouch for any file."""
    written(path).with_suffix(".json").write_text(text, "latin-1")
    assert cache.opened(path, SHAPE, "float32") is None


@pytest.mark.parametrize(("shape", "dtype"), [((20, 12), "float32"), ((19, 3, 4), "float32"), (SHAPE, "int32")])
def test_an_array_of_another_kind_is_not_opened(path: Path, shape: tuple[int, ...], dtype: str) -> None:
    """Features of another dataset or network would be taken for the trial's own."""
    written(path)
    assert cache.opened(path, shape, dtype) is None
    assert cache.opened(path, SHAPE, "float32") is not None


def test_a_file_that_is_no_array_is_not_opened(path: Path) -> None:
    """A foreign file, with a stamp that fits it, would end the trial."""
    path.write_bytes(b"no array" * 100)
    cache._put_stamp(path)
    assert cache.opened(path, SHAPE, "float32") is None


# whoever writes leaves all of it or nothing


def test_an_error_leaves_nothing(path: Path) -> None:
    """Half an array would fill the disk for good, or be opened."""
    with pytest.raises(RuntimeError, match="network"), cache.Writer(path, SHAPE, "float32") as writer:  # noqa: PT012
        writer.write(values()[:7])
        raise RuntimeError("the network failed")
    assert files(path.parent) == []


@pytest.mark.parametrize("count", [0, 19, 21])
def test_a_wrong_number_of_rows_leaves_nothing(path: Path, count: int) -> None:
    """Rows that were left out would be read as what comes after them, or as zeros."""
    with pytest.raises(ValueError, match="missing"), cache.Writer(path, SHAPE, "float32") as writer:
        writer.write(values(shape=(count, *SHAPE[1:])))
    assert files(path.parent) == []


def test_the_last_array_stays_until_the_next_is_whole(path: Path) -> None:
    """A trial that starts while features are computed again would find none, or half of them."""
    written(path)

    def seen() -> np.ndarray:
        rows = cache.opened(path, SHAPE, "float32")
        assert rows is not None
        return rows[:]

    with cache.Writer(path, SHAPE, "float32") as writer:
        writer.write(values(1)[:19])
        assert np.array_equal(seen(), values())
        writer.write(values(1)[19:])
        assert np.array_equal(seen(), values())
    assert np.array_equal(seen(), values(1))
    with pytest.raises(ValueError, match="missing"), cache.Writer(path, SHAPE, "float32") as writer:
        writer.write(values(2)[:19])
    assert np.array_equal(seen(), values(1))
    assert files(path.parent) == ["x.json", "x.npy"]


def test_rows_that_are_open_outlive_their_file(path: Path) -> None:
    """A trial that reads while features are computed again, or evicted, would get others in the middle of an epoch."""
    rows = cache.opened(written(path), SHAPE, "float32")
    assert rows is not None
    written(path, values(1))
    assert np.array_equal(rows[:], values())


def test_one_of_several_writers_that_fails_leaves_nothing_of_any(tmp_path: Path) -> None:
    """Some cuts would be there and others not, and the disk full of what nobody can use."""
    paths = [tmp_path / f"{name}.npy" for name in "abc"]
    with pytest.raises(RuntimeError), cache.writers(paths, [SHAPE] * 3, ["float32"] * 3) as writers:  # noqa: PT012
        writers[0].write(values())
        writers[1].write(values())
        raise RuntimeError
    assert files(tmp_path) == []


KILLED = """
import os, pathlib, sys
import numpy as np
from search import cache
with cache.Writer(pathlib.Path(sys.argv[1]), (20, 3, 4), "float32") as writer:
    writer.write(np.ones((20, 3, 4), "float32"))
    os.kill(os.getpid(), 9)
"""


def test_a_writer_that_is_killed_leaves_nothing_that_is_opened(path: Path) -> None:
    """Out of memory or out of power in the middle of a pass: the next search would train on what was left."""
    killed = subprocess.run([sys.executable, "-c", KILLED, path], check=False)
    assert killed.returncode == -9
    assert files(path.parent) == ["x.npy.tmp"]
    assert cache.opened(path, SHAPE, "float32") is None

    written(path)
    assert files(path.parent) == ["x.json", "x.npy"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one mebibyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if os.geteuid() or not mount:
        pytest.skip("only root can mount a small disk to fill")
    mounted = subprocess.run([mount, "-t", "tmpfs", "-o", "size=1m", "none", folder], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_full_disk_is_an_error_of_the_disk(small_disk: Path) -> None:
    """The process would die by a signal, or leave a file that is too short and takes the last of the disk."""
    path = written(small_disk / "x.npy")
    large = np.ones((100, 2**14), "float32")
    for target in (path, small_disk / "y.npy"):
        with pytest.raises(OSError, match="space") as caught:
            written(target, large)
        assert caught.value.errno == errno.ENOSPC
        assert files(small_disk) == ["x.json", "x.npy"]
    rows = cache.opened(path, SHAPE, "float32")
    assert rows is not None
    assert np.array_equal(rows[:], values())


def test_a_disk_that_is_full_at_the_end_is_an_error_too(small_disk: Path) -> None:
    """What a buffer still held when the disk ran full would be missing from the file."""
    (small_disk / "full").write_bytes(b"\0" * (2**20 - 2**14))
    array = values(shape=(20, 2**10))
    with pytest.raises(OSError, match="space"):
        written(small_disk / "x.npy", array)
    assert files(small_disk) == ["full"]


# how much room they take


def filled(root: Path, *names: str) -> dict[str, Path]:
    """Arrays of one mebibyte each, in folders below a root, used in this order."""
    paths = {}
    for number, name in enumerate(names):
        paths[name] = root / name / "x.npy"
        paths[name].parent.mkdir(parents=True)
        written(paths[name], np.ones((16, 2**14 - 2), "float32"))
        os.utime(paths[name].with_suffix(".json"), (number, number))
    return paths


def there(paths: dict[str, Path]) -> str:
    """Which of them can still be opened."""
    return "".join(name for name, path in paths.items() if cache.opened(path, (16, 2**14 - 2), "float32"))


@pytest.mark.parametrize(("limit", "left"), [(6, "abcd"), (5, "bcd"), (4, "cd"), (2, ""), (1, "")])
def test_those_used_least_lately_make_room(tmp_path: Path, limit: int, left: str) -> None:
    """The disk fills up over the months; or the features that the next search needs are thrown away first."""
    paths = filled(tmp_path, "a", "b", "c", "d")
    cache.make_room(tmp_path, 2 * MIB, limit * MIB, keep=())
    assert there(paths) == left
    assert len(files(tmp_path)) == 2 * len(left), "what is left of them takes room"


def test_to_open_an_array_is_to_use_it(tmp_path: Path) -> None:
    """The features of the user's daily dataset would go first, because they were written first."""
    paths = filled(tmp_path, "a", "b", "c")
    assert cache.opened(paths["a"], (16, 2**14 - 2), "float32")
    cache.make_room(tmp_path, 0, MIB, keep=())
    assert there(paths) == "a"


def test_what_is_needed_now_stays(tmp_path: Path) -> None:
    """A search would throw away the features it is about to use, to make room for others of its own."""
    paths = filled(tmp_path, "a", "b", "c")
    cache.make_room(tmp_path, 2 * MIB, 3 * MIB, keep={paths["a"]})
    assert there(paths) == "a"


def test_nothing_is_removed_without_need(tmp_path: Path) -> None:
    """Every search would start with a pass of the backbone; or an empty cache ends in an error."""
    cache.make_room(tmp_path / "nowhere", MIB, 2 * MIB, keep=())
    paths = filled(tmp_path, "a", "b")
    (tmp_path / "a" / "about.json").write_text("{}")
    cache.make_room(tmp_path, 0, 2 * MIB, keep=())
    assert there(paths) == "ab"


def test_what_was_asked_for_is_allowed(tmp_path: Path) -> None:
    """The user's limit would not hold."""
    assert cache.allowed(tmp_path, 0.25) == GIB // 4
    assert cache.allowed(tmp_path, 0) == 0
    assert cache.allowed(tmp_path / "not" / "there", 0.25) == GIB // 4


def test_at_most_half_of_the_free_disk_is_allowed(small_disk: Path) -> None:
    """The cache would fill the user's disk; or shrink with every search, for what it holds would not count as free."""
    root = small_disk / "features"
    assert cache.allowed(root, 50.0) == pytest.approx(MIB / 2, rel=0.02)
    root.mkdir()
    written(root / "x.npy", np.ones((20, 2**12), "float32"))
    assert cache.allowed(root, 50.0) == pytest.approx(MIB / 2, rel=0.02)
    (small_disk / "other").write_bytes(b"\0" * (MIB // 2))
    assert cache.allowed(root, 50.0) == pytest.approx(MIB / 4, rel=0.04)


# how much memory they take

READ = """
import pathlib, sys
import numpy as np
from search import cache

def resident():
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * 4096

path, width = pathlib.Path(sys.argv[1]), int(sys.argv[2])
count, part = 300 * 2**18 // width, 2**18 // width
with cache.Writer(path, (count, width), "float32") as writer:
    for _ in range(0, count, part):
        writer.write(np.ones((part, width), "float32"))
rows = cache.opened(path, (count, width), "float32")
before, most = resident(), 0
for order in (np.arange(count), np.random.default_rng(0).permutation(count)):
    for start in range(0, min(count, 6_000), 32):
        rows[order[start : start + 32]]
        most = max(most, resident() - before)
print(most // 2**20)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="only Linux tells how much memory is resident")
@pytest.mark.parametrize("width", [2**10, 2**15])
def test_memory_does_not_grow_with_the_file(path: Path, width: int) -> None:
    """A dataset larger than memory could not be searched: each trial would hold all the features it has read."""
    read = subprocess.run([sys.executable, "-c", READ, path, str(width)], capture_output=True, check=True)
    assert int(read.stdout) < 100, "MiB, of a file of 300"


def test_json_stamps_hold_size_and_time(path: Path) -> None:
    """The next release could not read the caches of this one, and every pass would be made again."""
    status = written(path).stat()
    stamp = json.loads(path.with_suffix(".json").read_text("utf-8"))
    assert stamp == {"size": status.st_size, "written_ns": status.st_mtime_ns}
