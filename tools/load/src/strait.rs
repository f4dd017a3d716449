//! Signalling with a relay of Strait, over its RPC socket, without a control plane.

use std::collections::BTreeSet;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use strait_crypt::dtls::Role;
use strait_proto::v1::{self, candidate::Protocol, relay_client::RelayClient};
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Status};

use crate::signalling::{
    AgreedStream, Codec, Extension, Ice, IceCredentials, Joined, LocalTransport, MediaKind,
    PublisherJoin, RemoteTransport, Security, SecurityKind, Signalling, SignallingError,
    SubscriberJoin, fingerprint_sha256,
};

/// How long one call may take.
const CALL: Duration = Duration::from_secs(10);

/// A relay's RPC socket (`strait.relay.v1`).
pub struct StraitRpc {
    socket: PathBuf,
    runtime: Runtime,
    client: RelayClient<Channel>,
    scopes: BTreeSet<String>,
}

impl StraitRpc {
    /// Connects to the socket of a relay.
    ///
    /// # Errors
    /// Nobody answers there.
    pub fn connect(socket: &Path) -> Result<Self, SignallingError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| SignallingError::Unreachable(format!("cannot start a runtime: {e}")))?;
        let path = socket.to_owned();
        let connector = tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(path).await?)) }
        });
        // The URI is never looked up: the connector knows the socket.
        let endpoint = Endpoint::from_static("http://relay.invalid");
        let channel = runtime.block_on(async { endpoint.connect_with_connector_lazy(connector) });
        let mut rpc = Self {
            socket: socket.to_owned(),
            runtime,
            client: RelayClient::new(channel),
            scopes: BTreeSet::new(),
        };
        rpc.call(async |client| client.get_info(timed(v1::GetInfoRequest {})).await)?;
        Ok(rpc)
    }

    /// The relay's own client, for what the load does not do by itself.
    pub fn client(&mut self) -> (&Runtime, &mut RelayClient<Channel>) {
        (&self.runtime, &mut self.client)
    }

    fn call<T>(
        &mut self,
        call: impl AsyncFnOnce(&mut RelayClient<Channel>) -> Result<tonic::Response<T>, Status>,
    ) -> Result<T, SignallingError> {
        let answer: Result<_, Status> = block_on(&self.runtime, call(&mut self.client));
        answer.map(tonic::Response::into_inner).map_err(|status| match status.code() {
            Code::Unavailable | Code::DeadlineExceeded | Code::Unknown | Code::Cancelled => {
                SignallingError::Unreachable(format!(
                    "the relay at {} does not answer: {}; is it running, and may this user call it?",
                    self.socket.display(),
                    status.message()
                ))
            }
            _ => SignallingError::Refused(format!("the relay refused: {}", status.message())),
        })
    }

    /// Creates the scope if it is a new one, and adds the peer.
    fn add_peer(
        &mut self,
        scope: &str,
        peer: &str,
        transport: &LocalTransport,
    ) -> Result<RemoteTransport, SignallingError> {
        if transport.security != SecurityKind::Dtls {
            return Err(SignallingError::Refused(
                "the relay's RPC has no session keys and no plain RTP yet: use DTLS".into(),
            ));
        }
        if self.scopes.insert(scope.to_owned()) {
            let request = v1::CreateScopeRequest { scope_id: scope.to_owned() };
            self.call(async |client| client.create_scope(timed(request)).await)?;
        }
        let request = v1::AddPeerRequest {
            scope_id: scope.to_owned(),
            peer_id: peer.to_owned(),
            remote_ice: Some(v1::IceCredentials {
                ufrag: transport.ice.ufrag.clone(),
                pwd: transport.ice.pwd.clone(),
            }),
            remote_fingerprint: Some(v1::Fingerprint {
                algorithm: "sha-256".into(),
                value: transport.fingerprint_sha256.to_vec(),
            }),
            dtls_role: v1::DtlsRole::Server.into(),
            ..v1::AddPeerRequest::default()
        };
        let answer = self.call(async |client| client.add_peer(timed(request)).await)?;
        let address =
            best_candidate(&answer.candidates, transport.address.ip()).ok_or_else(|| {
                SignallingError::Refused(format!(
                    "the relay has no UDP candidate of the family of {}",
                    transport.address.ip()
                ))
            })?;
        let local = answer.local_ice.unwrap_or_default();
        Ok(RemoteTransport {
            address,
            security: Security::Dtls {
                ice: Ice {
                    credentials: IceCredentials { ufrag: local.ufrag, pwd: local.pwd },
                    load_controls: true,
                },
                fingerprint: fingerprint_sha256(&answer.fingerprint_sha256)?,
                role: Role::Client,
            },
        })
    }
}

