"""Clients that no one here wrote: aiortc publishes a file over WHIP, another aiortc process and a
browser watch it. Runs `strait dev` from STRAIT_BIN_DIR; see requirements.txt for the packages."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.error
import urllib.request

import clip
import credentials
from server import TOKEN, Server

HERE = pathlib.Path(__file__).resolve().parent
BROWSER = HERE.parent / "browser"
OFFER = HERE.parent.parent / "control/tests/offers/chromium-publish.sdp"


class Publisher:
    """The process `publish.py`."""

    def __init__(self, server: Server, scope: str, path: str):
        self.process = subprocess.Popen(
            [sys.executable, HERE / "publish.py", server.address(f"/whip/{scope}"), TOKEN, path],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> "Publisher":
        line = self.process.stdout.readline()
        if line.strip() != "publishing":
            self.process.kill()
            errors = self.process.communicate()[1]
            raise AssertionError(f"not publishing: {line} {errors}")
        return self

    def end(self) -> str:
        self.process.send_signal(signal.SIGTERM)
        return self.process.communicate(timeout=15)[0].strip()

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


class Interop(unittest.TestCase):
    maxDiff = None

    @classmethod
    def setUpClass(cls) -> None:
        cls.server = cls.enterClassContext(Server())
        folder = tempfile.mkdtemp(prefix="strait-clip-")
        cls.addClassCleanup(shutil.rmtree, folder, ignore_errors=True)
        cls.clip = os.path.join(folder, "clip.mkv")
        clip.make(cls.clip)

    def play(self, scope: str, seconds: int) -> subprocess.Popen:
        address = self.server.address(f"/whep/{scope}")
        return subprocess.Popen(
            [sys.executable, HERE / "play.py", address, TOKEN, str(seconds)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def report(self, player: subprocess.Popen) -> dict:
        out, errors = player.communicate(timeout=60)
        self.assertEqual(player.returncode, 0, errors)
        return json.loads(out)

    def assert_clip(self, report: dict, seconds: int) -> None:
        """The picture moves through the clip's colours in order and the tone is the clip's."""
        names = list(clip.COLOURS)
        self.assertGreaterEqual(len(report["colours"]), seconds, report)
        for before, after in zip(report["colours"], report["colours"][1:]):
            self.assertEqual(after, names[(names.index(before) + 1) % len(names)], report)
        # The first second is shared with the wait for a key frame.
        for count in report["pictures_per_second"][2:]:
            self.assertGreaterEqual(count, clip.FRAMES_PER_SECOND // 2, report)
        self.assertGreater(report["audio_seconds"], seconds * 0.8, report)
        self.assertAlmostEqual(report["tone_hz"], clip.TONE_HZ, delta=5)
        self.assertEqual(report["ended"], 200)

    def test_a_file_published_over_whip_is_watched_over_whep(self) -> None:
        with Publisher(self.server, "file", self.clip) as publisher:
            report = self.report(self.play("file", 8))
            self.assert_clip(report, 8)
            self.assertTrue(report["etag"])
            # DELETE ends the session; the second one finds nothing.
            self.assertEqual(publisher.end(), "ended 200 404")

    def test_a_viewer_who_came_first_sees_the_publisher_arrive(self) -> None:
        player = self.play("early", 14)
        try:
            time.sleep(2)
            with Publisher(self.server, "early", self.clip):
                report = self.report(player)
        finally:
            if player.poll() is None:
                player.kill()
        self.assertGreaterEqual(len(report["colours"]), 8, report)

    def test_several_viewers_of_one_publisher(self) -> None:
        with Publisher(self.server, "several", self.clip):
            players = [self.play("several", 6) for _ in range(3)]
            for player in players:
                self.assert_clip(self.report(player), 6)

    def test_ice_goes_by_turn_over_tls_alone(self) -> None:
        certificate = self.server.certificate()
        address = self.server.secure_address("/whip/turn")
        done = subprocess.run(
            [sys.executable, HERE / "turn.py", address, TOKEN, certificate, OFFER],
            capture_output=True,
            text=True,
            timeout=60,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        pair = json.loads(done.stdout)
        self.assertEqual(pair["type"], "relay")
        self.assertRegex(pair["host"], r"^192\.0\.2\.")

    @unittest.skipUnless(
        shutil.which("turnutils_uclient"), "no turnutils_uclient: install Debian's coturn"
    )
    def test_the_client_of_coturn_allocates_and_speaks_to_the_nodes_media_alone(self) -> None:
        address = self.server.secure_address("/whip/coturn")
        _, turn = credentials.post(address, TOKEN, self.server.certificate(), OFFER.read_bytes().decode())

        def uclient(credential: str, ip: str, port: int, *how: str) -> tuple[int, str]:
            """Sends one message; no second allocation for RTCP."""
            command = ["turnutils_uclient", "-v", "-S", "-t", "-c", "-n", "1", *how]
            command += ["-u", turn.username, "-w", credential, "-p", str(turn.port)]
            command += ["-e", ip, "-r", str(port), turn.host]
            done = subprocess.run(
                command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60
            )
            return done.returncode, done.stdout

        media = int(self.server.media_port)
        # By Send indications: an allocation, a refresh, permissions. Nobody answers what it says.
        code, said = uclient(turn.credential, "127.0.0.1", media, "-s")
        self.assertEqual(code, 0, said)
        self.assertRegex(said, r"Received relay addr: 192\.0\.2\.")
        self.assertRegex(said, r"refresh response received: \n.*success")
        self.assertRegex(said, r"cp response received: \n.*success")
        self.assertIn("tot_send_msgs=1", said)
        # By channels: to the port after the one named, for RTCP, and then to that itself, which here
        # is none of the media's. It draws numbers of RFC 5766: one in four is one of RFC 8656.
        is_bound = r"cb response received: \n.*success"
        for _ in range(60):
            _, said = uclient(turn.credential, "127.0.0.1", media - 1)
            if re.search(is_bound, said):
                break
        self.assertRegex(said, is_bound)
        self.assertRegex(said, r"channel bind: error (400|403)")

        code, said = uclient(turn.credential, "192.0.2.7", media, "-s")
        self.assertNotEqual(code, 0)
        self.assertIn("create permission error 403 (Forbidden)", said)
        code, said = uclient("wrong", "127.0.0.1", media, "-s")
        self.assertNotEqual(code, 0)
        self.assertNotIn("Received relay addr", said)

    def test_a_wrong_token_is_refused_with_a_reason(self) -> None:
        request = urllib.request.Request(
            self.server.address("/whip/file"),
            data=b"v=0\r\n",
            headers={"Authorization": "Bearer wrong", "Content-Type": "application/sdp"},
        )
        with self.assertRaises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=5)
        self.assertEqual(refused.exception.code, 401)
        self.assertIn("Bearer", refused.exception.headers["WWW-Authenticate"])
        self.assertTrue(refused.exception.read())
        refused.exception.close()

    @unittest.skipUnless(
        (BROWSER / "node_modules").is_dir(), "tests/browser has no node_modules: run npm ci there"
    )
    def test_a_file_published_over_whip_is_seen_in_a_browser(self) -> None:
        with Publisher(self.server, "browser", self.clip):
            watch = subprocess.run(
                ["node", BROWSER / "watch.mjs", self.server.address("/?scope=browser"), TOKEN],
                capture_output=True,
                text=True,
                timeout=90,
            )
        self.assertEqual(watch.returncode, 0, watch.stderr)
        seen = json.loads(watch.stdout)
        self.assertGreater(seen["framesDecoded"], clip.FRAMES_PER_SECOND * 2, seen)
        self.assertGreater(seen["pictures"], 1, "the picture does not move")
        self.assertGreater(seen["totalAudioEnergy"], 0)


def main() -> int:
    """Runs all and closes with the line that `./dev test` counts."""
    program = unittest.main(verbosity=2, exit=False)
    result = program.result
    failed = len(result.failures) + len(result.errors)
    skips = os.environ.get("STRAIT_SKIPS")
    if skips and result.skipped:
        with open(skips, "a", encoding="utf-8") as file:
            file.writelines(f"{test.id()}: {reason}\n" for test, reason in result.skipped)
    passed = max(0, result.testsRun - failed - len(result.skipped))
    print(f"{passed} passed, {failed} failed, {len(result.skipped)} skipped", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
