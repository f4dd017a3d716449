"""Pictures encoded once, to be sent again and again: what each frame is, and what a decoder shows for it."""

import hashlib
import pathlib
import struct
import subprocess
from fractions import Fraction
from typing import NamedTuple

import av
import numpy as np

# Temporal layers of the pictures, where there are any. Those of layer 1 refer to layer 0, and so do the first ones of layer
# 2: who has what is below can take them up.
PATTERN = [0, 2, 1, 2]
SYNC = [True, True, True, False]
LAYERS = ("ts_number_layers=3:ts_target_bitrate=100,150,200:ts_rate_decimator=4,2,1:"
          "ts_periodicity=4:ts_layer_id=0,2,1,2:ts_layering_mode=3")
ENCODERS = {"VP8": "libvpx", "VP9": "libvpx-vp9", "H264": "libx264", "H265": "libx265"}
# Those of the encoders' makers where FFmpeg's own do not scale references, or show one spatial layer alone.
DECODERS = {"VP8": "vp8", "VP9": "libvpx-vp9", "H264": "h264", "H265": "hevc", "AV1": "libdav1d"}
# Hierarchical B pictures: the way in which libx265 makes temporal layers.
H265_LAYERS = "temporal-layers=3:bframes=3:b-adapt=0:b-pyramid=1:rc-lookahead=5"
H265_PLAIN = "bframes=0:rc-lookahead=0"


class Frame(NamedTuple):
    """A frame of one spatial layer; `sync` says that it breaks with what its temporal layer had before."""

    spatial: int
    temporal: int
    sync: bool
    key: bool
    data: bytes


class Player:
    """A decoder, and what it showed for each picture, as a hash."""

    def __init__(self, codec: str) -> None:
        self.decoder = av.CodecContext.create(DECODERS[codec], "r")
        self.decoder.thread_count = 1
        # A player that hides damage would hide the relay's faults as well.
        self.decoder.options = {"alllayers": "1"} if codec == "AV1" else {"err_detect": "explode"}
        self.shown: dict[int, str] = {}
        self.refused: dict[int, str] = {}

    def play(self, number: int, frames: list[bytes]) -> None:
        """Decodes the frames of a picture, lowest layer first; the last one is what is seen of it."""
        for data in frames:
            packet = av.Packet(data)
            packet.pts = number
            try:
                self.show(self.decoder.decode(packet))
            except av.FFmpegError as error:
                self.refused[number] = str(error)

    def end(self) -> None:
        """Some pictures are shown later than they are decoded."""
        try:
            self.show(self.decoder.decode(None))
        except av.FFmpegError as error:
            self.refused[-1] = str(error)

    def show(self, pictures: list[av.VideoFrame]) -> None:
        for picture in pictures:
            self.shown[picture.pts] = hashlib.md5(picture.to_ndarray().tobytes()).hexdigest()


class Clip:
    """Some pictures; the first one is a key picture, and no other."""

    def __init__(self, codec: str, pictures: list[list[Frame]], key_only: bool = False) -> None:
        self.codec, self.pictures, self.key_only = codec, pictures, key_only
        self.spatial_layers = len(pictures[0])
        self.layered = any(frame.temporal > 0 for picture in pictures for frame in picture)
        # Where a frame is in the clip, and what is shown for it.
        self.places = {frame.data: (at, frame.spatial) for at, frames in enumerate(pictures) for frame in frames}
        assert len(self.places) == len(pictures) * self.spatial_layers, "frames that are the same"
        self.shown = [self.decode(spatial, 2) for spatial in range(self.spatial_layers)]
        self.check()

    def decode(self, spatial: int, temporal: int) -> dict[int, str]:
        """What is shown of these layers when all that they need is there, and nothing else."""
        player = Player(self.codec)
        for at, picture in enumerate(self.pictures):
            needed = [frame.data for frame in picture
                      if frame.spatial <= spatial and (frame.key or not self.key_only or frame.spatial == spatial)]
            if picture[0].temporal <= temporal:
                player.play(at, needed)
        player.end()
        assert not player.refused, player.refused
        return player.shown

    def check(self) -> None:
        """The layers are what they are said to be."""
        for spatial, shown in enumerate(self.shown):
            assert len(shown) == len(self.pictures), "a picture for every frame"
            for temporal in range(2):
                for at, picture in self.decode(spatial, temporal).items():
                    assert picture == shown[at], f"{self.codec}: layer {spatial}.{temporal} needs another"


