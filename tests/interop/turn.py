"""aioice goes by TURN over TLS alone: credentials of a WHIP answer, an allocation, checks through it.
`turn.py ADDRESS TOKEN CERTIFICATE OFFER`; ADDRESS is a WHIP endpoint over HTTPS. Prints the pair."""

import asyncio
import json
import os
import re
import sys

from credentials import post

ADDRESS, TOKEN, CERTIFICATE, OFFER = sys.argv[1:]
os.environ["SSL_CERT_FILE"] = CERTIFICATE

import aioice  # noqa: E402  (after what it trusts was named)


def of(name: str, sdp: str) -> str:
    return re.search(rf"a={name}:(\S+)", sdp).group(1)


async def main() -> None:
    connection = aioice.Connection(
        ice_controlling=True, transport_policy=aioice.TransportPolicy.RELAY
    )
    with open(OFFER, newline="") as file:
        offer = file.read()
    for name, own in [
        ("ice-ufrag", connection.local_username),
        ("ice-pwd", connection.local_password),
    ]:
        offer = re.sub(rf"a={name}:\S+", f"a={name}:{own}", offer)
    answer, turn = post(ADDRESS, TOKEN, CERTIFICATE, offer)
    connection.turn_server = (turn.host, turn.port)
    connection.turn_username, connection.turn_password = turn.username, turn.credential
    connection.turn_ssl, connection.turn_transport = True, "tcp"
    await connection.gather_candidates()
    connection.remote_username = of("ice-ufrag", answer)
    connection.remote_password = of("ice-pwd", answer)
    for line in dict.fromkeys(re.findall(r"a=candidate:(.*?)\r?\n", answer)):
        await connection.add_remote_candidate(aioice.Candidate.from_sdp(line))
    await connection.add_remote_candidate(None)
    await asyncio.wait_for(connection.connect(), 20)
    own = connection._nominated[1].local_candidate
    print(json.dumps({"type": own.type, "host": own.host}))
    await connection.close()


asyncio.run(main())
