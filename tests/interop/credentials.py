"""What a WHIP answer says of TURN."""

import re
import ssl
import urllib.request
from typing import NamedTuple


class Turn(NamedTuple):
    """A server of TURN over TLS, and who may use it."""

    host: str
    port: int
    username: str
    credential: str


def post(address: str, token: str, certificate: str, offer: str) -> tuple[str, Turn]:
    """The answer to an offer over HTTPS, and the server that its Link header names."""
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/sdp"}
    request = urllib.request.Request(address, data=offer.encode(), headers=headers)
    context = ssl.create_default_context(cafile=certificate)
    with urllib.request.urlopen(request, timeout=10, context=context) as answer:
        sdp, link = answer.read().decode(), answer.headers["Link"]
    pattern = r'<turns:(\S+):(\d+)\?transport=tcp>.*username="(.+?)"; credential="(.+?)"'
    host, port, username, credential = re.search(pattern, link).groups()
    return sdp, Turn(host, int(port), username, credential)
