"""A clip as RTP, and frames out of RTP: what a publisher and a player do, in a few lines."""

import random
import struct

from clip import Clip, Frame, obus, obus_bytes, units, units_bytes

CLOCK_HZ = 90_000
PACKET_BYTES = 600
DEPENDENCY_ID = 3
DEPENDENCY_URI = "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension"
# Handed on as it comes: it says which picture it is, and no one else looks at it.
PICTURE_ID = 4
PICTURE_URI = "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay"
# A key picture is not asked for again right after one.
KEY_DISTANCE = 4


class Source:
    """Sends a clip over and over, from its start whenever a key picture is due."""

    def __init__(self, clip: Clip, ssrc: int, key_every: int) -> None:
        self.clip, self.ssrc, self.key_every = clip, ssrc, key_every
        self.seq = random.getrandbits(15)
        self.picture, self.tl0, self.key_idx = random.getrandbits(15), random.getrandbits(8), 0
        self.frame = random.getrandbits(16)
        # The place in the clip of each picture that was sent.
        self.sent: list[int] = []

    def next(self, timestamp: int, asked: bool) -> tuple[bool, list[bytes]]:
        """Whether the next picture is a key picture, and its packets."""
        at = self.sent[-1] + 1 if self.sent else 0
        if at == len(self.clip.pictures) or (at >= KEY_DISTANCE and (asked or random.random() < 1 / self.key_every)):
            at = 0
        self.sent.append(at)
        frames = self.clip.pictures[at]
        self.picture = (self.picture + 1) & 0x7FFF
        if frames[0].temporal == 0:
            self.tl0 = (self.tl0 + 1) & 0xFF
        if at == 0:
            self.key_idx = (self.key_idx + 1) & 0x1F
        packets = []
        for frame in frames:
            payloads = list(self.payloads(frame))
            for index, payload in enumerate(payloads):
                first, last = index == 0, index + 1 == len(payloads)
                marker = 0x80 if last and frame.spatial + 1 == self.clip.spatial_layers else 0
                elements = {PICTURE_ID: (len(self.sent) - 1).to_bytes(3, "big")}
                if self.clip.codec == "AV1":
                    elements[DEPENDENCY_ID] = dependency(self.clip, frame, self.frame, first, last)
                head = struct.pack("!BBHII", 0x90, 96 | marker, self.seq, timestamp, self.ssrc)
                self.seq = (self.seq + 1) & 0xFFFF
                packets.append(head + extensions(elements) + payload)
            self.frame = (self.frame + 1) & 0xFFFF
        return at == 0, packets

    def payloads(self, frame: Frame):
        codec = self.clip.codec
        if codec in ("H264", "H265"):
            for unit in units(frame.data):
                yield from unit_payloads(codec, unit)
            return
        if codec == "AV1":
            for at, obu in enumerate(obus(frame.data)):
                yield from obu_payloads(obu, at == 0 and frame.key and frame.spatial == 0)
            return
        pieces = [frame.data[at:at + PACKET_BYTES] for at in range(0, len(frame.data), PACKET_BYTES)]
        number = struct.pack("!H", self.picture | 0x8000)
        for at, piece in enumerate(pieces):
            first, last = at == 0, at + 1 == len(pieces)
            if codec == "VP8":
                sync = frame.sync and frame.temporal > 0
                layer = frame.temporal << 6 | sync << 5 | self.key_idx
                yield bytes([0x80 | first << 4, 0xF0]) + number + bytes([self.tl0, layer]) + piece
            else:
                yield self.vp9_descriptor(frame, number, first, last) + piece

    def vp9_descriptor(self, frame: Frame, number: bytes, first: bool, last: bool) -> bytes:
        layers = self.clip.spatial_layers
        alone = self.clip.key_only and not frame.key
        # Z: no layer above refers to this one.
        unneeded = alone or frame.spatial + 1 == layers
        structure = frame.key and first and frame.spatial == 0
        flags = 0xA0 | (not frame.key) << 6 | first << 3 | last << 2 | structure << 1 | unneeded
        inter_layer = frame.spatial > 0 and not alone
        # U: from a picture of layer 0 on, all temporal layers can be taken up.
        layer = frame.temporal << 5 | (frame.temporal == 0) << 4 | frame.spatial << 1 | inter_layer
        tail = bytes([layers - 1 << 5]) if structure else b""
        return bytes([flags]) + number + bytes([layer, self.tl0]) + tail


def unit_payloads(codec: str, unit: bytes):
    """Single NAL units, FU-A (RFC 6184) and FU (RFC 7798)."""
    if len(unit) <= PACKET_BYTES:
        yield unit
        return
    head = 1 if codec == "H264" else 2
    body = unit[head:]
    for at in range(0, len(body), PACKET_BYTES):
        edges = (at == 0) << 7 | (at + PACKET_BYTES >= len(body)) << 6
        if codec == "H264":
            begin = bytes([unit[0] & 0xE0 | 28, edges | unit[0] & 0x1F])
        else:
            begin = bytes([unit[0] & 0x81 | 49 << 1, unit[1], edges | unit[0] >> 1 & 0x3F])
        yield begin + body[at:at + PACKET_BYTES]


def obu_payloads(obu: bytes, new_sequence: bool):
    """One element in each packet, whole or in part."""
    for at in range(0, len(obu), PACKET_BYTES):
        continues, goes_on = at > 0, at + PACKET_BYTES < len(obu)
        new = new_sequence and not continues
        yield bytes([continues << 7 | goes_on << 6 | 1 << 4 | new << 3]) + obu[at:at + PACKET_BYTES]


