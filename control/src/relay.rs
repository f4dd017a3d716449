//! The relay, as its RPC shows it: one channel over a Unix socket that reconnects by itself.

pub mod channels;
pub mod watch;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hyper_util::rt::TokioIo;
use strait_proto::v1::{self, candidate::Purpose, relay_client::RelayClient};
use tokio::net::UnixStream;
use tokio::sync::watch as latest;
use tokio::time::{Instant, timeout_at};
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Status};
use tracing::{debug, warn};

use crate::fault::{Class, Fault};
use crate::limits;
use crate::sdp::{self, IceCredentials};

/// Handle on the relay. Cheap to clone.
#[derive(Clone)]
pub struct Relay {
    client: RelayClient<Channel>,
    socket: Arc<Path>,
    info: Arc<latest::Sender<Option<v1::GetInfoResponse>>>,
    outbox: Arc<channels::Outbox>,
    /// It keeps no notes: it is of an older version.
    is_forgetful: Arc<AtomicBool>,
}

/// Notes that the relay keeps.
#[derive(Debug, Default)]
pub struct Notes {
    /// First that of the process, then of each scope its own before those of its peers.
    pub told: Vec<v1::Note>,
    /// It told all.
    pub is_whole: bool,
}

/// The relay's side of a peer's transport.
#[derive(Debug, Clone)]
pub struct Transport {
    /// The relay's ICE credentials for this peer.
    pub ice: IceCredentials,
    /// `a=candidate` values.
    pub candidates: Vec<String>,
    /// Where it takes datagrams, and of what, best first.
    pub udp: Vec<(Purpose, SocketAddr)>,
}

