"""Publishes a clip over WHIP until it is told to stop: `publish.py ADDRESS TOKEN CLIP`."""

import asyncio
import signal
import sys

import aiohttp
from aiortc import RTCPeerConnection
from aiortc.contrib.media import MediaPlayer

from session import Session, connected


async def main(address: str, token: str, clip: str) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    player = MediaPlayer(clip)
    connection = RTCPeerConnection()
    connection.addTrack(player.audio)
    connection.addTrack(player.video)
    async with aiohttp.ClientSession() as http:
        session = Session(http, address, token)
        await session.open(connection)
        await connected(connection)
        print("publishing", flush=True)
        await stop.wait()
        first, second = await session.close(), await session.close()
        await connection.close()
    print(f"ended {first} {second}", flush=True)


asyncio.run(main(*sys.argv[1:4]))
