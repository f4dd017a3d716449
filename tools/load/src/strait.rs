//! Signalling with a relay of Strait, over its RPC socket, without a control plane.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use strait_crypt::dtls::Role;
use strait_crypt::srtp::Profile;
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
    /// The scopes that were made, with their session keys.
    scopes: BTreeMap<String, Key>,
    as_sent: bool,
    /// Which side of DTLS the load plays.
    role: Role,
    /// Where the relay listens for media, as it says.
    candidates: Vec<v1::Candidate>,
}

/// A session key, or nothing with DTLS.
#[derive(Clone, Default)]
struct Key {
    key: Vec<u8>,
    salt: Vec<u8>,
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
            scopes: BTreeMap::new(),
            as_sent: false,
            role: Role::Client,
            candidates: Vec::new(),
        };
        let info = rpc.call(async |client| client.get_info(timed(v1::GetInfoRequest {})).await)?;
        rpc.candidates = info.candidates;
        Ok(rpc)
    }

    /// Whether streams are to go out byte for byte as they came, which peers with session keys and plain ones can have.
    #[must_use]
    pub fn as_sent(mut self, as_sent: bool) -> Self {
        self.as_sent = as_sent;
        self
    }

    /// Which side of DTLS the load plays; a browser that calls plays the client.
    #[must_use]
    pub fn dtls_role(mut self, role: Role) -> Self {
        self.role = role;
        self
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
                    "the relay at {} does not answer: {}; is it running, and may this user call it? \
                     Remedy: start `strait dev`, or name another socket with --relay",
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
        let profile = transport.profile.unwrap_or(Profile::AeadAes128Gcm);
        if !self.scopes.contains_key(scope) {
            let request = v1::CreateScopeRequest {
                scope_id: scope.to_owned(),
                ..v1::CreateScopeRequest::default()
            };
            self.call(async |client| client.create_scope(timed(request)).await)?;
            self.scopes.insert(scope.to_owned(), Key::new(profile)?);
        }
        let key = self.scopes.get(scope).cloned().unwrap_or_default();
        let mut request = v1::AddPeerRequest {
            scope_id: scope.to_owned(),
            peer_id: peer.to_owned(),
            dtls_role: match self.role {
                Role::Client => v1::DtlsRole::Server.into(),
                Role::Server => v1::DtlsRole::Client.into(),
            },
            ..v1::AddPeerRequest::default()
        };
        let ice = Some(v1::IceCredentials {
            ufrag: transport.ice.ufrag.clone(),
            pwd: transport.ice.pwd.clone(),
        });
        match transport.security {
            SecurityKind::Dtls => {
                request.remote_ice = ice;
                request.remote_fingerprint = Some(v1::Fingerprint {
                    algorithm: "sha-256".into(),
                    value: transport.fingerprint_sha256.to_vec(),
                });
            }
            SecurityKind::SessionKey => {
                request.remote_ice = ice;
                request.session_key = Some(v1::SessionKey {
                    profile: session_profile(profile).into(),
                    key: key.key.clone(),
                    salt: key.salt.clone(),
                });
            }
            SecurityKind::Plain => {
                let address = self.seen_address(transport)?;
                request.remote_address = address.to_string();
                request.plain = true;
            }
        }
        let answer = self.call(async |client| client.add_peer(timed(request)).await)?;
        let address = best_candidate(&answer.candidates, transport.address.ip())
            .ok_or_else(|| no_candidate(transport.address.ip()))?;
        let local = answer.local_ice.unwrap_or_default();
        let credentials = IceCredentials { ufrag: local.ufrag, pwd: local.pwd };
        let ice = Ice { credentials, load_controls: true };
        let security = match transport.security {
            SecurityKind::Dtls => {
                let fingerprint = fingerprint_sha256(&answer.fingerprint_sha256)?;
                Security::Dtls { ice, fingerprint, role: self.role }
            }
            SecurityKind::SessionKey => {
                Security::SessionKey { ice: Some(ice), profile, key: key.key, salt: key.salt }
            }
            SecurityKind::Plain => Security::Plain,
        };
        Ok(RemoteTransport { address, channel: None, security })
    }

    /// The address that the relay sees packets of a socket come from: its own, or the one that routing picks.
    fn seen_address(&self, transport: &LocalTransport) -> Result<SocketAddr, SignallingError> {
        if let Some(address) = transport.candidate() {
            return Ok(address);
        }
        let ip = transport.address.ip();
        let relay = best_candidate(&self.candidates, ip).ok_or_else(|| no_candidate(ip))?;
        let picked = || {
            let socket = UdpSocket::bind((ip, 0))?;
            socket.connect(relay)?;
            socket.local_addr()
        };
        let picked = picked().map_err(|error| {
            SignallingError::Unreachable(format!("no way from this host to {relay}: {error}"))
        })?;
        Ok(SocketAddr::new(picked.ip(), transport.address.port()))
    }
}

impl Key {
    fn new(profile: Profile) -> Result<Self, SignallingError> {
        let random = |length: usize| {
            let mut bytes = vec![0; length];
            let filled = aws_lc_rs::rand::fill(&mut bytes);
            filled.map(|()| bytes).map_err(|_| {
                SignallingError::Unreachable("the system has no randomness for keys".into())
            })
        };
        Ok(Self { key: random(profile.key_len())?, salt: random(profile.salt_len())? })
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
                as_sent: self.as_sent,
                ..v1::SubscribeRequest::default()
            };
            let answer = self.call(async |client| client.subscribe(timed(request)).await)?;
            let mut agreed =
                AgreedStream::as_wanted(&wanted.mid, &wanted.codec, &wanted.extensions);
            if self.as_sent {
                // The MID is the publisher's, too.
                agreed.mid_extension = None;
            }
            streams.push(AgreedStream {
                ssrc: (answer.ssrc != 0).then_some(answer.ssrc),
                rtx_ssrc: (answer.rtx_ssrc != 0).then_some(answer.rtx_ssrc),
                ..agreed
            });
        }
        Ok(Joined { transport, streams })
    }

    fn end(&mut self) {
        for scope_id in std::mem::take(&mut self.scopes).into_keys() {
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

fn no_candidate(ip: IpAddr) -> SignallingError {
    SignallingError::Refused(format!("the relay has no UDP candidate of the family of {ip}"))
}

fn session_profile(profile: Profile) -> v1::session_key::Profile {
    use v1::session_key::Profile as V1;
    match profile {
        Profile::AesCm128HmacSha1_80 => V1::Aes128CmSha180,
        Profile::AesCm128HmacSha1_32 => V1::Aes128CmSha132,
        Profile::AeadAes128Gcm => V1::AeadAes128Gcm,
        Profile::AeadAes256Gcm => V1::AeadAes256Gcm,
    }
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
