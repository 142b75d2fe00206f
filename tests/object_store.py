"""An S3-compatible server on this machine, as a subprocess, and one that refuses everything."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow.fs as fs

WAIT = 60.0  # seconds that a server may take to start on a busy machine
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "test-access-key",
    "AWS_SECRET_ACCESS_KEY": "test-secret-key",
    "AWS_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@contextmanager
def s3_server() -> Iterator[str]:
    """The address of a server that ends with the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        begun = time.monotonic()
        while not _answers(port):
            assert server.poll() is None and time.monotonic() - begun < WAIT, "the S3 server did not start"
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Bucket:
    """A bucket of the server, and what tests do to it."""

    def __init__(self, server: str, name: str) -> None:
        self.server, self.name, self.url = server, name, f"s3://{name}"
        urllib.request.urlopen(urllib.request.Request(f"{server}/{name}", method="PUT")).close()
        self._store = fs.S3FileSystem(
            access_key=ENVIRONMENT["AWS_ACCESS_KEY_ID"],
            secret_key=ENVIRONMENT["AWS_SECRET_ACCESS_KEY"],
            endpoint_override=server.removeprefix("http://"),
            scheme="http",
            region="us-east-1",
        )

    def put(self, key: str, data: bytes) -> None:
        """Write an object."""
        with self._store.open_output_stream(f"{self.name}/{key}") as sink:
            sink.write(data)

    def put_all(self, folder: Path, key: str) -> None:
        """Write the files of a folder under a key."""
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            self.put(f"{key}/{path.relative_to(folder).as_posix()}", path.read_bytes())

    def read(self, key: str) -> bytes:
        """The bytes of an object."""
        with self._store.open_input_stream(f"{self.name}/{key}") as source:
            return bytes(source.read())

    def delete(self, key: str) -> None:
        """Delete an object."""
        self._store.delete_file(f"{self.name}/{key}")

    def listing(self, prefix: str = "") -> list[str]:
        """The keys of all objects below a prefix."""
        place = f"{self.name}/{prefix}".rstrip("/")
        found = self._store.get_file_info(fs.FileSelector(place, recursive=True, allow_not_found=True))
        return sorted(i.path.removeprefix(f"{self.name}/") for i in found if i.type == fs.FileType.File)


@contextmanager
def refusing_server(status: int, code: str) -> Iterator[str]:
    """A server that answers every request with one error of S3."""

    class Handler(BaseHTTPRequestHandler):
        def _refuse(self) -> None:
            body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _refuse

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
