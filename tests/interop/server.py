"""Starts a real relay and control with `strait dev` on free ports, in a folder of its own."""

import os
import pathlib
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

TOKEN = "interop-token"


class Server:
    """Relay and control; a context manager that ends them."""

    def __init__(self) -> None:
        folder = os.environ.get("STRAIT_BIN_DIR")
        if not folder:
            root = pathlib.Path(__file__).resolve().parents[2]
            folder = os.path.join(os.environ.get("CARGO_TARGET_DIR", root / "target"), "debug")
        self.programs = pathlib.Path(folder)
        self.state = tempfile.mkdtemp(prefix="strait-interop-")
        self.http_port = free_port()
        self.process: subprocess.Popen | None = None

    def __enter__(self) -> "Server":
        media = str(free_port())
        self.media_port = media
        self.log = open(os.path.join(self.state, "log"), "wb")
        self.process = subprocess.Popen(
            [
                self.programs / "strait", "dev",
                "--bin-dir", self.programs,
                "--address", "127.0.0.1",
                "--http-port", str(self.http_port),
                "--https-port", media, "--media-port", media,
                "--metrics-port", "0",
                "--token", TOKEN,
                "--state-dir", self.state,
                "--log", "info",
            ],
            stdout=self.log,
            stderr=subprocess.STDOUT,
        )
        end = time.monotonic() + 30
        while not self.ready():
            if self.process.poll() is not None or time.monotonic() > end:
                text = self.output()
                self.__exit__(None, None, None)
                raise RuntimeError(f"strait dev is not ready:\n{text}")
            time.sleep(0.1)
        return self

    def __exit__(self, *_: object) -> None:
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.log.close()
        # For `./dev test` to search it for secrets.
        if kept := os.environ.get("STRAIT_LOGS"):
            name = f"python-{os.getpid()}-{self.http_port}.log"
            shutil.copy(self.log.name, os.path.join(kept, name))
        shutil.rmtree(self.state, ignore_errors=True)

    def address(self, path: str) -> str:
        return f"http://127.0.0.1:{self.http_port}{path}"

    def secure_address(self, path: str) -> str:
        return f"https://127.0.0.1:{self.media_port}{path}"

    def certificate(self) -> str:
        """The node's own certificate, self-signed."""
        found = sorted(pathlib.Path(self.state).rglob("certificate.pem"))
        assert found, "no certificate in the state folder"
        return str(found[0])

    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(self.address("/readyz"), timeout=1) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False

    def output(self) -> str:
        self.log.flush()
        return pathlib.Path(self.log.name).read_text(errors="replace")


def free_port() -> int:
    """A port that is free for TCP and UDP now."""
    while True:
        with socket.socket() as stream, socket.socket(type=socket.SOCK_DGRAM) as datagram:
            stream.bind(("127.0.0.1", 0))
            try:
                datagram.bind(stream.getsockname())
            except OSError:
                continue
            return stream.getsockname()[1]
