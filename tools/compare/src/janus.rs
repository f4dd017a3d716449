//! Janus as a peer: its video room, driven over its HTTP API, with offers and answers as short as they can be.
//!
//! Configured for throughput: two event loops instead of a thread for each subscriber, ICE-lite, nothing else loaded.

use crate::bed::{Bed, SERVER, Side};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use strait_crypt::dtls::Fingerprint;
use strait_load::signalling::{
    AgreedStream, Codec, Ice, IceCredentials, Joined, LocalTransport, PublisherJoin,
    RemoteTransport, Security, SubscriberJoin,
};
use strait_load::{Role, Signalling, SignallingError};

/// The port of its HTTP API.
const API: u16 = 8088;
const START_WITHIN: Duration = Duration::from_secs(10);
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// A Janus that runs in the bed.
#[derive(Debug)]
pub struct Janus {
    child: Child,
    _folder: tempfile::TempDir,
}

impl Janus {
    /// Whether it is installed.
    #[must_use]
    pub fn is_installed() -> bool {
        Path::new("/usr/bin/janus").exists()
    }

    /// Starts it.
    ///
    /// # Errors
    /// It is not there, or does not start.
    pub fn start(bed: &Bed) -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let file = |name: &str, text: &str| std::fs::write(folder.path().join(name), text);
        file(
            "janus.jcfg",
            &format!(
                "general: {{ debug_level = 2 session_timeout = 0 event_loops = 2 \
                 configs_folder = {:?} admin_secret = \"none\" }}\n\
                 media: {{ }}\n\
                 nat: {{ ice_lite = true full_trickle = false nice_debug = false ice_enforce_list = \"bed\" }}\n\
                 plugins: {{ disable = \"libjanus_audiobridge.so,libjanus_echotest.so,libjanus_nosip.so,\
                 libjanus_recordplay.so,libjanus_sip.so,libjanus_streaming.so,libjanus_textroom.so,\
                 libjanus_videocall.so,libjanus_voicemail.so,libjanus_lua.so,libjanus_duktape.so\" }}\n\
                 transports: {{ disable = \"libjanus_websockets.so,libjanus_pfunix.so,libjanus_rabbitmq.so,\
                 libjanus_mqtt.so,libjanus_nanomsg.so\" }}\n",
                folder.path()
            ),
        )?;
        file("janus.plugin.videoroom.jcfg", "general: { }\n")?;
        file(
            "janus.transport.http.jcfg",
            &format!(
                "general: {{ json = \"plain\" base_path = \"/janus\" http = true port = {API} \
                 https = false ip = \"{SERVER}\" }}\nadmin: {{ admin_http = false }}\n"
            ),
        )?;
        let mut command = bed.command(Side::Server, Path::new("/usr/bin/janus"));
        let child = command
            .arg("-F")
            .arg(folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        std::thread::sleep(Duration::from_secs(2));
        Ok(Self { child, _folder: folder })
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Janus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Its API, as the load calls it.
#[derive(Debug, Default)]
pub struct JanusApi {
    transactions: u64,
    rooms: BTreeMap<String, u64>,
    publishers: BTreeMap<String, u64>,
    next: u64,
}

impl JanusApi {
    /// Waits until it answers.
    ///
    /// # Errors
    /// It does not.
    pub fn connect() -> Result<Self, SignallingError> {
        let start = Instant::now();
        let mut api = Self { next: 1000, ..Self::default() };
        loop {
            match api.session() {
                Ok(_) => return Ok(api),
                Err(error) if start.elapsed() > START_WITHIN => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }

    fn post(&mut self, path: &str, mut body: Value) -> Result<Value, SignallingError> {
        self.transactions += 1;
        body["transaction"] = json!(format!("t{}", self.transactions));
        let body = body.to_string();
        let request = format!(
            "POST /janus{path} HTTP/1.0\r\nHost: janus\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = http(&request)?;
        match answer["janus"].as_str() {
            Some("success" | "ack") => Ok(answer),
            _ => Err(SignallingError::Refused(format!("Janus: {answer}"))),
        }
    }

    fn id(answer: &Value) -> Result<u64, SignallingError> {
        answer["data"]["id"]
            .as_u64()
            .ok_or_else(|| SignallingError::Refused(format!("Janus gave no id: {answer}")))
    }

    /// A session of its own, and a handle of the video room in it.
    fn session(&mut self) -> Result<String, SignallingError> {
        let session = Self::id(&self.post("", json!({"janus": "create"}))?)?;
        let attach = json!({"janus": "attach", "plugin": "janus.plugin.videoroom"});
        let handle = Self::id(&self.post(&format!("/{session}"), attach)?)?;
        Ok(format!("/{session}/{handle}"))
    }

    /// Sends a message and returns the event that answers it.
    fn message(
        &mut self,
        handle: &str,
        body: Value,
        sdp: Option<(&str, String)>,
    ) -> Result<Value, SignallingError> {
        let mut message = json!({"janus": "message", "body": body});
        if let Some((kind, sdp)) = sdp {
            message["jsep"] = json!({"type": kind, "sdp": sdp});
        }
        let answer = self.post(handle, message)?;
        if answer["janus"] == "success" {
            return checked(answer);
        }
        let session = handle.split('/').nth(1).unwrap_or_default();
        let start = Instant::now();
        while start.elapsed() < ANSWER_WITHIN {
            let request = format!(
                "GET /janus/{session}?maxev=1 HTTP/1.0\r\nHost: janus\r\nConnection: close\r\n\r\n"
            );
            let event = http(&request)?;
            if event["janus"] == "event" {
                return checked(event);
            }
        }
        Err(SignallingError::Unreachable("Janus answers nothing".into()))
    }

    fn room(&mut self, handle: &str, scope: &str) -> Result<u64, SignallingError> {
        if let Some(room) = self.rooms.get(scope) {
            return Ok(*room);
        }
        self.next += 1;
        let room = self.next;
        let create = json!({
            "request": "create", "room": room, "publishers": 1000, "bitrate": 20_000_000,
            "videocodec": "vp8", "fir_freq": 0, "transport_wide_cc_ext": false,
        });
        self.message(handle, create, None)?;
        self.rooms.insert(scope.to_owned(), room);
        Ok(room)
    }
}

impl Signalling for JanusApi {
    fn join_publisher(&mut self, join: &PublisherJoin) -> Result<Joined, SignallingError> {
        let handle = self.session()?;
        let room = self.room(&handle, &join.scope)?;
        self.next += 1;
        let id = self.next;
        let stream = &join.stream;
        let ssrc = stream.encodings.first().map(|encoding| encoding.ssrc);
        let offer = sdp(&join.transport, "sendonly", "passive", "0", &stream.codec, ssrc);
        let body = json!({
            "request": "joinandconfigure", "ptype": "publisher", "room": room, "id": id,
            "audio": false, "video": true, "bitrate": 20_000_000,
        });
        let event = self.message(&handle, body, Some(("offer", offer)))?;
        let answer = event["jsep"]["sdp"].as_str().unwrap_or_default();
        self.publishers.insert(stream.publication.clone(), id);
        let agreed = agreed(answer, &stream.codec)?;
        Ok(Joined { transport: transport(answer)?, streams: vec![agreed] })
    }

    fn join_subscriber(&mut self, join: &SubscriberJoin) -> Result<Joined, SignallingError> {
        let refused = |why: &str| SignallingError::Refused(why.to_owned());
        let [wanted] = join.streams.as_slice() else {
            return Err(refused("one stream for each subscriber: that is all that is compared"));
        };
        let feed = *self.publishers.get(&wanted.publication).ok_or_else(|| refused("no feed"))?;
        let room = *self.rooms.get(&join.scope).ok_or_else(|| refused("no room"))?;
        let handle = self.session()?;
        let body = json!({"request": "join", "ptype": "subscriber", "room": room, "feed": feed});
        let start = Instant::now();
        // A feed exists once its publisher is connected, which is under way.
        let event = loop {
            match self.message(&handle, body.clone(), None) {
                Err(SignallingError::Refused(why))
                    if why.contains("No such feed") && start.elapsed() < ANSWER_WITHIN =>
                {
                    std::thread::sleep(Duration::from_millis(100));
                }
                event => break event?,
            }
        };
        let offer = event["jsep"]["sdp"].as_str().unwrap_or_default().to_owned();
        let agreed = agreed(&offer, &wanted.codec)?;
        let codec = Codec { payload_type: agreed.payload_type, ..wanted.codec.clone() };
        let mid = attribute(&offer, "mid:").unwrap_or("0").to_owned();
        let answer = sdp(&join.transport, "recvonly", "passive", &mid, &codec, None);
        self.message(&handle, json!({"request": "start"}), Some(("answer", answer)))?;
        Ok(Joined { transport: transport(&offer)?, streams: vec![agreed] })
    }

    fn end(&mut self) {}
}

fn checked(answer: Value) -> Result<Value, SignallingError> {
    match answer["plugindata"]["data"].get("error") {
        Some(error) => Err(SignallingError::Refused(format!("Janus: {error}"))),
        None => Ok(answer),
    }
}

/// One request; the body of the answer.
fn http(request: &str) -> Result<Value, SignallingError> {
    let unreachable = |error: io::Error| {
        SignallingError::Unreachable(format!("Janus at {SERVER}:{API}: {error}"))
    };
    let exchange = || {
        let mut stream = TcpStream::connect((SERVER, API))?;
        stream.set_read_timeout(Some(ANSWER_WITHIN))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer: String = exchange().map_err(unreachable)?;
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
    serde_json::from_str(body)
        .map_err(|error| SignallingError::Refused(format!("Janus: {error}: {answer}")))
}

/// The shortest description of one video stream.
fn sdp(
    local: &LocalTransport,
    direction: &str,
    setup: &str,
    mid: &str,
    codec: &Codec,
    ssrc: Option<u32>,
) -> String {
    let fingerprint: Vec<String> =
        local.fingerprint_sha256.iter().map(|byte| format!("{byte:02X}")).collect();
    let (address, pt) = (local.address, codec.payload_type);
    let ip = if address.ip().is_unspecified() { crate::bed::CLIENT } else { address.ip() };
    let mut lines = vec![
        "v=0".to_owned(),
        format!("o=- 1 1 IN IP4 {ip}"),
        "s=-".to_owned(),
        "t=0 0".to_owned(),
        format!("a=group:BUNDLE {mid}"),
        format!("m=video 9 UDP/TLS/RTP/SAVPF {pt}"),
        format!("c=IN IP4 {ip}"),
        format!("a=mid:{mid}"),
        format!("a={direction}"),
        "a=rtcp-mux".to_owned(),
        format!("a=ice-ufrag:{}", local.ice.ufrag),
        format!("a=ice-pwd:{}", local.ice.pwd),
        format!("a=fingerprint:sha-256 {}", fingerprint.join(":")),
        format!("a=setup:{setup}"),
        format!("a=rtpmap:{pt} {}/{}", codec.name, codec.clock_rate_hz),
        format!("a=rtcp-fb:{pt} nack pli"),
        format!("a=candidate:1 1 udp 2130706431 {ip} {} typ host", address.port()),
        "a=end-of-candidates".to_owned(),
    ];
    if let Some(ssrc) = ssrc {
        lines.push(format!("a=msid:load load\r\na=ssrc:{ssrc} cname:{}", local.cname));
    }
    lines.join("\r\n") + "\r\n"
}

/// What follows `a=NAME` on the first line that has it.
fn attribute<'a>(sdp: &'a str, name: &str) -> Option<&'a str> {
    sdp.lines().find_map(|line| line.trim().strip_prefix("a=")?.strip_prefix(name))
}

fn transport(sdp: &str) -> Result<RemoteTransport, SignallingError> {
    let missing = |what: &str| SignallingError::Refused(format!("Janus says no {what}: {sdp}"));
    let text = |name: &str| attribute(sdp, name).ok_or_else(|| missing(name));
    let hex = text("fingerprint:sha-256 ")?.split(':').map(|byte| u8::from_str_radix(byte, 16));
    let bytes: Vec<u8> = hex.collect::<Result<_, _>>().map_err(|_| missing("fingerprint"))?;
    let fingerprint = Fingerprint::new("sha-256", &bytes).map_err(|_| missing("fingerprint"))?;
    // foundation component protocol priority address port typ host
    let candidates = sdp.lines().filter_map(|line| line.trim().strip_prefix("a=candidate:"));
    let address = candidates
        .filter_map(|candidate| {
            let words: Vec<&str> = candidate.split_whitespace().collect();
            let (ip, port) = (words.get(4)?.parse().ok()?, words.get(5)?.parse().ok()?);
            words.get(2)?.eq_ignore_ascii_case("udp").then_some(SocketAddr::new(ip, port))
        })
        .find(|address| address.ip() == SERVER);
    let credentials =
        IceCredentials { ufrag: text("ice-ufrag:")?.to_owned(), pwd: text("ice-pwd:")?.to_owned() };
    Ok(RemoteTransport {
        address: address.ok_or_else(|| missing("candidate"))?,
        channel: None,
        security: Security::Dtls {
            ice: Ice { credentials, load_controls: true },
            fingerprint,
            // Its OpenSSL knows DTLS 1.2 alone and stumbles over a ClientHello for 1.3 as well: it opens.
            role: Role::Server,
        },
    })
}

fn agreed(sdp: &str, codec: &Codec) -> Result<AgreedStream, SignallingError> {
    let named = sdp.lines().filter_map(|line| line.trim().strip_prefix("a=rtpmap:")).find(|map| {
        let name = map.split_whitespace().nth(1).and_then(|format| format.split('/').next());
        name.is_some_and(|name| name.eq_ignore_ascii_case(&codec.name))
    });
    let payload_type = named.and_then(|map| map.split_whitespace().next()?.parse().ok());
    let missing = || SignallingError::Refused(format!("Janus agreed on no {}: {sdp}", codec.name));
    let ssrc =
        attribute(sdp, "ssrc:").and_then(|text| text.split_whitespace().next()?.parse().ok());
    Ok(AgreedStream {
        payload_type: payload_type.ok_or_else(missing)?,
        rtx_payload_type: None,
        mid: attribute(sdp, "mid:").unwrap_or_default().to_owned(),
        mid_extension: None,
        rid_extension: None,
        ssrc,
        rtx_ssrc: None,
    })
}
