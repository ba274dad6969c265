"""What several tests share: toy images to train on, and Ray's token."""

import gc
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from objects_server import Service, serving
from PIL import Image

from search.cluster.connection import OWN
from search.data import store

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.update(OWN)  # before any test imports Ray
# Tests that are begun in the background, or by `nohup`, would ignore these, and so would all that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
for number in (signal.SIGHUP, signal.SIGQUIT):
    signal.signal(number, signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with many slow tests come first, so that at the end no worker waits for one of them."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


def pytest_collection_finish() -> None:
    """TensorFlow's millions of objects are there for good: the collector need not look at them in every test."""
    gc.collect()
    gc.freeze()


COUNTS = {"train": 20, "val": 5, "test": 6}  # of each class
MISLABELLED = 3  # light images among the dark ones of the test split


@dataclass(frozen=True)
class Toy:
    """A folder of images that is split already, decoded into a cache."""

    folder: Path
    dataset: store.Dataset
    cache: Path
    image_size: int = 16


@pytest.fixture(scope="session")
def token() -> None:
    """What nodes join a Ray cluster by, made if this user has none yet."""
    command = [Path(sys.executable).with_name("ray"), "get-auth-token", "--generate"]
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for searches of tests that are not about it: images, features and probe are there already."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def cached(tmp_path: Path, shared_cache: Path) -> None:
    """Searches in the test's folder use the shared cache."""
    (tmp_path / "cache").symlink_to(shared_cache)


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    """Dark and light noise, 62 images of several sizes and kinds, that any network soon tells apart."""
    root = tmp_path_factory.mktemp("toy")
    numbers = np.random.default_rng(0)
    for split, count in COUNTS.items():
        for name, grey in (("dark", 50), ("light", 200)):
            folder = root / "images" / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                mislabelled = split == "test" and name == "dark" and index < MISLABELLED
                size = (18, 20, 3) if index % 2 else (16, 16, 3)
                pixels = np.clip(numbers.normal(200 if mislabelled else grey, 40, size), 0, 255).astype(np.uint8)
                mode, ending = ("L", "png") if index % 4 == 3 else ("RGB", "jpg" if index % 4 == 2 else "png")
                Image.fromarray(pixels).convert(mode).save(folder / f"{index}.{ending}")
    found = store.find(str(root / "images"), seed=0, max_bad_files=0)
    dataset = store.decode(found, max_bad_files=0, image_size=Toy.image_size, cache=root / "cache")
    return Toy(root / "images", dataset, root / "cache")


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """A server that speaks S3, with an empty bucket."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with serving() as known:
        yield known