def extensions(elements: dict[int, bytes]) -> bytes:
    """Header extensions of two-byte elements (RFC 8285 section 4.3)."""
    body = b"".join(bytes([number, len(data)]) + data for number, data in elements.items())
    body += bytes(-len(body) % 4)
    return struct.pack("!HH", 0x1000, len(body) // 4) + body


def split(packet: bytes) -> tuple[dict[int, bytes], bytes]:
    """The header extensions of a packet, and its payload."""
    at = 12 + 4 * (packet[0] & 0xF)
    if not packet[0] & 0x10:
        return {}, packet[at:]
    profile, words = struct.unpack_from("!HH", packet, at)
    at, start = at + 4, at + 4 + 4 * words
    found = {}
    while at < start:
        if packet[at] == 0:
            at += 1
            continue
        if profile == 0xBEDE:
            number, length, at = packet[at] >> 4, (packet[at] & 0xF) + 1, at + 1
        else:
            number, length, at = packet[at], packet[at + 1], at + 2
        found[number] = packet[at:at + length]
        at += length
    return found, packet[start:]


class Bits:
    def __init__(self) -> None:
        self.value, self.count = 0, 0

    def put(self, value: int, width: int) -> None:
        self.value, self.count = self.value << width | value, self.count + width

    def bytes(self) -> bytes:
        spare = -self.count % 8
        return (self.value << spare).to_bytes((self.count + spare) // 8, "big")


def dependency(clip: Clip, frame: Frame, number: int, first: bool, last: bool) -> bytes:
    """A dependency descriptor (AV1 RTP specification, appendix A). Each layer has three templates: for frames that break
    with their layer's past, for others, and for key frames. What frames refer to is left to the decode targets."""
    bits = Bits()
    bits.put(first << 1 | last, 2)
    bits.put(9 * frame.spatial + 3 * frame.temporal + (2 if frame.key else int(frame.sync)), 6)
    bits.put(number, 16)
    if not (first and frame.key and frame.spatial == 0):
        return bits.bytes()
    layers, targets = clip.spatial_layers, 3 * clip.spatial_layers
    # Of the five flags the first: there is a structure.
    bits.put(0b10000, 5)
    bits.put(0, 6)
    bits.put(targets - 1, 5)
    for spatial in range(layers):
        for step in (0, 0, 1, 0, 0, 1, 0, 0, 2 if spatial + 1 < layers else 3):
            bits.put(step, 2)
    kinds = [(s, t, sync, key) for s in range(layers) for t in range(3)
             for sync, key in ((False, False), (True, False), (True, True))]
    for s, t, sync, key in kinds:
        for target in range(targets):
            bits.put(indication(clip, Frame(s, t, sync, key, b""), target // 3, target % 3), 2)
    # No frame differences, no chains (a number below targets + 1 in as few bits), no resolutions.
    bits.put(0, len(kinds))
    bits.put(0, (targets + 1).bit_length() - 1)
    bits.put(0, 1)
    return bits.bytes()


def indication(clip: Clip, frame: Frame, spatial: int, temporal: int) -> int:
    """0: not of this target; 2: it can be taken up here; 3: needed."""
    alone = clip.key_only and not frame.key and spatial != frame.spatial
    if frame.spatial > spatial or frame.temporal > temporal or alone:
        return 0
    opens = frame.sync and frame.temporal in (0, temporal)
    return 2 if opens and (frame.key or frame.spatial == spatial) else 3


def assemble(codec: str, packets: list[bytes]) -> list[bytes]:
    """The frames of a picture, as a decoder gets them."""
    parts = [split(packet) for packet in packets]
    if codec == "VP8":
        return [b"".join(payload[6:] for _, payload in parts)]
    if codec == "VP9":
        frames: list[bytes] = []
        for _, payload in parts:
            if payload[0] & 8:
                frames.append(b"")
            frames[-1] += payload[6 if payload[0] & 2 else 5:]
        return frames
    if codec == "AV1":
        layers: list[list[bytes]] = []
        for elements, payload in parts:
            if elements[DEPENDENCY_ID][0] & 0x80:
                layers.append([])
            if payload[0] & 0x80:
                layers[-1][-1] += payload[1:]
            else:
                layers[-1].append(payload[1:])
        return [obus_bytes(layer) for layer in layers]
    fragment, head = (28, 1) if codec == "H264" else (49, 2)
    whole: list[bytes] = []
    for _, payload in parts:
        kind = payload[0] & 0x1F if codec == "H264" else payload[0] >> 1 & 0x3F
        if kind != fragment:
            whole.append(payload)
        elif not payload[head] & 0x80:
            whole[-1] += payload[head + 1:]
        elif codec == "H264":
            whole.append(bytes([payload[0] & 0xE0 | payload[1] & 0x1F]) + payload[2:])
        else:
            whole.append(bytes([payload[0] & 0x81 | (payload[2] & 0x3F) << 1, payload[1]]) + payload[3:])
    return [units_bytes(whole)]


def place(packet: bytes) -> int:
    """Which of the publisher's pictures the packet is of."""
    return int.from_bytes(split(packet)[0][PICTURE_ID], "big")


def numbers(codec: str, packet: bytes) -> tuple[int, int] | None:
    """What a stream counts, and the modulus: pictures of VP8 and VP9, frames of AV1."""
    elements, payload = split(packet)
    if codec in ("VP8", "VP9"):
        return struct.unpack_from("!H", payload, 1 + (codec == "VP8"))[0] & 0x7FFF, 1 << 15
    if codec == "AV1":
        return struct.unpack_from("!H", elements[DEPENDENCY_ID], 1)[0], 1 << 16
    return None
