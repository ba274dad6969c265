"""Take the README's pictures of a search in a headless Chromium: TensorBoard's HParams and Projector, and the report.

    python docs/pictures.py results/NAME docs

Needs the extra `test` and a Chromium (on Debian: `apt-get install chromium`).
"""

import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

SIZE = {"width": 1500, "height": 820}
WEBGL = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]


@contextmanager
def board(logdir: Path) -> Iterator[str]:
    """TensorBoard's address, while it runs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = Path(sys.executable).with_name("tensorboard")
    options = ["--logdir", logdir, "--port", str(port), "--host", "127.0.0.1"]
    process = subprocess.Popen([program, *options], stderr=subprocess.PIPE, text=True)
    try:
        while "http://" not in process.stderr.readline():
            pass
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def take(page: Any, address: str, ready: Any, picture: Path) -> None:
    """Open a page, wait for something on it, and keep what it shows as a PNG."""
    page.goto("about:blank")
    page.goto(address)
    ready.first.wait_for(timeout=90_000)
    page.wait_for_timeout(5_000)
    page.screenshot(path=picture)


def main(search: Path, folder: Path) -> None:
    """Take all of them."""
    subprocess.run([sys.executable, "-m", "search.report", search.name, "--storage", search.parent], check=True)
    with board(search / "tensorboard") as address, sync_playwright() as browsers:
        browser = browsers.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox", *WEBGL])
        page = browser.new_page(viewport=SIZE)
        inner = page.frame_locator("iframe").frame_locator("iframe")
        take(page, f"{address}/#hparams", page.get_by_text("best validation accuracy"), folder / "hparams.png")
        take(page, f"{address}/#projector", inner.locator(".numDataPoints:not(:empty)"), folder / "projector.png")
        page.set_viewport_size({"width": 1100, "height": 1350})
        report = (search / "report.html").absolute().as_uri()
        take(page, report, page.get_by_text("How did the trials learn?"), folder / "report.png")
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
