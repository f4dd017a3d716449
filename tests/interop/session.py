"""WHIP (RFC 9725) and WHEP over HTTP: offer, answer, Location, DELETE."""

import asyncio
from urllib.parse import urljoin

import aiohttp
from aiortc import RTCPeerConnection, RTCSessionDescription


class Refused(Exception):
    """The server did not answer 201."""

    def __init__(self, status: int, text: str):
        super().__init__(f"{status}: {text}")
        self.status = status


class Session:
    """One resource at the server, made by POST and ended by DELETE."""

    def __init__(self, http: aiohttp.ClientSession, address: str, token: str):
        self.http, self.address = http, address
        self.headers = {"Authorization": f"Bearer {token}"}
        self.location = ""
        self.etag = ""

    async def open(self, connection: RTCPeerConnection) -> None:
        """Offers what the connection has and applies the answer."""
        await connection.setLocalDescription(await connection.createOffer())
        async with self.http.post(
            self.address,
            data=connection.localDescription.sdp,
            headers={**self.headers, "Content-Type": "application/sdp"},
        ) as response:
            answer = await response.text()
            if response.status != 201:
                raise Refused(response.status, answer)
            kind = response.headers["Content-Type"].split(";")[0].strip()
            assert kind == "application/sdp", kind
            self.location = urljoin(self.address, response.headers["Location"])
            self.etag = response.headers.get("ETag", "")
        await connection.setRemoteDescription(RTCSessionDescription(sdp=answer, type="answer"))

    async def close(self) -> int:
        """Ends the session; returns the status of the answer."""
        async with self.http.delete(self.location, headers=self.headers) as response:
            return response.status


async def connected(connection: RTCPeerConnection) -> None:
    """Waits for ICE and DTLS."""
    for _ in range(100):
        if connection.connectionState == "connected":
            return
        assert connection.connectionState != "failed", "the media path failed"
        await asyncio.sleep(0.1)
    raise AssertionError(f"still {connection.connectionState} after 10 s")
