"""Plays a scope over WHEP for some seconds and prints what was seen and heard, as JSON:
`play.py ADDRESS TOKEN SECONDS`."""

import asyncio
import json
import sys
import time

import aiohttp
import numpy
from aiortc import MediaStreamTrack, RTCPeerConnection
from aiortc.mediastreams import MediaStreamError

from clip import colour_of, tone_of
from session import Session, connected


class Seen:
    """What arrived."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.colours: list[str] = []
        self.windows: dict[int, int] = {}
        self.samples: list[numpy.ndarray] = []
        self.first_picture_seconds: float | None = None

    async def video(self, track: MediaStreamTrack) -> None:
        """Counts pictures per second and notes each change of colour."""
        while True:
            try:
                frame = await track.recv()
            except MediaStreamError:
                return
            elapsed = time.monotonic() - self.began
            self.first_picture_seconds = self.first_picture_seconds or elapsed
            self.windows[int(elapsed)] = self.windows.get(int(elapsed), 0) + 1
            colour = colour_of(frame.to_ndarray(format="rgb24"))
            if not self.colours or self.colours[-1] != colour:
                self.colours.append(colour)

    async def audio(self, track: MediaStreamTrack) -> None:
        """Keeps the samples of one channel."""
        while True:
            try:
                frame = await track.recv()
            except MediaStreamError:
                return
            interleaved = frame.to_ndarray().reshape(-1)
            self.samples.append(interleaved[:: len(frame.layout.channels)])


async def main(address: str, token: str, seconds: float) -> None:
    connection = RTCPeerConnection()
    connection.addTransceiver("audio", direction="recvonly")
    connection.addTransceiver("video", direction="recvonly")
    seen, readers = Seen(), []

    @connection.on("track")
    def on_track(track: MediaStreamTrack) -> None:
        reader = seen.video(track) if track.kind == "video" else seen.audio(track)
        readers.append(asyncio.ensure_future(reader))

    async with aiohttp.ClientSession() as http:
        session = Session(http, address, token)
        await session.open(connection)
        await connected(connection)
        await asyncio.sleep(seconds)
        ended = await session.close()
        await connection.close()
    for reader in readers:
        reader.cancel()
    samples = numpy.concatenate(seen.samples) if seen.samples else numpy.zeros(0)
    tail = samples[-48_000:]
    report = {
        "ended": ended,
        "etag": session.etag,
        "colours": seen.colours,
        "pictures_per_second": [seen.windows.get(second, 0) for second in range(int(seconds))],
        "first_picture_seconds": seen.first_picture_seconds,
        "audio_seconds": len(samples) / 48_000,
        "tone_hz": tone_of(tail) if len(tail) == 48_000 else None,
    }
    print(json.dumps(report), flush=True)


asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3])))
