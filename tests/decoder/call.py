"""A relay, a publisher and many players of plain RTP, and what the players saw."""

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
from collections import Counter

import grpc
from grpc_tools import protoc

import stream
from clip import Player

ROOT = pathlib.Path(__file__).resolve().parents[2]
START_WITHIN_SECONDS = 20
RECEIVE_BYTES = 4 << 20
# Of the packets to the relay, and to the players that lose some.
LOST = 0.01
OVERTAKEN = 0.02
ASK_AGAIN_SECONDS = 0.05
# Time is told to the pictures by the clock, but freezes are counted in pictures of this rate.
PICTURES_PER_SECOND = 60
PARAMETERS = {"H264": {"packetization-mode": "1", "profile-level-id": "42e01f"}}


def compile_protocol():
    out = tempfile.mkdtemp(prefix="strait-decoder-proto-")
    arguments = ["protoc", f"-I{ROOT / 'proto'}", f"--python_out={out}", f"--grpc_python_out={out}"]
    if protoc.main([*arguments, "strait/relay/v1/relay.proto"]) != 0:
        raise RuntimeError("relay.proto does not compile")
    sys.path.insert(0, out)
    names = ("strait.relay.v1.relay_pb2", "strait.relay.v1.relay_pb2_grpc")
    return tuple(importlib.import_module(name) for name in names)


PB, SERVICE = compile_protocol()


def program(name: str) -> pathlib.Path:
    folder = os.environ.get("STRAIT_BIN_DIR")
    if not folder:
        folder = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug"
    return pathlib.Path(folder) / name


def reports(data: bytes):
    """Kind, count and place of the RTCP packets in a datagram."""
    at = 0
    while at + 12 <= len(data):
        first, kind, words = struct.unpack_from("!BBH", data, at)
        yield kind, first & 0x1F, data[at:at + 4 * (words + 1)]
        at += 4 * (words + 1)


class Watcher:
    """A player's end of the call."""

    def __init__(self, name: str, loses: bool) -> None:
        self.name, self.loses = name, loses
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.ssrc = 0
        self.got: dict[int, bytes] = {}
        self.newest: int | None = None
        # When each was missed, or asked for.
        self.missing: dict[int, float] = {}
        self.wanted: set[int] = set()
        self.twice = 0

    def on_packet(self, data: bytes) -> None:
        begun = self.newest is not None
        if 192 <= data[1] <= 223 or begun and self.loses and random.random() < LOST:
            return
        (seq,) = struct.unpack_from("!H", data, 2)
        newest = seq if self.newest is None else self.newest
        number = newest + (seq - newest + 0x8000) % 0x10000 - 0x8000
        # What is asked for again may just have been late.
        self.twice += number in self.got and number not in self.wanted
        self.got[number] = data
        self.missing.pop(number, None)
        for at in range(newest + 1, number):
            self.missing[at] = time.monotonic()
        self.newest = max(newest, number)

    def ask(self) -> None:
        """Asks for what is missing for a while."""
        now = time.monotonic()
        due = [at for at, since in self.missing.items() if now - since > ASK_AGAIN_SECONDS][:64]
        for at in due:
            self.missing[at] = now
            self.wanted.add(at)
        if due:
            items = b"".join(struct.pack("!HH", at & 0xFFFF, 0) for at in due)
            self.socket.send(struct.pack("!BBHII", 0x81, 205, 2 + len(due), 1, self.ssrc) + items)


class Verdict:
    """What is wrong with what a player got: nothing, it is hoped."""

    def __init__(self) -> None:
        self.frames = self.changes = self.cut = 0
        self.faults: list[str] = []
        # The longest run of pictures of the publisher of which none was shown.
        self.longest = 0


