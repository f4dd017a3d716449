"""The example client of docs/examples drives a real relay, without our control plane. Runs
`strait-relay` from STRAIT_BIN_DIR; see requirements.txt for the packages."""

import os
import pathlib
import subprocess
import sys
import tempfile
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
START_WITHIN_SECONDS = 20
RUN_WITHIN_SECONDS = 60


def program(name: str) -> pathlib.Path:
    folder = os.environ.get("STRAIT_BIN_DIR")
    if not folder:
        folder = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug"
    return pathlib.Path(folder) / name


class Relay:
    """A relay on free ports, with its RPC socket in a folder of its own."""

    def __enter__(self) -> pathlib.Path:
        self.folder = tempfile.TemporaryDirectory(prefix="strait-example-")
        socket = pathlib.Path(self.folder.name) / "relay.sock"
        command = [program("strait-relay"), "--rpc-socket", socket, "--port", "0",
                   "--listen", "127.0.0.1", "--workers", "1", "--metrics-listen", ""]
        self.process = subprocess.Popen(command)
        end = time.monotonic() + START_WITHIN_SECONDS
        while not socket.exists():
            if self.process.poll() is not None or time.monotonic() > end:
                self.__exit__()
                raise RuntimeError("the relay did not start; its lines say why")
            time.sleep(0.05)
        return socket

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.folder.cleanup()


class Example(unittest.TestCase):
    def test_the_example_drives_a_relay(self) -> None:
        with Relay() as socket:
            example = ROOT / "docs" / "examples" / "drive-relay.py"
            done = subprocess.run(
                [sys.executable, example, "--socket", socket, "--proto", ROOT / "proto"],
                capture_output=True, text=True, timeout=RUN_WITHIN_SECONDS, check=False,
            )
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_without_a_relay_it_says_so(self) -> None:
        example = ROOT / "docs" / "examples" / "drive-relay.py"
        done = subprocess.run(
            [sys.executable, example, "--socket", "/nonexistent/relay.sock", "--proto", ROOT / "proto"],
            capture_output=True, text=True, timeout=RUN_WITHIN_SECONDS, check=False,
        )
        self.assertNotEqual(done.returncode, 0)


if __name__ == "__main__":
    unittest.main()
