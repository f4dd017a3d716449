"""Pictures encoded by libvpx and x264, as RTP, and back: what a publisher and a player do, in a few lines."""

import hashlib
import random
import struct
from fractions import Fraction

import av
import numpy as np

WIDTH, HEIGHT, CLOCK_HZ = 160, 96, 90_000
PACKET_BYTES = 300
# Three temporal layers, as layering mode 3 of libvpx has them. Pictures of layer 1 refer to layer 0 alone, and so do those of
# layer 2 that come before them.
PATTERN = [0, 2, 1, 2]
SYNC = [False, True, True, False]
LAYERS = ("ts_number_layers=3:ts_target_bitrate=100,150,200:ts_rate_decimator=4,2,1:"
          "ts_periodicity=4:ts_layer_id=0,2,1,2:ts_layering_mode=3")
ENCODERS = {"VP8": "libvpx", "VP9": "libvpx-vp9", "H264": "libx264"}


def picture(n: int) -> av.VideoFrame:
    """Something that moves."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    luma = ((2 * x + y + 5 * n) % 256).astype(np.uint8)
    luma[3 * n % HEIGHT:, 7 * n % WIDTH:][:24, :24] = 255
    chroma = np.full(WIDTH * HEIGHT // 4, 2 * n % 256, np.uint8)
    planes = np.concatenate([luma.reshape(-1), chroma, chroma]).reshape(HEIGHT * 3 // 2, WIDTH)
    frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
    frame.pts, frame.time_base = n, Fraction(1, 30)
    return frame


def shown(decoder: av.VideoCodecContext, frame: bytes) -> str | None:
    """What a decoder shows for a frame, as a hash; None when it shows nothing."""
    pictures = decoder.decode(av.Packet(frame))
    return hashlib.md5(pictures[-1].to_ndarray().tobytes()).hexdigest() if pictures else None


def decoder(codec: str) -> av.VideoCodecContext:
    context = av.CodecContext.create(codec.lower(), "r")
    context.thread_count = 1
    # A player that hides damage would hide the relay's faults as well.
    context.options = {"err_detect": "explode"}
    return context


class Encoding:
    """One encoding of the pictures: RTP packets, and for each frame what its decoder shows."""

    def __init__(self, codec: str, ssrc: int, layered: bool, bit_rate: int) -> None:
        self.codec, self.ssrc, self.layered = codec, ssrc, layered
        context = av.CodecContext.create(ENCODERS[codec], "w")
        context.width, context.height, context.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        context.time_base, context.framerate = Fraction(1, 30), Fraction(30, 1)
        context.bit_rate, context.gop_size, context.thread_count = bit_rate, 100_000, 1
        if codec == "H264":
            options = {"preset": "ultrafast", "tune": "zerolatency", "profile": "baseline"}
        else:
            # Resilient, or layer 0 is not independent of the others' probabilities.
            options = {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0", "error-resilient": "default"}
        context.options = {**options, **({"ts-parameters": LAYERS} if layered else {})}
        self.encoder, self.decoder = context, decoder(codec)
        self.seq = random.getrandbits(15)
        self.picture, self.tl0, self.position = random.getrandbits(15), random.getrandbits(8), 0
        self.key_idx = 0
        self.expected: dict[bytes, str | None] = {}

    def encode(self, n: int, timestamp: int, key: bool) -> list[bytes]:
        frame = picture(n)
        if key:
            frame.pict_type = av.video.frame.PictureType.I
        (packet,) = self.encoder.encode(frame)
        encoded = bytes(packet)
        self.expected[encoded] = shown(self.decoder, encoded)
        place = self.position % 4
        self.position += 1
        temporal, sync = (PATTERN[place], SYNC[place]) if self.layered else (0, False)
        self.picture = (self.picture + 1) & 0x7FFF
        if temporal == 0:
            self.tl0 = (self.tl0 + 1) & 0xFF
        if packet.is_keyframe:
            self.key_idx = (self.key_idx + 1) & 0x1F
        payloads = list(self.payloads(encoded, temporal, sync, packet.is_keyframe))
        packets = []
        for at, payload in enumerate(payloads):
            marker = 0x80 if at + 1 == len(payloads) else 0
            head = struct.pack("!BBHII", 0x80, 96 | marker, self.seq, timestamp, self.ssrc)
            self.seq = (self.seq + 1) & 0xFFFF
            packets.append(head + payload)
        return packets

    def payloads(self, frame: bytes, temporal: int, sync: bool, key: bool):
        if self.codec == "H264":
            yield from h264_payloads(frame)
            return
        pieces = [frame[at:at + PACKET_BYTES] for at in range(0, len(frame), PACKET_BYTES)]
        number = struct.pack("!H", self.picture | 0x8000)
        for at, piece in enumerate(pieces):
            first, last = at == 0, at + 1 == len(pieces)
            if self.codec == "VP8":
                layer = temporal << 6 | sync << 5 | self.key_idx
                yield bytes([0x80 | first << 4, 0xF0]) + number + bytes([self.tl0, layer]) + piece
            else:
                flags = 0xA0 | (not key) << 6 | first << 3 | last << 2 | 1
                # From a picture of layer 0 on, all layers above can be taken up.
                layer = temporal << 5 | (temporal == 0) << 4
                yield bytes([flags]) + number + bytes([layer, self.tl0]) + piece


def h264_payloads(frame: bytes):
    """Single NAL units and FU-A (RFC 6184) out of a byte stream."""
    for unit in filter(None, frame.replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1")):
        if len(unit) <= PACKET_BYTES:
            yield unit
            continue
        head, body = unit[0], unit[1:]
        for at in range(0, len(body), PACKET_BYTES):
            first, last = at == 0, at + PACKET_BYTES >= len(body)
            yield bytes([head & 0xE0 | 28, first << 7 | last << 6 | head & 0x1F]) + body[at:at + PACKET_BYTES]


def descriptor_len(codec: str) -> int:
    return {"VP8": 6, "VP9": 5, "H264": 0}[codec]


def assemble(codec: str, payloads: list[bytes]) -> bytes:
    """The frame that a decoder gets."""
    if codec != "H264":
        return b"".join(payload[descriptor_len(codec):] for payload in payloads)
    units: list[bytes] = []
    for payload in payloads:
        if payload[0] & 0x1F != 28:
            units.append(payload)
        elif payload[1] & 0x80:
            units.append(bytes([payload[0] & 0xE0 | payload[1] & 0x1F]) + payload[2:])
        else:
            units[-1] += payload[2:]
    return units_bytes(units)


def units_bytes(units: list[bytes]) -> bytes:
    return b"".join(b"\0\0\0\1" + unit for unit in units)


def same_form(codec: str, frame: bytes) -> bytes:
    """A frame as :func:`assemble` would make it: start codes may differ in length."""
    if codec != "H264":
        return frame
    return units_bytes(list(filter(None, frame.replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1"))))