class Call:
    def __init__(self, sources: list[stream.Source], players: int, lossy: bool) -> None:
        self.sources, self.lossy = sources, lossy
        self.codec = sources[0].clip.codec
        self.publisher = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.watchers = [Watcher(f"player-{n}", lossy and n % 2 == 1) for n in range(players)]
        self.folder = tempfile.TemporaryDirectory(prefix="strait-decoder-")
        path = pathlib.Path(self.folder.name) / "relay.sock"
        command = [program("strait-relay"), "--rpc-socket", path, "--port", "0",
                   "--listen", "127.0.0.1", "--workers", "1", "--metrics-listen", ""]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            self.begin(path)
        except BaseException:
            self.close()
            raise
        self.asked: set[int] = set()
        self.again: list[bytes] = []
        self.held: list[bytes] = []
        self.history: dict[tuple[int, int], bytes] = {}
        self.n = 0

    def begin(self, path: pathlib.Path) -> None:
        end = time.monotonic() + START_WITHIN_SECONDS
        while not path.exists():
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError("the relay did not start")
            time.sleep(0.05)
        options = [("grpc.default_authority", "localhost")]
        self.channel = grpc.insecure_channel(f"unix:{path}", options=options)
        self.relay = SERVICE.RelayStub(self.channel)
        self.relay.CreateScope(PB.CreateScopeRequest(scope_id="s"), wait_for_ready=True, timeout=10)
        codec = PB.Codec(payload_type=96, name=self.codec, clock_rate_hz=stream.CLOCK_HZ,
                         parameters=PARAMETERS.get(self.codec, {}), feedback=["nack", "nack pli"])
        known = {stream.PICTURE_ID: stream.PICTURE_URI, stream.DEPENDENCY_ID: stream.DEPENDENCY_URI}
        extensions = [PB.HeaderExtension(id=number, uri=uri) for number, uri in known.items()]
        agreed = {"codecs": [codec], "extensions": extensions}
        several = len(self.sources) > 1
        layers = [PB.Encoding(rid=str(at) if several else "", ssrc=s.ssrc) for at, s in enumerate(self.sources)]
        self.add(self.publisher, "publisher")
        self.relay.Publish(PB.PublishRequest(scope_id="s", peer_id="publisher", publication_id="p", mid="0",
                                             kind=PB.KIND_VIDEO, encodings=layers, **agreed))
        for watcher in self.watchers:
            self.add(watcher.socket, watcher.name)
            request = PB.SubscribeRequest(scope_id="s", peer_id=watcher.name, subscription_id=watcher.name, mid="1",
                                          kind=PB.KIND_VIDEO, publication_id="p", **agreed)
            watcher.ssrc = self.relay.Subscribe(request).ssrc
        self.poll = select.poll()
        self.ends = {end.fileno(): end for end in [self.publisher, *(w.socket for w in self.watchers)]}
        self.of = {watcher.socket.fileno(): watcher for watcher in self.watchers}
        for number in self.ends:
            self.poll.register(number, select.POLLIN)

    def add(self, end: socket.socket, name: str) -> None:
        end.bind(("127.0.0.1", 0))
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
        end.setblocking(False)
        address = "{}:{}".format(*end.getsockname())
        answer = self.relay.AddPeer(PB.AddPeerRequest(scope_id="s", peer_id=name, remote_address=address, plain=True))
        udp = [c for c in answer.candidates if c.protocol == PB.Candidate.PROTOCOL_UDP]
        end.connect((udp[0].address, udp[0].port))

    def close(self) -> None:
        if hasattr(self, "channel"):
            self.channel.close()
        for end in (self.publisher, *(watcher.socket for watcher in self.watchers)):
            end.close()
        # It would wait for its peers to leave.
        self.process.kill()
        self.process.wait()
        self.folder.cleanup()

    def prefer(self, watcher: Watcher, **preferences: int):
        wish = PB.Preferences(**preferences)
        request = PB.SetPreferencesRequest(scope_id="s", subscription_id=watcher.name, preferences=wish)
        return self.relay.SetPreferences.future(request)

    def send_picture(self, calm: bool = False) -> None:
        """One picture of every encoding. Unless it is calm, some packets let the next ones go ahead, and some are lost."""
        now = int(time.monotonic() * stream.CLOCK_HZ) & 0xFFFFFFFF
        for source in self.sources:
            key, packets = source.next(now, source.ssrc in self.asked)
            if key:
                self.asked.discard(source.ssrc)
            for packet in packets:
                if self.lossy:
                    self.history[source.ssrc, struct.unpack_from("!H", packet, 2)[0]] = packet
                chance = 1.0 if calm or self.n == 0 else random.random()
                if chance < OVERTAKEN and not self.held:
                    self.held.append(packet)
                    continue
                if not self.lossy or chance < 0 or not OVERTAKEN <= chance < OVERTAKEN + LOST:
                    self.publisher.send(packet)
                if self.held and random.random() < 0.5:
                    self.publisher.send(self.held.pop())
        self.n += 1

    def receive(self, seconds: float) -> None:
        """Takes what comes within this time, and answers."""
        end = time.monotonic() + seconds
        while True:
            left = end - time.monotonic()
            ready = self.poll.poll(max(0, 1000 * left))
            for number, _ in ready:
                self.drain(number)
            if left <= 0:
                break
        while self.held:
            self.publisher.send(self.held.pop())
        while self.again:
            self.publisher.send(self.again.pop())
        for watcher in self.watchers:
            if watcher.missing:
                watcher.ask()

    def drain(self, number: int) -> None:
        end, watcher = self.ends[number], self.of.get(number)
        for _ in range(256):
            try:
                data = end.recv(2048)
            except BlockingIOError:
                return
            if watcher:
                watcher.on_packet(data)
            else:
                self.on_reports(data)

    def on_reports(self, data: bytes) -> None:
        for kind, form, report in reports(data):
            if kind == 206 and form == 1:
                self.asked.add(struct.unpack_from("!I", report, 8)[0])
            elif kind == 205 and form == 1:
                (ssrc,) = struct.unpack_from("!I", report, 8)
                for at in range(12, len(report), 4):
                    first, mask = struct.unpack_from("!HH", report, at)
                    lost = [first] + [first + 1 + bit for bit in range(16) if mask >> bit & 1]
                    found = (self.history.get((ssrc, seq & 0xFFFF)) for seq in lost)
                    self.again += filter(None, found)

    def judge(self, watcher: Watcher) -> Verdict:
        """Plays all that came, and compares."""
        verdict, player = Verdict(), Player(self.codec)
        places = {data: (encoding, *place) for encoding, source in enumerate(self.sources)
                  for data, place in source.clip.places.items()}
        faults, expected, played = verdict.faults, {}, []
        if watcher.twice:
            faults.append(f"{watcher.twice} numbers twice")
        newest, time_before, count_before, layer_before, hole = None, None, None, None, False
        packets: list[bytes] = []
        was_cut = False
        order = sorted(watcher.got)
        for at, number in enumerate(order):
            data = watcher.got[number]
            hole |= at > 0 and number != order[at - 1] + 1
            (timestamp,) = struct.unpack_from("!I", data, 4)
            if packets and struct.unpack_from("!I", packets[0], 4)[0] != timestamp:
                # A picture that another encoding's key picture interrupts is not shown.
                verdict.cut += 1
                packets, was_cut = [], True
            if len(stream.split(data)[1]) > 0:
                packets.append(data)
            if not data[1] & 0x80 or not packets:
                continue
            picture, hole_here = len(played), hole
            try:
                n, = {stream.place(packet) for packet in packets}
                frames = stream.assemble(self.codec, packets)
                found = [places.get(frame) for frame in frames]
            except (IndexError, KeyError, TypeError, ValueError, struct.error):
                found = [None]
            counted = {stream.numbers(self.codec, packet) for packet in packets}
            cut_here = was_cut
            packets, hole, was_cut = [], False, False
            if None in found or len({(e, p) for e, p, _ in found}) != 1:
                faults.append(f"picture {picture} of {number} is none that was sent (hole: {hole_here})")
                continue
            if (hole_here or cut_here) and found[0][1] != 0:
                faults.append(f"picture {n} follows something that is missing")
            encoding, place, spatial = found[-1]
            if self.sources[encoding].sent[n] != place:
                faults.append(f"picture {n} has the frames of another")
            player.play(picture, frames)
            expected[picture] = self.sources[encoding].clip.shown[spatial][place]
            played.append(picture)
            if time_before is not None and not 0 < (timestamp - time_before) % (1 << 32) < 1 << 31:
                faults.append(f"time goes back at picture {picture}")
            time_before = timestamp
            for count, modulus in sorted(counted - {None}):
                if count_before is not None and not 0 < (count - count_before) % modulus < modulus // 2:
                    # Of a picture with several frames of AV1, numbers may wrap.
                    if modulus == 1 << 15 or len(counted) == 1:
                        faults.append(f"counts {count} after {count_before} at picture {picture}")
                count_before = count
            # The first picture of another encoding may be of before what it follows, when its packets came late.
            if newest is not None:
                verdict.longest = max(verdict.longest, n - newest)
                if n <= newest and layer_before == encoding:
                    faults.append(f"picture {n} after {newest}")
            newest = n
            verdict.changes += layer_before not in (None, encoding)
            layer_before = encoding
        player.end()
        verdict.frames = len(played)
        for picture in played:
            if player.shown.get(picture) != expected[picture]:
                why = player.refused.get(picture, "another picture" if picture in player.shown else "no picture")
                faults.append(f"picture {picture}: {why}")
        verdict.longest = max(verdict.longest, self.n - newest) if played else self.n
        return verdict


def totals(verdicts: list[Verdict]) -> Counter:
    total = Counter()
    for verdict in verdicts:
        total.update(frames=verdict.frames, changes=verdict.changes, cut=verdict.cut, faults=len(verdict.faults))
    total["longest_ms"] = max(1000 * verdict.longest // PICTURES_PER_SECOND for verdict in verdicts)
    return total