impl Relay {
    /// A handle on the relay at `socket`; nothing is connected yet.
    pub fn new(socket: &Path) -> Self {
        let path: PathBuf = socket.to_owned();
        let connector = tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(path).await?)) }
        });
        // The URI is never looked up: the connector knows the socket.
        let endpoint = Endpoint::from_static("http://relay.invalid");
        let channel = endpoint.connect_with_connector_lazy(connector);
        Self {
            client: RelayClient::new(channel),
            socket: socket.into(),
            info: Arc::new(latest::Sender::new(None)),
            outbox: Arc::default(),
            is_forgetful: Arc::default(),
        }
    }

    /// The socket of its RPC.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// What the relay said of itself; none while it is away.
    pub fn info(&self) -> Option<v1::GetInfoResponse> {
        self.info.borrow().clone()
    }

    /// Whether it serves TURN over TLS: one that is away or of an older version does not.
    pub fn serves_turn(&self) -> bool {
        self.info.borrow().as_ref().is_some_and(|info| info.turn)
    }

    /// URLs of the STUN server that it is: none while it is away, of an older version, or told to be none.
    pub fn stun_servers(&self) -> Vec<String> {
        self.info.borrow().as_ref().map(stun_servers).unwrap_or_default()
    }

    /// Whether it goes on with what it has, and keeps notes of it.
    pub fn is_lasting(&self) -> bool {
        self.info.borrow().as_ref().is_some_and(|info| !info.draining)
            && !self.is_forgetful.load(Ordering::Relaxed)
    }

    /// Waits until it has said something of itself.
    pub async fn found(&self) {
        let mut info = self.info.subscribe();
        // It cannot fail: the sender is here.
        let _found = info.wait_for(Option::is_some).await;
    }

    /// Creates a scope, of which so many audio streams are forwarded, the loudest; 0 is all.
    ///
    /// # Errors
    /// As every call here: the relay's refusal, or [`Class::Unavailable`] while it is away.
    pub async fn create_scope(&self, scope_id: &str, audio_streams_max: u32) -> Result<(), Fault> {
        let request = v1::CreateScopeRequest { scope_id: scope_id.into(), audio_streams_max };
        self.client.clone().create_scope(timed(request)).await.map_err(|s| self.fault(s))?;
        Ok(())
    }

    /// Removes a scope with all its peers.
    ///
    /// # Errors
    /// As [`Relay::create_scope`].
    pub async fn dispose_scope(&self, scope_id: &str) -> Result<(), Fault> {
        let request = v1::DisposeScopeRequest { scope_id: scope_id.into() };
        self.client.clone().dispose_scope(timed(request)).await.map_err(|s| self.fault(s))?;
        Ok(())
    }

    /// Adds a peer. Also returns the SHA-256 fingerprint of the relay's certificate.
    ///
    /// # Errors
    /// As [`Relay::create_scope`].
    pub async fn add_peer(
        &self,
        request: v1::AddPeerRequest,
    ) -> Result<(Transport, String), Fault> {
        let answer = self.client.clone().add_peer(timed(request)).await;
        let answer = answer.map_err(|s| self.fault(s))?.into_inner();
        let transport = transport(answer.local_ice, &answer.candidates)?;
        Ok((transport, answer.fingerprint_sha256))
    }

    /// Caps what a peer sends, in bits per second; 0 lifts the cap.
    ///
    /// # Errors
    /// As [`Relay::create_scope`].
    pub async fn limit_uplink(
        &self,
        scope_id: &str,
        peer_id: &str,
        bps_max: u64,
    ) -> Result<(), Fault> {
        let request =
            v1::LimitUplinkRequest { scope_id: scope_id.into(), peer_id: peer_id.into(), bps_max };
        self.client.clone().limit_uplink(timed(request)).await.map_err(|s| self.fault(s))?;
        Ok(())
    }

    /// Gives a scope another session key.
    ///
    /// # Errors
    /// As [`Relay::create_scope`]; [`Class::NotFound`] when nobody there has a session key.
    pub async fn change_session_key(
        &self,
        scope_id: &str,
        session_key: v1::SessionKey,
    ) -> Result<(), Fault> {
        let session_key = Some(session_key);
        let request = v1::ChangeSessionKeyRequest { scope_id: scope_id.into(), session_key };
        self.client.clone().change_session_key(timed(request)).await.map_err(|s| self.fault(s))?;
        Ok(())
    }

    /// Restarts a peer's ICE.
    ///
    /// # Errors
    /// As [`Relay::create_scope`].
    pub async fn restart_ice(
        &self,
        scope_id: &str,
        peer_id: &str,
        remote: &IceCredentials,
    ) -> Result<Transport, Fault> {
        let request = v1::RestartIceRequest {
            scope_id: scope_id.into(),
            peer_id: peer_id.into(),
            remote_ice: Some(credentials(remote)),
        };
        let answer = self.client.clone().restart_ice(timed(request)).await;
        let answer = answer.map_err(|s| self.fault(s))?.into_inner();
        transport(answer.local_ice, &answer.candidates)
    }

    /// Removes a peer.
    ///
    /// # Errors
    /// As [`Relay::create_scope`].
    pub async fn remove_peer(&self, scope_id: &str, peer_id: &str) -> Result<(), Fault> {
        let request = v1::RemovePeerRequest { scope_id: scope_id.into(), peer_id: peer_id.into() };
        self.client.clone().remove_peer(timed(request)).await.map_err(|s| self.fault(s))?;
        Ok(())
    }

    /// Announces a stream that a peer will send.
    ///
    /// # Errors
    /// As [`Relay::create_scope`].
    pub async fn publish(&self, request: v1::PublishRequest) -> Result<(), Fault> {
        self.client.clone().publish(timed(request)).await.map_err(|s| self.fault(s))?;
        Ok(())
    }

    /// Ends a publication.
    ///
    /// # Errors
    /// As [`Relay::create_scope`].
    pub async fn unpublish(&self, scope_id: &str, publication_id: &str) -> Result<(), Fault> {
        let request = v1::UnpublishRequest {
            scope_id: scope_id.into(),
            publication_id: publication_id.into(),
        };
        self.client.clone().unpublish(timed(request)).await.map_err(|s| self.fault(s))?;
        Ok(())
    }

    /// Mutes or unmutes a publication.
    ///
    /// # Errors
    /// As [`Relay::create_scope`].
    pub async fn set_muted(
        &self,
        scope_id: &str,
        publication_id: &str,
        muted: bool,
    ) -> Result<(), Fault> {
        let request = v1::SetMutedRequest {
            scope_id: scope_id.into(),
            publication_id: publication_id.into(),
            muted,
        };
        self.client.clone().set_muted(timed(request)).await.map_err(|s| self.fault(s))?;
        Ok(())
    }

    /// Opens an outgoing stream. Returns its SSRC and that of its RTX.
    ///
    /// # Errors
    /// As [`Relay::create_scope`]; [`Class::UnsupportedCodec`] when the publication's codec is not
    /// among those of the subscriber.
    pub async fn subscribe(&self, request: v1::SubscribeRequest) -> Result<(u32, u32), Fault> {
        let answer = self.client.clone().subscribe(timed(request)).await;
        let answer = answer.map_err(|s| self.fault(s))?.into_inner();
        Ok((answer.ssrc, answer.rtx_ssrc))
    }

    /// Binds a subscription to a publication, or to none.
    ///
    /// # Errors
    /// As [`Relay::subscribe`].
    pub async fn bind(
        &self,
        scope_id: &str,
        subscription_id: &str,
        publication_id: Option<&str>,
    ) -> Result<(), Fault> {
        let request = v1::BindRequest {
            scope_id: scope_id.into(),
            subscription_id: subscription_id.into(),
            publication_id: publication_id.unwrap_or_default().into(),
        };
        self.client.clone().bind(timed(request)).await.map_err(|s| self.fault(s))?;
        Ok(())
    }

    /// Says what a peer wants of a subscription.
    ///
    /// # Errors
    /// As [`Relay::create_scope`].
    pub async fn set_preferences(
        &self,
        scope_id: &str,
        subscription_id: &str,
        preferences: v1::Preferences,
    ) -> Result<(), Fault> {
        let request = v1::SetPreferencesRequest {
            scope_id: scope_id.into(),
            subscription_id: subscription_id.into(),
            preferences: Some(preferences),
        };
        self.client.clone().set_preferences(timed(request)).await.map_err(|s| self.fault(s))?;
        Ok(())
    }

    /// Ends a subscription.
    ///
    /// # Errors
    /// As [`Relay::create_scope`].
    pub async fn unsubscribe(&self, scope_id: &str, subscription_id: &str) -> Result<(), Fault> {
        let request = v1::UnsubscribeRequest {
            scope_id: scope_id.into(),
            subscription_id: subscription_id.into(),
        };
        self.client.clone().unsubscribe(timed(request)).await.map_err(|s| self.fault(s))?;
        Ok(())
    }

    /// Counters of the workers, and of `scope_ids`.
    ///
    /// # Errors
    /// As [`Relay::create_scope`].
    pub async fn statistics(
        &self,
        scope_ids: Vec<String>,
    ) -> Result<v1::GetStatisticsResponse, Fault> {
        let request = v1::GetStatisticsRequest { scope_ids };
        let answer = self.client.clone().get_statistics(timed(request)).await;
        Ok(answer.map_err(|s| self.fault(s))?.into_inner())
    }

    /// Has the relay keep a note of a peer, of a scope (`peer_id` is empty), or of this process.
    ///
    /// # Errors
    /// As [`Relay::create_scope`].
    pub async fn keep_note(
        &self,
        scope_id: &str,
        peer_id: &str,
        content: Vec<u8>,
    ) -> Result<(), Fault> {
        if self.is_forgetful.load(Ordering::Relaxed) {
            return Ok(());
        }
        let note = v1::Note { scope_id: scope_id.into(), peer_id: peer_id.into(), content };
        let request = timed(v1::KeepNoteRequest { note: Some(note) });
        match self.client.clone().keep_note(request).await {
            Err(status) if status.code() == Code::Unimplemented => {
                self.is_forgetful.store(true, Ordering::Relaxed);
                warn!(
                    "the relay is of an older version and keeps no notes: should this process be \
                     killed, native clients lose a moment of their media; update strait-relay"
                );
                Ok(())
            }
            outcome => outcome.map(drop).map_err(|status| self.fault(status)),
        }
    }

    /// The notes that the relay keeps, as far as it tells them in time.
    ///
    /// # Errors
    /// As [`Relay::create_scope`], when it tells none at all.
    pub async fn notes(&self) -> Result<Notes, Fault> {
        let end = Instant::now() + limits::RECALL_TIME;
        let next = || end.min(Instant::now() + limits::RECALL_SILENCE);
        let mut notes = Notes::default();
        let mut client = self.client.clone();
        // Without a deadline of its own, which would end the answer.
        let asked = client.list_notes(Request::new(v1::ListNotesRequest {}));
        let mut told = match timeout_at(next(), asked).await {
            Ok(Ok(told)) => told.into_inner(),
            Ok(Err(status)) if status.code() == Code::Unimplemented => {
                return Ok(Notes { is_whole: true, ..notes });
            }
            Ok(Err(status)) => return Err(self.fault(status)),
            Err(_) => return Ok(notes),
        };
        loop {
            match timeout_at(next(), told.message()).await {
                Ok(Ok(Some(note))) => notes.told.push(note),
                Ok(Ok(None)) => return Ok(Notes { is_whole: true, ..notes }),
                Ok(Err(status)) => {
                    debug!("the relay tells no further note: {}", status.message());
                    return Ok(notes);
                }
                Err(_) => return Ok(notes),
            }
        }
    }

    fn fault(&self, status: Status) -> Fault {
        let class = match status.code() {
            Code::InvalidArgument => Class::NotAcceptable,
            Code::NotFound => Class::NotFound,
            Code::AlreadyExists => Class::Conflict,
            Code::ResourceExhausted => Class::TooMany,
            Code::FailedPrecondition => Class::UnsupportedCodec,
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => {
                debug!("the relay at {} does not answer: {status}", self.socket.display());
                return Fault::unavailable(
                    "this node's relay does not answer or drains; try again in some seconds",
                );
            }
            _ => Class::Internal,
        };
        let fault = Fault::new(class, format!("the relay refused: {}", status.message()));
        // Handshakes that are half open, a mailbox that is full: most of its limits are met for seconds.
        if fault.class == Class::TooMany { fault.passing() } else { fault }
    }
}

