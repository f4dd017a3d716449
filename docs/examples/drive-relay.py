#!/usr/bin/env python3
"""Drives a strait-relay without Strait's control plane: `strait.relay.v1` over its Unix socket, from Python.

    python3 -m venv venv && venv/bin/pip install grpcio grpcio-tools
    strait-relay --rpc-socket /tmp/relay.sock --port 0 &
    venv/bin/python docs/examples/drive-relay.py --socket /tmp/relay.sock --proto proto

Makes a scope, adds two peers, publishes a voice of one and subscribes the other to it, prints what happens, and cleans
up. A real control plane takes the peers' credentials, fingerprints, codecs and header extensions from their SDP, and puts
the answers into its own. Ends with 0 when all went as it should.
"""

import argparse
import importlib
import pathlib
import sys
import tempfile
import threading

import grpc
from grpc_tools import protoc


def compile_protocol(folder: pathlib.Path):
    """Compiles relay.proto at run time, and imports what came out."""
    out = tempfile.mkdtemp(prefix="relay-proto-")
    arguments = ["protoc", f"-I{folder}", f"--python_out={out}", f"--grpc_python_out={out}"]
    if protoc.main([*arguments, "strait/relay/v1/relay.proto"]) != 0:
        sys.exit(f"{folder}: no strait/relay/v1/relay.proto, or it does not compile")
    sys.path.insert(0, out)
    messages = importlib.import_module("strait.relay.v1.relay_pb2")
    service = importlib.import_module("strait.relay.v1.relay_pb2_grpc")
    return messages, service


def watch(relay, pb, ready: threading.Event, ended: threading.Event):
    """Prints events until the relay or the caller ends them."""
    try:
        for event in relay.WatchEvents(pb.WatchEventsRequest()):
            kind = event.WhichOneof("event")
            print(f"event: {kind} {str(getattr(event, kind)).split()}", flush=True)
            ready.set()
            if kind == "scope_disposed":
                break
    except grpc.RpcError as error:
        print(f"events ended: {error.details()}", flush=True)
    ended.set()


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--socket", required=True, help="the relay's rpc_socket")
    arguments.add_argument("--proto", default="proto", type=pathlib.Path, help="folder of strait/relay/v1")
    options = arguments.parse_args()
    pb, service = compile_protocol(options.proto)

    # The authority is only a name: without it some gRPC libraries send the socket's path, which is none.
    channel = grpc.insecure_channel(
        f"unix:{pathlib.Path(options.socket).absolute()}",
        options=[("grpc.default_authority", "localhost")],
    )
    relay = service.RelayStub(channel)
    info = relay.GetInfo(pb.GetInfoRequest(), timeout=10, wait_for_ready=True)
    print(f"relay {info.version}, {info.workers} workers, certificate {info.fingerprint_sha256}")
    for candidate in info.candidates:
        protocol = pb.Candidate.Protocol.Name(candidate.protocol)
        print(f"  candidate {protocol} {candidate.address} port {candidate.port} priority {candidate.priority}")
    for degradation in info.degradations:
        print(f"  degraded: {degradation}")

    ready, ended = threading.Event(), threading.Event()
    threading.Thread(target=watch, args=(relay, pb, ready, ended), daemon=True).start()
    if not ready.wait(10):
        print("no snapshot within 10 s")
        return 1

    scope = "example"
    worker = relay.CreateScope(pb.CreateScopeRequest(scope_id=scope)).worker
    print(f"scope {scope!r} lives on worker {worker}")
    for peer in ["ann", "bob"]:
        answer = relay.AddPeer(
            pb.AddPeerRequest(
                scope_id=scope,
                peer_id=peer,
                remote_ice=pb.IceCredentials(ufrag=f"{peer}1", pwd="a-z0-9".replace("-", "+") * 4),
                remote_fingerprint=pb.Fingerprint(algorithm="sha-256", value=bytes(32)),
                dtls_role=pb.DTLS_ROLE_SERVER,
            )
        )
        print(f"peer {peer!r}: a=ice-ufrag:{answer.local_ice.ufrag}, {len(answer.candidates)} candidates")

    opus = pb.Codec(payload_type=111, name="opus", clock_rate_hz=48000, channels=2)
    mid = pb.HeaderExtension(id=1, uri="urn:ietf:params:rtp-hdrext:sdes:mid")
    relay.Publish(
        pb.PublishRequest(
            scope_id=scope,
            peer_id="ann",
            publication_id="ann-voice",
            kind=pb.KIND_AUDIO,
            mid="0",
            codecs=[opus],
            extensions=[mid],
            encodings=[pb.Encoding()],
        )
    )
    stream = relay.Subscribe(
        pb.SubscribeRequest(
            scope_id=scope,
            peer_id="bob",
            subscription_id="bob-hears-ann",
            kind=pb.KIND_AUDIO,
            mid="1",
            codecs=[opus],
            extensions=[mid],
            publication_id="ann-voice",
        )
    )
    print(f"bob hears ann with SSRC {stream.ssrc}")

    try:
        relay.Bind(pb.BindRequest(scope_id=scope, subscription_id="bob-hears-ann", publication_id="nobody"))
        print("an unknown publication was bound")
        return 1
    except grpc.RpcError as error:
        print(f"as it should be: {error.code().name}: {error.details()}")

    statistics = relay.GetStatistics(pb.GetStatisticsRequest(scope_ids=[scope]))
    peers = {peer.peer_id: peer for peer in statistics.scopes[0].peers}
    if sorted(peers) != ["ann", "bob"] or not peers["bob"].subscriptions:
        print(f"statistics lack something: {statistics}")
        return 1
    print(f"worker {worker}: {statistics.workers[worker].peers} peers")

    relay.DisposeScope(pb.DisposeScopeRequest(scope_id=scope))
    if not ended.wait(10):
        print("no event of the end within 10 s")
        return 1
    print("done")
    return 0


if __name__ == "__main__":
    sys.exit(main())
