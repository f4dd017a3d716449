"""Real encoders and decoders around a real relay: layers change at random, packets overtake each other and get lost, and
every picture that a player shows must be bit for bit the one that a decoder shows that lost nothing.

Runs `strait-relay` from STRAIT_BIN_DIR. STRAIT_SWITCHES sets how often the layers of each kind of stream change (default 150;
the figures take 10,000), STRAIT_FIGURES a file that gets a line of JSON for each."""

import json
import os
import pathlib
import random
import shutil
import subprocess
import tempfile
import time
import unittest

import clip
import stream
from call import PICTURES_PER_SECOND, Call, totals

FOLDER = pathlib.Path(__file__).resolve().parent
SWITCHES = int(os.environ.get("STRAIT_SWITCHES", "150"))
PLAYERS = 20 if SWITCHES > 1000 else 5
# Faster than life: packets take no longer for it.
PACE_SECONDS = 1 / 250
FREEZE_MS_MAX = 100
CALM_PICTURES = 40
# Time to ask for what is missing at the end, in twentieths of a second.
SETTLE_ROUNDS = 16
SMALL, LARGE = (160, 96), (320, 192)


def svc_program() -> pathlib.Path:
    """The encoder of spatial layers, made of svc.c."""
    compiler = shutil.which("cc")
    if not compiler or not all(pathlib.Path(f"/usr/include/{name}").exists() for name in ("vpx/vp8cx.h", "aom/aomcx.h")):
        raise unittest.SkipTest("needs a C compiler, libvpx-dev and libaom-dev")
    folder = tempfile.TemporaryDirectory(prefix="strait-decoder-svc-")
    unittest.addModuleCleanup(folder.cleanup)
    out = pathlib.Path(folder.name) / "svc"
    subprocess.run([compiler, "-O1", "-Wall", "-Werror", "-o", out, FOLDER / "svc.c", "-lvpx", "-laom"], check=True)
    return out


class Decoded(unittest.TestCase):
    program: pathlib.Path | None = None

    def svc(self, kind: str, spatial_layers: int, size: tuple[int, int] = LARGE) -> clip.Clip:
        if Decoded.program is None:
            Decoded.program = svc_program()
        return clip.encode_svc(Decoded.program, kind, 96, size, spatial_layers)

    def run_case(self, what: str, clips: list[clip.Clip], key_every: int, hold: tuple[int, int]) -> None:
        """Each player changes its mind after so many pictures, at random, again and again."""
        begun, several = time.monotonic(), len(clips) > 1
        total = None
        for lossy in (False, True):
            sources = [stream.Source(made, 77 + n, key_every) for n, made in enumerate(clips)]
            call = Call(sources, PLAYERS, lossy)
            try:
                self.play(call, several, max(1, SWITCHES // 2 // PLAYERS), hold)
                verdicts = [call.judge(watcher) for watcher in call.watchers]
            finally:
                call.close()
            for watcher, verdict in zip(call.watchers, verdicts):
                for fault in verdict.faults[:3]:
                    print(f"{what}, {watcher.name}, {'lossy' if lossy else 'without loss'}: {fault}")
            of_half = totals(verdicts)
            longest = max(of_half["longest_ms"], total["longest_ms"] if total else 0)
            total = of_half + total if total else of_half
            total["longest_ms"] = longest
        seconds = time.monotonic() - begun
        print(f"{what}: {self.switches} changes, {total['frames']} pictures, {total['faults']} damaged, longest step "
              f"{total['longest_ms']} ms, {total['changes']} changes of encoding, {total['cut']} pictures cut short; "
              f"{seconds:.0f} s", flush=True)
        if path := os.environ.get("STRAIT_FIGURES"):
            line = {"case": what, "switches": self.switches, "pictures": total["frames"], "damaged": total["faults"],
                    "longest_ms": total["longest_ms"], "seconds": round(seconds)}
            with open(path, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        self.assertEqual(total["faults"], 0)
        self.assertLessEqual(total["longest_ms"], FREEZE_MS_MAX)
        if several:
            self.assertGreater(total["changes"], 0)

    def play(self, call: Call, several: bool, switches: int, hold: tuple[int, int]) -> None:
        due = {watcher: 1 for watcher in call.watchers}
        left = {watcher: switches for watcher in call.watchers}
        # A call that nobody holds any more is cancelled.
        calls, next_at = [], time.monotonic()
        while any(left.values()):
            for watcher in call.watchers:
                if due[watcher] <= call.n and left[watcher]:
                    wish = {"temporal_max": random.randrange(3), "spatial_max": random.randrange(3)}
                    if several:
                        wish["layer_max"] = random.randrange(len(call.sources))
                    calls.append(call.prefer(watcher, **wish))
                    due[watcher] = call.n + random.randint(*hold)
                    left[watcher] -= 1
            call.send_picture()
            next_at = max(next_at + PACE_SECONDS, time.monotonic())
            call.receive(next_at - time.monotonic())
        for made in calls:
            made.result(10)
        for _ in range(CALM_PICTURES):
            call.send_picture(calm=True)
            call.receive(1 / PICTURES_PER_SECOND)
        for _ in range(SETTLE_ROUNDS):
            call.receive(0.05)
        self.switches = 2 * switches * PLAYERS

    def temporal(self, codec: str) -> None:
        self.run_case(f"{codec}, temporal layers", [clip.encode(codec, 97, *SMALL, True)], 60, (1, 5))

    def spatial(self, kind: str) -> None:
        self.run_case(f"{kind.upper()}, spatial and temporal layers", [self.svc(kind, 3)], 20, (1, 5))

    def encodings(self, codec: str) -> None:
        clips = [clip.encode(codec, 33, *size, False) for size in (SMALL, LARGE)]
        self.run_case(f"{codec}, encodings", clips, 8, (3, 12))

    def test_temporal_layers_of_vp8(self) -> None:
        self.temporal("VP8")

    def test_temporal_layers_of_vp9(self) -> None:
        self.temporal("VP9")

    def test_temporal_layers_of_h265(self) -> None:
        self.temporal("H265")

    def test_temporal_layers_of_av1(self) -> None:
        self.run_case("AV1, temporal layers", [self.svc("av1", 1, SMALL)], 60, (1, 5))

    def test_spatial_layers_of_vp9(self) -> None:
        self.spatial("vp9")

    def test_spatial_layers_of_vp9_by_key_pictures(self) -> None:
        self.spatial("vp9-key")

    def test_spatial_layers_of_av1(self) -> None:
        self.spatial("av1")

    def test_spatial_layers_of_av1_by_key_pictures(self) -> None:
        self.spatial("av1-key")

    def test_encodings_of_vp8(self) -> None:
        self.encodings("VP8")

    def test_encodings_of_vp9(self) -> None:
        self.encodings("VP9")

    def test_encodings_of_h264(self) -> None:
        self.encodings("H264")

    def test_encodings_of_h265(self) -> None:
        self.encodings("H265")

    def test_encodings_of_av1(self) -> None:
        self.run_case("AV1, encodings", [self.svc("av1", 1, size) for size in (SMALL, LARGE)], 8, (3, 12))


if __name__ == "__main__":
    unittest.main()
