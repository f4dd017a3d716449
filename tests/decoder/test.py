"""Real encoders and decoders around a real relay: layers change at random, packets overtake each other, and every picture that
a player shows must be bit for bit the one that the publisher's own decoder shows for the same frame.

Runs `strait-relay` from STRAIT_BIN_DIR. STRAIT_SWITCHES sets how often layers inside a stream change (default 150; the
figures take 10,000)."""

import importlib
import os
import pathlib
import random
import select
import socket
import struct
import subprocess
import sys
import tempfile
import time
import unittest

import grpc
from grpc_tools import protoc

import stream

ROOT = pathlib.Path(__file__).resolve().parents[2]
SWITCHES = int(os.environ.get("STRAIT_SWITCHES", "150"))
# Each needs a key frame, which is asked for at most twice a second.
SIMULCAST_SWITCHES = max(8, SWITCHES // 30)
PICTURES_PER_SECOND = 60
FREEZE_SECONDS_MAX = 0.1
START_WITHIN_SECONDS = 20


def program(name: str) -> pathlib.Path:
    folder = os.environ.get("STRAIT_BIN_DIR")
    if not folder:
        folder = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug"
    return pathlib.Path(folder) / name


def compile_protocol():
    out = tempfile.mkdtemp(prefix="strait-decoder-proto-")
    arguments = ["protoc", f"-I{ROOT / 'proto'}", f"--python_out={out}", f"--grpc_python_out={out}"]
    if protoc.main([*arguments, "strait/relay/v1/relay.proto"]) != 0:
        raise RuntimeError("relay.proto does not compile")
    sys.path.insert(0, out)
    names = ("strait.relay.v1.relay_pb2", "strait.relay.v1.relay_pb2_grpc")
    return tuple(importlib.import_module(name) for name in names)


PB, SERVICE = compile_protocol()


class Call:
    """A relay, a publisher and a player of plain RTP at told addresses."""

    def __init__(self, codec: str, encodings: list[stream.Encoding]) -> None:
        self.codec, self.encodings = codec, encodings
        self.publisher, self.player = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
        self.folder = tempfile.TemporaryDirectory(prefix="strait-decoder-")
        path = pathlib.Path(self.folder.name) / "relay.sock"
        command = [program("strait-relay"), "--rpc-socket", path, "--port", "0",
                   "--listen", "127.0.0.1", "--workers", "1", "--metrics-listen", ""]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + START_WITHIN_SECONDS
        while not path.exists():
            if self.process.poll() is not None or time.monotonic() > end:
                self.close()
                raise RuntimeError("the relay did not start")
            time.sleep(0.05)
        options = [("grpc.default_authority", "localhost")]
        self.channel = grpc.insecure_channel(f"unix:{path}", options=options)
        self.relay = SERVICE.RelayStub(self.channel)
        for end_point in (self.publisher, self.player):
            end_point.bind(("127.0.0.1", 0))
            end_point.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.relay.CreateScope(PB.CreateScopeRequest(scope_id="s"), wait_for_ready=True, timeout=10)
        for end_point, name in ((self.publisher, "publisher"), (self.player, "player")):
            address = "{}:{}".format(*end_point.getsockname())
            request = PB.AddPeerRequest(scope_id="s", peer_id=name, remote_address=address, plain=True)
            answer = self.relay.AddPeer(request)
            udp = [c for c in answer.candidates if c.protocol == PB.Candidate.PROTOCOL_UDP]
            end_point.connect((udp[0].address, udp[0].port))
        parameters = {"packetization-mode": "1", "profile-level-id": "42e01f"} if codec == "H264" else {}
        agreed = [PB.Codec(payload_type=96, name=codec, clock_rate_hz=stream.CLOCK_HZ, parameters=parameters,
                           feedback=["nack pli"])]
        several = len(encodings) > 1
        layers = [PB.Encoding(rid=str(at) if several else "", ssrc=e.ssrc) for at, e in enumerate(encodings)]
        self.relay.Publish(PB.PublishRequest(scope_id="s", peer_id="publisher", publication_id="p", mid="0",
                                             kind=PB.KIND_VIDEO, codecs=agreed, encodings=layers))
        self.relay.Subscribe(PB.SubscribeRequest(scope_id="s", peer_id="player", subscription_id="q", mid="1",
                                                 kind=PB.KIND_VIDEO, codecs=agreed, publication_id="p"))
        self.got: dict[int, bytes] = {}
        self.newest: int | None = None
        self.asked: set[int] = set()
        self.held: list[bytes] = []
        self.n = 0

    def close(self) -> None:
        if hasattr(self, "channel"):
            self.channel.close()
        for end_point in (self.publisher, self.player):
            end_point.close()
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.folder.cleanup()

    def prefer(self, **preferences: int) -> None:
        wish = PB.Preferences(**preferences)
        self.relay.SetPreferences(PB.SetPreferencesRequest(scope_id="s", subscription_id="q", preferences=wish))

    def send_picture(self) -> None:
        """One picture of every encoding; now and then a packet lets the next ones go ahead."""
        now = int(time.monotonic() * stream.CLOCK_HZ) & 0xFFFFFFFF
        for encoding in self.encodings:
            key = self.n == 0 or (encoding.ssrc in self.asked and not encoding.layered)
            for packet in encoding.encode(self.n, now, key):
                if key:
                    self.asked.discard(encoding.ssrc)
                if not key and not self.held and random.random() < 0.02:
                    self.held.append(packet)
                    continue
                self.publisher.send(packet)
                if self.held and random.random() < 0.5:
                    self.publisher.send(self.held.pop())
        self.n += 1

    def receive(self, seconds: float) -> None:
        """Takes what comes within this time."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            for ready in select.select([self.player, self.publisher], [], [], left)[0]:
                data = ready.recv(2048)
                if ready is self.publisher:
                    self.on_reports(data)
                elif not 192 <= data[1] <= 223:
                    self.on_packet(data)

    def on_packet(self, data: bytes) -> None:
        (seq,) = struct.unpack_from("!H", data, 2)
        newest = seq if self.newest is None else self.newest
        step = (seq - newest + 0x8000) % 0x10000 - 0x8000
        assert newest + step not in self.got, "a number twice"
        self.got[newest + step] = data
        self.newest = max(newest, newest + step)

    def on_reports(self, data: bytes) -> None:
        at = 0
        while at + 12 <= len(data):
            first, kind, words = struct.unpack_from("!BBH", data, at)
            if kind == 206 and first & 0x1F == 1:
                self.asked.add(struct.unpack_from("!I", data, at + 8)[0])
            at += 4 * (words + 1)

    def check(self, case: unittest.TestCase) -> dict[str, float]:
        """Plays all that came, and compares."""
        numbers = sorted(self.got)
        case.assertEqual(numbers[-1] - numbers[0] + 1, len(numbers), "numbers go on without a hole")
        expected = {stream.same_form(self.codec, frame): picture
                    for encoding in self.encodings for frame, picture in encoding.expected.items()}
        player, payloads, times, pictures = stream.decoder(self.codec), [], [], []
        for at in numbers:
            data = self.got[at]
            (timestamp,) = struct.unpack_from("!I", data, 4)
            if len(data) > 12:
                payloads.append(data[12:])
            if not data[1] & 0x80:
                continue
            frame = stream.assemble(self.codec, payloads)
            case.assertTrue(frame in expected, f"frame {len(times)} is none that was sent")
            case.assertEqual(stream.shown(player, frame), expected[frame], f"frame {len(times)} is damaged")
            if self.codec == "VP8":
                pictures.append(struct.unpack_from("!H", payloads[0], 2)[0] & 0x7FFF)
            times.append(timestamp)
            payloads = []
        steps = [(b - a) % (1 << 32) for a, b in zip(times, times[1:])]
        case.assertTrue(all(0 < step < 1 << 31 for step in steps), "time goes forward")
        case.assertEqual(len(set(pictures)), len(pictures), "picture ids are given once")
        return {"frames": len(times), "longest": max(steps) / stream.CLOCK_HZ}


class Decoded(unittest.TestCase):
    def layers_inside(self, codec: str) -> None:
        call = Call(codec, [stream.Encoding(codec, 77, True, 200_000)])
        try:
            for _ in range(SWITCHES):
                call.prefer(temporal_max=random.randrange(3))
                for _ in range(random.randrange(1, 5)):
                    call.send_picture()
                    call.receive(0.002)
            call.receive(0.3)
            figures = call.check(self)
        finally:
            call.close()
        self.assertGreater(figures["frames"], SWITCHES / 2)
        print(f"{codec}: {SWITCHES} changes of temporal layer, {figures['frames']} frames, none damaged")

    def encodings(self, codec: str) -> None:
        call = Call(codec, [stream.Encoding(codec, 77 + n, False, 60_000 * (n + 1)) for n in range(2)])
        high = True
        try:
            for _ in range(SIMULCAST_SWITCHES):
                high = not high
                call.prefer(layer_max=int(high))
                until = time.monotonic() + 0.1 + random.random() * 0.6
                while time.monotonic() < until:
                    begun = time.monotonic()
                    call.send_picture()
                    call.receive(max(0.001, begun + 1 / PICTURES_PER_SECOND - time.monotonic()))
            call.receive(0.3)
            figures = call.check(self)
        finally:
            call.close()
        # The old encoding goes on until the new one has its key frame: nobody waits at all.
        self.assertLess(figures["longest"], FREEZE_SECONDS_MAX)
        print(f"{codec}: {SIMULCAST_SWITCHES} changes of encoding, {figures['frames']} frames, none damaged, "
              f"longest step {1000 * figures['longest']:.0f} ms")

    def test_temporal_layers_of_vp8(self) -> None:
        self.layers_inside("VP8")

    def test_temporal_layers_of_vp9(self) -> None:
        self.layers_inside("VP9")

    def test_encodings_of_vp8(self) -> None:
        self.encodings("VP8")

    def test_encodings_of_vp9(self) -> None:
        self.encodings("VP9")

    def test_encodings_of_h264(self) -> None:
        self.encodings("H264")


if __name__ == "__main__":
    unittest.main()