impl Signalling for StraitRpc {
    fn join_publisher(&mut self, join: &PublisherJoin) -> Result<Joined, SignallingError> {
        let transport = self.add_peer(&join.scope, &join.peer, &join.transport)?;
        let stream = &join.stream;
        let request = v1::PublishRequest {
            scope_id: join.scope.clone(),
            peer_id: join.peer.clone(),
            publication_id: stream.publication.clone(),
            kind: kind(stream.kind).into(),
            mid: stream.mid.clone(),
            codecs: vec![codec(&stream.codec)],
            extensions: stream.extensions.iter().map(extension).collect(),
            encodings: stream
                .encodings
                .iter()
                .map(|encoding| v1::Encoding {
                    rid: encoding.rid.clone(),
                    ssrc: encoding.ssrc,
                    rtx_ssrc: encoding.rtx_ssrc.unwrap_or(0),
                })
                .collect(),
            muted: false,
        };
        self.call(async |client| client.publish(timed(request)).await)?;
        let agreed = AgreedStream::as_wanted(&stream.mid, &stream.codec, &stream.extensions);
        Ok(Joined { transport, streams: vec![agreed] })
    }

    fn join_subscriber(&mut self, join: &SubscriberJoin) -> Result<Joined, SignallingError> {
        let transport = self.add_peer(&join.scope, &join.peer, &join.transport)?;
        let mut streams = Vec::with_capacity(join.streams.len());
        for wanted in &join.streams {
            let request = v1::SubscribeRequest {
                scope_id: join.scope.clone(),
                peer_id: join.peer.clone(),
                subscription_id: format!("{}<{}", join.peer, wanted.publication),
                kind: kind(wanted.kind).into(),
                mid: wanted.mid.clone(),
                codecs: vec![codec(&wanted.codec)],
                extensions: wanted.extensions.iter().map(extension).collect(),
                publication_id: wanted.publication.clone(),
                ..v1::SubscribeRequest::default()
            };
            let answer = self.call(async |client| client.subscribe(timed(request)).await)?;
            let agreed = AgreedStream::as_wanted(&wanted.mid, &wanted.codec, &wanted.extensions);
            streams.push(AgreedStream {
                ssrc: Some(answer.ssrc),
                rtx_ssrc: (answer.rtx_ssrc != 0).then_some(answer.rtx_ssrc),
                ..agreed
            });
        }
        Ok(Joined { transport, streams })
    }

    fn end(&mut self) {
        for scope_id in std::mem::take(&mut self.scopes) {
            // A relay that is gone has no scopes left.
            let request = v1::DisposeScopeRequest { scope_id };
            let _ = self.call(async |client| client.dispose_scope(timed(request)).await);
        }
    }
}

fn block_on<T>(runtime: &Runtime, future: impl Future<Output = T>) -> T {
    runtime.block_on(future)
}

fn timed<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(CALL);
    request
}

/// The first UDP candidate that a socket bound to `local` can reach.
fn best_candidate(candidates: &[v1::Candidate], local: IpAddr) -> Option<SocketAddr> {
    candidates.iter().filter(|c| c.protocol() == Protocol::Udp).find_map(|candidate| {
        let ip: IpAddr = candidate.address.parse().ok()?;
        let port = u16::try_from(candidate.port).ok()?;
        (ip.is_ipv4() == local.is_ipv4()).then_some(SocketAddr::new(ip, port))
    })
}

fn kind(kind: MediaKind) -> v1::Kind {
    match kind {
        MediaKind::Audio => v1::Kind::Audio,
        MediaKind::Video => v1::Kind::Video,
    }
}

fn codec(codec: &Codec) -> v1::Codec {
    v1::Codec {
        payload_type: codec.payload_type.into(),
        name: codec.name.clone(),
        clock_rate_hz: codec.clock_rate_hz,
        channels: codec.channels.into(),
        rtx_payload_type: codec.rtx_payload_type.map(u32::from),
        feedback: codec.feedback.clone(),
        ..v1::Codec::default()
    }
}

fn extension(extension: &Extension) -> v1::HeaderExtension {
    v1::HeaderExtension { id: extension.id.into(), uri: extension.uri.clone() }
}
