"""Take the README's picture of a search: TensorBoard's HParams page in a headless Chromium.

    python docs/pictures.py results/NAME docs/hparams.png

Needs the extra `pictures` and a Chromium (on Debian: `apt-get install chromium`).
"""

import shutil
import socket
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

WIDTH, HEIGHT = 1500, 820


def take(search: Path, picture: Path) -> None:
    """Start TensorBoard on a search's directory, open its HParams page, and keep what it shows as a PNG."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = Path(sys.executable).with_name("tensorboard")
    options = ["--logdir", search / "tensorboard", "--port", str(port), "--host", "127.0.0.1"]
    board = subprocess.Popen([program, *options], stderr=subprocess.PIPE, text=True)
    try:
        while "http://" not in board.stderr.readline():
            pass
        with sync_playwright() as browsers:
            browser = browsers.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
            page.goto(f"http://127.0.0.1:{port}/#hparams")
            page.wait_for_selector("text=best validation accuracy", timeout=60_000)
            page.wait_for_timeout(3_000)
            page.screenshot(path=picture)
            browser.close()
    finally:
        board.kill()
        board.wait()


if __name__ == "__main__":
    take(Path(sys.argv[1]), Path(sys.argv[2]))
