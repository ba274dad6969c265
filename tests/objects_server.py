"""A real server that speaks S3."""

import csv
import io
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from pyarrow import fs
from searches import PATIENCE_S


class Service:
    """A server with one bucket.

    Args:
        port: that it listens on.
    """

    def __init__(self, port: int, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.address = f"http://127.0.0.1:{port}"
        self.storage = f"s3://bucket/results?endpoint_override=127.0.0.1:{port}&scheme=http"
        self.objects = fs.S3FileSystem(endpoint_override=f"127.0.0.1:{port}", scheme="http", allow_bucket_creation=True)

    def names(self, folder: str) -> list[str]:
        """The objects below a folder of the storage."""
        selector = fs.FileSelector(f"bucket/results/{folder}", recursive=True, allow_not_found=True)
        found = [info.path for info in self.objects.get_file_info(selector) if info.type == fs.FileType.File]
        return [path.removeprefix(f"bucket/results/{folder}/") for path in found]

    def rows(self, search: str) -> list[dict[str, str]]:
        """The rows of a search's record; none while there is no record."""
        if "trials.csv" not in self.names(search):
            return []
        with self.objects.open_input_stream(f"bucket/results/{search}/trials.csv") as stream:
            return list(csv.DictReader(io.StringIO(stream.read().decode())))


@contextmanager
def serving() -> Iterator[Service]:
    """A server with an empty bucket."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-c", "from moto.server import main; main()", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            until = time.monotonic() + PATIENCE_S
            while True:
                with socket.socket() as tried:
                    if tried.connect_ex(("127.0.0.1", port)) == 0:
                        break
                assert time.monotonic() < until
                time.sleep(0.1)
            known = Service(port, process)
            known.objects.create_dir("bucket")
            yield known
        finally:
            process.kill()