/// ICE credentials as the RPC carries them.
pub fn credentials(ice: &IceCredentials) -> v1::IceCredentials {
    v1::IceCredentials { ufrag: ice.ufrag.clone(), pwd: ice.pwd.clone() }
}

/// A fingerprint as the RPC carries it.
pub fn fingerprint(fingerprint: &sdp::Fingerprint) -> v1::Fingerprint {
    v1::Fingerprint { algorithm: fingerprint.algorithm.clone(), value: fingerprint.value.clone() }
}

/// The codecs of a leg as the RPC carries them, and whether feedback may go without reports there.
pub fn codecs(codecs: &[sdp::Codec], reduced_size: bool) -> Vec<v1::Codec> {
    let mut codecs: Vec<_> = codecs.iter().map(codec).collect();
    if reduced_size {
        codecs.iter_mut().for_each(|codec| codec.feedback.push("rtcp-rsize".to_owned()));
    }
    codecs
}

/// A codec as the RPC carries it.
fn codec(codec: &sdp::Codec) -> v1::Codec {
    v1::Codec {
        payload_type: codec.payload_type.into(),
        name: codec.name.clone(),
        clock_rate_hz: codec.clock_rate_hz,
        channels: codec.channels.into(),
        parameters: codec.parameters().filter(|(key, _)| !key.is_empty()).collect(),
        rtx_payload_type: codec.rtx.map(u32::from),
        feedback: codec.feedback.clone(),
    }
}

