"""How much memory the processes of a search take, and whether it grows with the number of images.

    python -m benchmarks.memory 2000 20000

For each number it generates so many images of 224 by 224 pixels and searches them (MobileNetV2 with random weights,
four trials of one epoch, unfreeze depth 0 and 1). Ten times a second it looks at what the system says was the most that
each process ever had resident; that counts mapped files, which the system takes back when it needs the memory.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

SPACE = """from search.space import Budget, Depth, Float, Space

space = Space(
    search={"unfreeze_depth": Depth(0, 1), "learning_rate": Float(1e-4, 1e-3, log=True)},
    start=[{"unfreeze_depth": depth, "learning_rate": 5e-4} for depth in (0, 1, 1, 0)],
    budget=Budget(trials=4, epochs=1, first_rung=1),
)
"""
KINDS = {
    "search.run": "the command",
    "search.trial.preparation": "preparation",
    "ImplicitFunc": "a trial",
    "Export": "the export",
}
CLASSES = 4
SIDE = 224
SECONDS_BETWEEN_LOOKS = 0.1


def generate(folder: Path, count: int) -> None:
    """Write so many JPEG files, no two alike."""
    generator = np.random.default_rng(0)
    for number in range(count):
        grain = 8 << number % CLASSES
        pixels = generator.integers(0, 256, (grain, grain, 3), np.uint8)
        path = folder / f"grain{grain}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BILINEAR).save(path, quality=80)


def look(command: psutil.Process, most: dict[str, int]) -> None:
    """Note the most memory, in bytes, that a process of each kind has had resident."""
    for process in [command, *command.children(recursive=True)]:
        try:
            called = " ".join(process.cmdline())
            status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
        except (psutil.Error, OSError):  # it ended meanwhile
            continue
        kind = next((kind for mark, kind in KINDS.items() if mark in called), None)
        for line in status.splitlines():
            if kind and line.startswith("VmHWM:"):
                most[kind] = max(most.get(kind, 0), int(line.split()[1]) << 10)


def search(count: int) -> tuple[dict[str, int], float]:
    """Search so many images; give the most that each kind of process had, in bytes, and the seconds it took."""
    most: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        generate(root / "images", count)
        (root / "space.py").write_text(SPACE, "utf-8")
        options = ["--space", "space.py", "--data", "images", "--backbone", "MobileNetV2", "--weights", "none"]
        started = time.monotonic()
        command = [sys.executable, "-m", "search.run", *options, "--cache", "cache", "--set", f"image_size={SIDE}"]
        with subprocess.Popen(command, cwd=root) as process:
            while process.poll() is None:
                look(psutil.Process(process.pid), most)
                time.sleep(SECONDS_BETWEEN_LOOKS)
        if process.returncode:
            sys.exit(f"the search ended with status {process.returncode}")
        return most, time.monotonic() - started


def main() -> None:
    """Measure each number, then print the table."""
    if not (numbers := [int(argument) for argument in sys.argv[1:]]):
        sys.exit(__doc__)
    found = {count: search(count) for count in numbers}
    print("| most resident memory, MiB | " + " | ".join(f"{count:,} images" for count in numbers) + " |")
    print("|---" * (len(numbers) + 1) + "|")
    for kind in KINDS.values():
        print(f"| {kind} | " + " | ".join(f"{found[count][0].get(kind, 0) >> 20:,}" for count in numbers) + " |")
    print("| the whole search, s | " + " | ".join(f"{found[count][1]:.0f}" for count in numbers) + " |")


if __name__ == "__main__":
    main()