def picture(n: int, width: int, height: int) -> np.ndarray:
    """Something that moves."""
    y, x = np.mgrid[0:height, 0:width]
    luma = ((2 * x + y + 5 * n) % 256).astype(np.uint8)
    luma[3 * n % height:, 7 * n % width:][:24, :24] = 255
    chroma = np.full(width * height // 4, 2 * n % 256, np.uint8)
    return np.concatenate([luma.reshape(-1), chroma, chroma]).reshape(height * 3 // 2, width)


def encode(codec: str, count: int, width: int, height: int, layered: bool) -> Clip:
    """By an encoder of FFmpeg, with three temporal layers or none."""
    context = av.CodecContext.create(ENCODERS[codec], "w")
    context.width, context.height, context.pix_fmt = width, height, "yuv420p"
    context.time_base, context.framerate = Fraction(1, 30), Fraction(30, 1)
    context.bit_rate, context.gop_size, context.thread_count = 2 * width * height * 6, 100_000, 1
    if codec == "H264":
        options = {"preset": "ultrafast", "tune": "zerolatency", "profile": "baseline"}
    elif codec == "H265":
        layers = H265_LAYERS if layered else H265_PLAIN
        common = "keyint=100000:scenecut=0:log-level=0:pools=none:frame-threads=1:info=0"
        options = {"preset": "ultrafast", "x265-params": f"{common}:{layers}"}
    else:
        # Resilient, or layer 0 is not independent of the others' probabilities.
        options = {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0", "error-resilient": "default"}
        options |= {"ts-parameters": LAYERS} if layered else {}
    context.options = options
    packets = []
    for n in range(count):
        frame = av.VideoFrame.from_ndarray(picture(n, width, height), format="yuv420p")
        frame.pts, frame.time_base = n, Fraction(1, 30)
        packets += context.encode(frame)
    packets += context.encode(None)
    pictures = []
    for at, packet in enumerate(packets):
        data = bytes(packet)
        temporal, sync = (PATTERN[at % 4], SYNC[at % 4]) if layered else (0, False)
        if codec in ("H264", "H265"):
            data = units_bytes(units(data))
            temporal = max((unit[1] & 7) - 1 for unit in units(data)) if codec == "H265" else 0
        pictures.append([Frame(0, temporal, sync, packet.is_keyframe, data)])
    assert [at for at, frames in enumerate(pictures) if frames[0].key] == [0], "one key picture"
    return Clip(codec, pictures)


def encode_svc(program: pathlib.Path, kind: str, count: int, size: tuple[int, int], spatial_layers: int) -> Clip:
    """By libvpx or libaom themselves, with three temporal and so many spatial layers."""
    raw = b"".join(picture(n, *size).tobytes() for n in range(count))
    command = [program, kind, str(spatial_layers), *map(str, size)]
    out = subprocess.run(command, input=raw, capture_output=True, check=True).stdout
    pictures, at = [], 0
    codec = kind.partition("-")[0].upper()
    while at < len(out):
        spatial, temporal, key, length = struct.unpack_from("=BBBI", out, at)
        data = out[at + 7:at + 7 + length]
        at += 7 + length
        if spatial == 0:
            pictures.append([])
        if codec == "AV1":
            data = obus_bytes(obus(data))
        sync = SYNC[(len(pictures) - 1) % 4]
        pictures[-1].append(Frame(spatial, temporal, sync, bool(key), data))
    return Clip(codec, pictures, kind.endswith("-key"))


def units(data: bytes) -> list[bytes]:
    """NAL units of a byte stream."""
    return [unit for unit in data.replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1") if unit]


def units_bytes(of: list[bytes]) -> bytes:
    return b"".join(b"\0\0\0\1" + unit for unit in of)


def leb128(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])


def obus(data: bytes) -> list[bytes]:
    """OBUs without their sizes, as RTP carries them, and without temporal delimiters."""
    found, at = [], 0
    while at < len(data):
        head = 2 if data[at] & 4 else 1
        assert data[at] & 2, "an OBU without size"
        size, shift, body = 0, 0, at + head
        while True:
            byte = data[body]
            size |= (byte & 0x7F) << shift
            body, shift = body + 1, shift + 7
            if not byte & 0x80:
                break
        if data[at] >> 3 & 15 != 2:
            found.append(bytes([data[at] & ~2]) + data[at + 1:at + head] + data[body:body + size])
        at = body + size
    return found


def obus_bytes(of: list[bytes]) -> bytes:
    """With their sizes, as decoders want them."""
    out = b""
    for obu in of:
        head = 2 if obu[0] & 4 else 1
        out += bytes([obu[0] | 2]) + obu[1:head] + leb128(len(obu) - head) + obu[head:]
    return out