/// A header extension as the RPC carries it.
pub fn extension(extension: &sdp::Extension) -> v1::HeaderExtension {
    v1::HeaderExtension { id: extension.id.into(), uri: extension.uri.clone() }
}

/// The `a=candidate` value of a candidate (RFC 8839 section 5.1, RFC 6544 section 4.5).
fn candidate_line(index: usize, candidate: &v1::Candidate) -> Option<String> {
    let v1::Candidate { address, port, priority, .. } = candidate;
    let (protocol, tail) = match candidate.protocol() {
        v1::candidate::Protocol::Udp => ("udp", ""),
        v1::candidate::Protocol::TcpPassive => ("tcp", " tcptype passive"),
        v1::candidate::Protocol::Unspecified => return None,
    };
    let foundation = index + 1;
    Some(format!("{foundation} 1 {protocol} {priority} {address} {port} typ host{tail}"))
}

/// Where it takes datagrams, and of what.
fn udp_of(candidates: &[v1::Candidate]) -> impl Iterator<Item = (Purpose, SocketAddr)> {
    let udp = candidates.iter().filter(|c| c.protocol() == v1::candidate::Protocol::Udp);
    udp.filter_map(|c| {
        let port = u16::try_from(c.port).ok()?;
        Some((c.purpose(), SocketAddr::new(c.address.parse().ok()?, port)))
    })
}

fn stun_servers(info: &v1::GetInfoResponse) -> Vec<String> {
    let udp = udp_of(&info.candidates).filter(|(purpose, _)| *purpose == Purpose::Any && info.stun);
    udp.take(limits::STUN_SERVERS).map(|(_, place)| format!("stun:{place}")).collect()
}

fn transport(
    ice: Option<v1::IceCredentials>,
    candidates: &[v1::Candidate],
) -> Result<Transport, Fault> {
    let ice = ice
        .and_then(|ice| IceCredentials::new(&ice.ufrag, &ice.pwd))
        .ok_or_else(|| Fault::internal("the relay answered without usable ICE credentials"))?;
    let mut udp: Vec<_> = udp_of(candidates).collect();
    // Where sound and pictures are told apart is tried first.
    udp.sort_by_key(|(purpose, _)| *purpose == Purpose::Any);
    let candidates = candidates.iter().filter(|c| c.purpose() == Purpose::Any).enumerate();
    Ok(Transport {
        ice,
        udp,
        candidates: candidates.filter_map(|(i, c)| candidate_line(i, c)).collect(),
    })
}

fn timed<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(limits::RELAY_CALL);
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_are_written_as_the_rfcs_say() {
        let candidate = |protocol: v1::candidate::Protocol| v1::Candidate {
            protocol: protocol.into(),
            address: "192.0.2.1".into(),
            port: 8443,
            priority: 2130706431,
            purpose: Purpose::Any.into(),
        };
        assert_eq!(
            candidate_line(0, &candidate(v1::candidate::Protocol::Udp)).unwrap(),
            "1 1 udp 2130706431 192.0.2.1 8443 typ host"
        );
        assert_eq!(
            candidate_line(1, &candidate(v1::candidate::Protocol::TcpPassive)).unwrap(),
            "2 1 tcp 2130706431 192.0.2.1 8443 typ host tcptype passive"
        );
        assert_eq!(candidate_line(0, &candidate(v1::candidate::Protocol::Unspecified)), None);
    }

    #[test]
    fn a_relay_that_says_where_one_is_seen_is_named_at_its_best_places() {
        let of = |purpose: Purpose, address: &str, port| v1::Candidate {
            protocol: v1::candidate::Protocol::Udp.into(),
            address: address.into(),
            port,
            priority: 1,
            purpose: purpose.into(),
        };
        let mut candidates = vec![
            of(Purpose::Any, "2001:db8::1", 8443),
            of(Purpose::Any, "192.0.2.1", 8443),
            of(Purpose::Audio, "192.0.2.1", 5000),
        ];
        let tcp = v1::candidate::Protocol::TcpPassive.into();
        candidates.push(v1::Candidate { protocol: tcp, ..candidates[1].clone() });
        let mut info = v1::GetInfoResponse { candidates, stun: true, ..Default::default() };
        assert_eq!(stun_servers(&info), ["stun:[2001:db8::1]:8443", "stun:192.0.2.1:8443"]);
        let further = (1..9).map(|port| of(Purpose::Any, "192.0.2.1", port));
        info.candidates.extend(further);
        assert_eq!(stun_servers(&info).len(), limits::STUN_SERVERS);
        info.stun = false;
        assert!(stun_servers(&info).is_empty(), "it does not answer");
    }

    #[test]
    fn browsers_are_told_of_no_port_for_sound_or_pictures_alone() {
        let of = |purpose: Purpose, port| v1::Candidate {
            protocol: v1::candidate::Protocol::Udp.into(),
            address: "192.0.2.1".into(),
            port,
            priority: 1,
            purpose: purpose.into(),
        };
        let told = [
            of(Purpose::Any, 8443),
            of(Purpose::Any, 443),
            of(Purpose::Audio, 5000),
            of(Purpose::Video, 5002),
        ];
        let ice = v1::IceCredentials { ufrag: "ufrag".into(), pwd: "password".repeat(3) };
        let transport = transport(Some(ice), &told).unwrap();
        let expected = ["1 1 udp 1 192.0.2.1 8443 typ host", "2 1 udp 1 192.0.2.1 443 typ host"];
        assert_eq!(transport.candidates, expected);
        let ports: Vec<_> = transport.udp.iter().map(|(_, place)| place.port()).collect();
        assert_eq!(ports, [5000, 5002, 8443, 443], "as native clients try them");
    }

    #[tokio::test]
    async fn an_absent_relay_is_a_503() {
        let relay = Relay::new(Path::new("/nonexistent/strait.sock"));
        let fault = relay.create_scope("x", 0).await.unwrap_err();
        assert_eq!(fault.class, Class::Unavailable, "{fault}");
        assert!(!fault.reason.contains("/nonexistent"), "clients are told no paths: {fault}");
    }
}
