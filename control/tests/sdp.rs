//! Offers of real browsers, and what becomes of them. The offers in `offers/` were made for this
//! purpose by Chromium 156 and Firefox 153.

use proptest::prelude::*;
use strait_control::fault::Class;
use strait_control::scope::Kind;
use strait_control::scope::plan::{Leg, Role, Wanted, plan};
use strait_control::sdp::{
    Answer, AnswerLine, Direction, Fec, IceCredentials, MediaKind, Offer, Sending, Setup, extension,
};

const CHROMIUM_PUBLISH: &str = include_str!("offers/chromium-publish.sdp");
const CHROMIUM_PLAY: &str = include_str!("offers/chromium-play.sdp");
const CHROMIUM_SIMULCAST: &str = include_str!("offers/chromium-simulcast.sdp");
const CHROMIUM_CONFERENCE: &str = include_str!("offers/chromium-conference.sdp");
const FIREFOX_PUBLISH: &str = include_str!("offers/firefox-publish.sdp");
const FIREFOX_PLAY: &str = include_str!("offers/firefox-play.sdp");
const FIREFOX_SIMULCAST: &str = include_str!("offers/firefox-simulcast.sdp");
const FIREFOX_CONFERENCE: &str = include_str!("offers/firefox-conference.sdp");
const ALL: [&str; 8] = [
    CHROMIUM_PUBLISH,
    CHROMIUM_PLAY,
    CHROMIUM_SIMULCAST,
    CHROMIUM_CONFERENCE,
    FIREFOX_PUBLISH,
    FIREFOX_PLAY,
    FIREFOX_SIMULCAST,
    FIREFOX_CONFERENCE,
];

/// The answer to an offer, with made-up streams on its slots.
fn answer(offer: &Offer, role: Role) -> String {
    answer_with(offer, role, &[Fec::FlexFec])
}

fn answer_with(offer: &Offer, role: Role, fec: &[Fec]) -> String {
    let lines = plan(offer, role, fec).unwrap().into_iter().enumerate().map(|(index, wanted)| {
        let (direction, leg, sending) = match wanted {
            Wanted::Rejected(_) => return AnswerLine::Rejected,
            Wanted::Channels => return AnswerLine::Channels,
            Wanted::Publication(leg) => (Direction::ReceiveOnly, leg, None),
            Wanted::Slot(leg) => {
                let sending = Sending {
                    stream: format!("slot-{index}"),
                    track: format!("track-{index}"),
                    ssrc: 1000 + index as u32,
                    rtx_ssrc: 2000 + index as u32,
                };
                (Direction::SendOnly, leg, Some(sending))
            }
            Wanted::Idle(leg) => (Direction::Inactive, leg, None),
        };
        let rids = leg.encodings.iter().map(|e| e.rid.clone()).filter(|rid| !rid.is_empty());
        AnswerLine::Accepted {
            direction,
            rids: rids.collect(),
            codecs: leg.codecs,
            extensions: leg.extensions,
            sending,
        }
    });
    let lines = lines.collect();
    Answer {
        session_id: 42,
        version: 1,
        ice: &IceCredentials::new("ufra", "aPasswordOf22BytesAndMore").unwrap(),
        candidates: &["1 1 udp 2130706431 192.0.2.1 8443 typ host".into()],
        fingerprint: "AA:BB",
        is_dtls_client: offer.setup == Setup::Passive,
        lines,
    }
    .write(offer)
}

#[test]
fn a_camera_and_a_microphone_publish() {
    for (text, codec, ssrcs) in [(CHROMIUM_PUBLISH, "VP8", true), (FIREFOX_PUBLISH, "VP8", true)] {
        let offer = Offer::parse(text).unwrap();
        assert!(offer.has_bundle && offer.trickle && offer.extmap_allow_mixed);
        assert_eq!(offer.setup, Setup::ActPass);
        assert_eq!(offer.fingerprint.value.len(), 32);
        let lines = plan(&offer, Role::Conference, &[Fec::FlexFec]).unwrap();
        let [Wanted::Publication(audio), Wanted::Publication(video)] = &lines[..] else {
            panic!("{lines:?}");
        };
        assert_eq!((audio.kind, video.kind), (Kind::Audio, Kind::Video));
        assert_eq!(audio.codecs[0].name, "opus");
        assert_eq!(video.codecs.len(), 1, "the publication's codec is known");
        assert_eq!(video.codecs[0].name, codec);
        assert!(video.codecs[0].rtx.is_some());
        for feedback in ["nack", "nack pli", "ccm fir", "transport-cc"] {
            assert!(video.codecs[0].feedback.iter().any(|f| f == feedback), "{feedback}");
        }
        assert_eq!(video.encodings.len(), 1);
        assert_eq!(video.encodings[0].ssrc != 0 && video.encodings[0].rtx_ssrc != 0, ssrcs);
        assert!(video.extensions.iter().any(|e| e.uri == extension::TRANSPORT_SEQUENCE));
        assert!(audio.extensions.iter().any(|e| e.uri == extension::AUDIO_LEVEL));
    }
}

#[test]
fn three_layers_publish() {
    for text in [CHROMIUM_SIMULCAST, FIREFOX_SIMULCAST] {
        let offer = Offer::parse(text).unwrap();
        assert!(offer.medias[0].is_simulcast);
        let rids: Vec<&str> = offer.medias[0].encodings.iter().map(|e| e.rid.as_str()).collect();
        assert_eq!(rids, ["q", "h", "f"]);
        let text = answer(&offer, Role::Conference);
        for line in ["a=rid:q recv", "a=rid:h recv", "a=rid:f recv", "a=simulcast:recv q;h;f"] {
            assert!(text.contains(&format!("{line}\r\n")), "{line}\n{text}");
        }
    }
}

#[test]
fn a_conference_offer_publishes_and_opens_slots() {
    for text in [CHROMIUM_CONFERENCE, FIREFOX_CONFERENCE] {
        let offer = Offer::parse(text).unwrap();
        let lines = plan(&offer, Role::Conference, &[Fec::FlexFec]).unwrap();
        let [
            Wanted::Publication(_),
            Wanted::Publication(_),
            Wanted::Slot(audio),
            Wanted::Slot(video),
            Wanted::Channels,
        ] = &lines[..]
        else {
            panic!("{lines:?}");
        };
        assert_eq!(audio.codecs[0].name, "opus");
        assert!(video.codecs.len() > 1, "a slot takes whatever is bound to it");
        assert!(video.codecs.iter().all(|c| c.feedback.iter().any(|f| f == "transport-cc")));
        assert!(video.extensions.iter().any(|e| e.uri == extension::TRANSPORT_SEQUENCE));
        assert!(video.extensions.iter().any(|e| e.uri == extension::MID));
    }
}

#[test]
fn roles_take_what_is_theirs() {
    let offer = Offer::parse(CHROMIUM_CONFERENCE).unwrap();
    let lines = plan(&offer, Role::Publisher, &[Fec::FlexFec]).unwrap();
    assert!(matches!(lines[2], Wanted::Idle(_)), "WHIP does not play");
    let lines = plan(&offer, Role::Player, &[Fec::FlexFec]).unwrap();
    assert!(matches!(lines[0], Wanted::Idle(_)), "WHEP does not publish");
    assert!(matches!(lines[3], Wanted::Slot(_)));
    let both = CHROMIUM_PUBLISH.replace("a=sendonly", "a=sendrecv");
    let offer = Offer::parse(&both).unwrap();
    assert!(matches!(plan(&offer, Role::Player, &[Fec::FlexFec]).unwrap()[1], Wanted::Slot(_)));
    assert!(matches!(
        plan(&offer, Role::Conference, &[Fec::FlexFec]).unwrap()[1],
        Wanted::Publication(_)
    ));
}

#[test]
fn answers_are_what_the_rfcs_want() {
    for text in ALL {
        let offer = Offer::parse(text).unwrap();
        let text = answer(&offer, Role::Conference);
        let parsed = sdp_types::Session::parse(text.as_bytes()).unwrap();
        assert_eq!(parsed.medias.len(), offer.medias.len(), "one m-line for each, in order");
        assert!(parsed.has_attribute("ice-lite"));
        let group = parsed.get_first_attribute_value("group").unwrap().unwrap();
        let mut bundled = group.strip_prefix("BUNDLE ").unwrap().split(' ');
        for (offered, answered) in offer.medias.iter().zip(&parsed.medias) {
            assert_eq!(offered.media, answered.media);
            assert_eq!(offered.protocol, answered.proto);
            let value = |name: &'static str| answered.get_first_attribute_value(name).unwrap();
            assert_eq!(value("mid"), Some(offered.mid.as_str()));
            assert_ne!(offered.kind, MediaKind::Other);
            assert_eq!(answered.port, 9);
            assert_eq!(bundled.next(), Some(offered.mid.as_str()));
            assert_eq!(value("setup"), Some("passive"));
            assert_eq!(value("ice-ufrag"), Some("ufra"));
            if offered.kind == MediaKind::Data {
                // RFC 8841 section 5.
                assert_eq!(answered.fmt, "webrtc-datachannel");
                assert_eq!(value("sctp-port"), Some("5000"));
                assert_eq!(value("max-message-size"), Some("66560"));
                assert!(!answered.has_attribute("rtcp-mux"), "it has no RTCP");
                continue;
            }
            assert!(answered.has_attribute("rtcp-mux"));
            for format in answered.fmt.split(' ') {
                let is_offered = offered.formats.split(' ').any(|offered| offered == format);
                assert!(is_offered, "payload type {format} was not offered");
                let mut maps = answered.get_attribute_values("rtpmap");
                let maps_it = maps.any(|map| map.unwrap().starts_with(&format!("{format} ")));
                assert!(maps_it, "payload type {format} has no rtpmap");
            }
        }
        assert_eq!(bundled.next(), None);
        assert_eq!(text.matches("a=candidate:").count(), 1, "on the first m-line alone");
        assert_eq!(text.matches("a=end-of-candidates").count(), 1);
    }
}

#[test]
fn an_extension_of_one_direction_is_mirrored() {
    // Firefox offers the playout delay as receive-only.
    let offer = Offer::parse(FIREFOX_CONFERENCE).unwrap();
    let text = answer(&offer, Role::Conference);
    let lines = format!("a=extmap:6/sendonly {}", extension::PLAYOUT_DELAY);
    assert_eq!(text.matches(&lines).count(), 1, "the video slot has it, the camera has not");
}

#[test]
fn a_passive_peer_meets_an_active_relay() {
    let text = CHROMIUM_PUBLISH.replace("a=setup:actpass", "a=setup:passive");
    let offer = Offer::parse(&text).unwrap();
    assert!(answer(&offer, Role::Conference).contains("a=setup:active"));
}

#[test]
fn what_cannot_work_is_refused_with_words() {
    let without = |name: &str| {
        let lines = CHROMIUM_PUBLISH.lines().filter(|line| !line.starts_with(name));
        lines.map(|line| format!("{line}\r\n")).collect::<String>()
    };
    for (text, class, word) in [
        ("hello".to_owned(), Class::Malformed, "no SDP"),
        (String::new(), Class::Malformed, "no SDP"),
        (
            "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n".into(),
            Class::NotAcceptable,
            "m-line",
        ),
        (without("a=fingerprint"), Class::NotAcceptable, "fingerprint"),
        (without("a=ice-ufrag"), Class::NotAcceptable, "ice-ufrag"),
        (without("a=ice-pwd"), Class::NotAcceptable, "ice-pwd"),
        (without("a=group"), Class::NotAcceptable, "BUNDLE"),
        (CHROMIUM_PUBLISH.replace(" 9 UDP", " 0 UDP"), Class::NotAcceptable, "port 0"),
        (CHROMIUM_PUBLISH.replace("a=mid:1", "a=mid:0"), Class::Malformed, "two m-lines"),
        (
            CHROMIUM_PUBLISH.replace("t=0 0", "t=0 0\r\na=ice-lite"),
            Class::NotAcceptable,
            "ice-lite",
        ),
        ("x".repeat(300 << 10), Class::TooLarge, "larger"),
    ] {
        let fault = Offer::parse(&text).unwrap_err();
        assert_eq!(fault.class, class, "{fault}");
        assert!(fault.reason.contains(word), "{fault}");
    }
}

#[test]
fn plan_b_is_refused() {
    let two_tracks = "a=ssrc:1 msid:s a\r\na=ssrc:2 msid:s b\r\nm=video";
    let text = CHROMIUM_PUBLISH.replacen("m=video", two_tracks, 1);
    let fault = Offer::parse(&text).unwrap_err();
    assert!(fault.reason.contains("plan B"), "{fault}");
}

#[test]
fn no_codec_in_common_is_refused() {
    let text = CHROMIUM_SIMULCAST.replace("/90000", "/90001");
    let fault = plan(&Offer::parse(&text).unwrap(), Role::Conference, &[Fec::FlexFec]).unwrap_err();
    assert_eq!(fault.class, Class::UnsupportedCodec);
    assert!(fault.reason.contains("no codec in common"), "{fault}");
}

#[test]
fn parameters_agreed_once_stand_when_the_offer_is_reordered() {
    let offer = Offer::parse(CHROMIUM_PLAY).unwrap();
    let Wanted::Slot(leg) = &plan(&offer, Role::Player, &[Fec::FlexFec]).unwrap()[1] else {
        panic!()
    };
    assert!(leg.holds_in(&offer.medias[1]));
    let mut media = offer.medias[1].clone();
    media.codecs.reverse();
    media.extensions.reverse();
    assert!(leg.holds_in(&media));
    media.codecs.truncate(1);
    assert!(!leg.holds_in(&media));
}

proptest! {
    #[test]
    fn no_text_breaks_the_parser(text in ".{0,2000}") {
        strait_control::fuzz::sdp(text.as_bytes());
        strait_control::fuzz::sdpfrag(text.as_bytes());
        strait_control::fuzz::jsonrtc(text.as_bytes());
        strait_control::fuzz::token(text.as_bytes());
    }

    /// Real offers with lines dropped, doubled, cut and swapped: parsed or refused, and what is
    /// parsed is answered with as many m-lines.
    #[test]
    fn mangled_offers_are_parsed_or_refused(
        which in 0..ALL.len(),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), 0u8..4), 0..12),
    ) {
        let mut lines: Vec<String> = ALL[which].lines().map(str::to_owned).collect();
        for (place, edit) in edits {
            let index = place.index(lines.len());
            match edit {
                0 => drop(lines.remove(index)),
                1 => lines.insert(index, lines[index].clone()),
                2 => { let half = lines[index].len() / 2; lines[index].truncate(half) }
                _ => { let last = lines.len() - 1; lines.swap(index, last) }
            }
            if lines.is_empty() { break }
        }
        let text = lines.join("\r\n") + "\r\n";
        if let Ok(offer) = Offer::parse(&text)
            && plan(&offer, Role::Conference, &[Fec::FlexFec]).is_ok()
        {
            let answer = answer(&offer, Role::Conference);
            let answered = answer.lines().filter(|line| line.starts_with("m=")).count();
            prop_assert_eq!(answered, offer.medias.len());
        }
    }
}

#[test]
fn feedback_by_the_streams_own_numbers_is_agreed_where_there_is_none_by_transport_wide_ones() {
    const CCFB: &str = "a=rtcp-fb:* ack ccfb\r\n";
    let has = |leg: &Leg, name: &str| {
        leg.codecs.iter().all(|codec| codec.feedback.iter().any(|feedback| feedback == name))
    };
    let with = |offer: &str| {
        // RFC 8888 section 6: for all payload types of an m-line.
        let offer = offer.replace("\r\n", "\n").replace('\n', "\r\n");
        offer.replace("a=rtcp-mux\r\n", &format!("a=rtcp-mux\r\n{CCFB}"))
    };
    // Browsers that try it offer both: one kind is enough.
    let both = Offer::parse(&with(CHROMIUM_PUBLISH)).unwrap();
    let lines = plan(&both, Role::Conference, &[Fec::FlexFec]).unwrap();
    let Wanted::Publication(video) = &lines[1] else { panic!("{lines:?}") };
    assert!(has(video, "transport-cc") && !has(video, "ack ccfb"));
    assert!(!answer(&both, Role::Conference).contains("ccfb"));

    let alone: String = with(CHROMIUM_PUBLISH)
        .split_inclusive("\r\n")
        .filter(|line| !line.contains("transport-cc") && !line.contains("transport-wide-cc"))
        .collect();
    let offer = Offer::parse(&alone).unwrap();
    let lines = plan(&offer, Role::Conference, &[Fec::FlexFec]).unwrap();
    for line in &lines {
        let Wanted::Publication(leg) = line else { panic!("{lines:?}") };
        assert!(has(leg, "ack ccfb") && !has(leg, "transport-cc"));
        assert!(leg.reduced_size, "offered, and so agreed");
        let relayed = strait_control::relay::codecs(&leg.codecs, leg.reduced_size);
        assert!(relayed.iter().all(|codec| codec.feedback.contains(&"rtcp-rsize".to_owned())));
        let relayed = strait_control::relay::codecs(&leg.codecs, false);
        assert!(!relayed.iter().any(|codec| codec.feedback.contains(&"rtcp-rsize".to_owned())));
    }
    let text = answer(&offer, Role::Conference);
    assert_eq!(text.matches("ccfb").count(), 2, "once for each m-line: {text}");
    assert_eq!(text.matches(CCFB).count(), 2, "{text}");
}

/// Offers of clients that are no browsers, by their shape: transport at session level or on the
/// m-line, no extensions, no SSRC, no BUNDLE with a single m-line, line feeds alone.
#[test]
fn offers_of_other_clients_are_understood() {
    const TRANSPORT: &str = "a=setup:actpass\na=ice-ufrag:abcd\na=ice-pwd:0123456789abcdefghijkl\n\
        a=ice-options:ice2,trickle\na=fingerprint:SHA-256 \
        00:11:22:33:44:55:66:77:88:99:aa:bb:cc:dd:ee:ff:00:11:22:33:44:55:66:77:88:99:aa:bb:cc:dd:ee:ff\n";
    const HEAD: &str = "v=0\no=- 1 0 IN IP4 0.0.0.0\ns=-\nt=0 0\n";
    const VIDEO: &str = "m=video 9 UDP/TLS/RTP/SAVPF 96 97\nc=IN IP4 0.0.0.0\na=sendonly\n\
        a=rtcp-mux\na=rtcp-rsize\na=rtpmap:96 h264/90000\na=rtcp-fb:* nack pli\n\
        a=fmtp:96 profile-level-id=42e01f;packetization-mode=1\na=rtpmap:97 RTX/90000\n\
        a=fmtp:97 apt=96\na=candidate:1 1 UDP 2015363327 192.0.2.1 5000 typ host\n";
    const AUDIO: &str = "m=audio 9 UDP/TLS/RTP/SAVPF 111\na=mid:audio0\na=sendonly\na=rtcp-mux\n\
        a=rtpmap:111 OPUS/48000/2\na=ssrc:5 msid:s t\na=ssrc:5 cname:c\n";
    let both = |session: &str, media: &str| {
        let bundle = "a=group:BUNDLE video0 audio0\na=msid-semantic:WMS *\n";
        format!("{HEAD}{bundle}{session}{VIDEO}a=mid:video0\n{media}{AUDIO}{media}")
    };
    for text in [
        both(TRANSPORT, ""),
        both("", TRANSPORT),
        format!("{HEAD}{TRANSPORT}{VIDEO}a=mid:video0\n"),
        format!("{HEAD}{VIDEO}{TRANSPORT}"),
    ] {
        for text in [text.clone(), text.replace('\n', "\r\n")] {
            let offer = Offer::parse(&text).unwrap();
            let wanted = plan(&offer, Role::Publisher, &[Fec::FlexFec]).unwrap();
            assert!(wanted.iter().all(|w| matches!(w, Wanted::Publication(_))), "{text}");
            let Wanted::Publication(leg) = &wanted[0] else { unreachable!() };
            assert_eq!(leg.codecs[0].rtx, Some(97));
            assert_eq!(leg.codecs[0].feedback, ["nack pli"]);
            assert_eq!(offer.setup, Setup::ActPass);
            let answer = answer(&offer, Role::Publisher);
            assert_eq!(answer.matches("a=recvonly").count(), wanted.len(), "{answer}");
            // What was not offered is not answered (RFC 5888 section 9.1).
            assert_eq!(answer.contains("a=mid:"), text.contains("a=mid:"), "{answer}");
        }
    }
}

/// The names of a publication's codecs, of the second m-line of an offer.
fn published(text: &str, fec: &[Fec]) -> (Vec<String>, Leg) {
    let offer = Offer::parse(text).unwrap();
    let Wanted::Publication(leg) = &plan(&offer, Role::Publisher, fec).unwrap()[1] else {
        panic!()
    };
    (leg.codecs.iter().map(|codec| codec.name.clone()).collect(), leg.clone())
}

#[test]
fn forward_error_correction_is_agreed_where_it_is_offered_and_wanted() {
    let both = [Fec::UlpFec, Fec::FlexFec];
    // As browsers offer it without a field trial: ULPFEC alone.
    assert_eq!(published(CHROMIUM_PUBLISH, &[Fec::FlexFec]).0, ["VP8"]);
    assert_eq!(published(CHROMIUM_PUBLISH, &[]).0, ["VP8"]);
    for text in [CHROMIUM_PUBLISH, FIREFOX_PUBLISH] {
        let (mut names, leg) = published(text, &both);
        names[1..].sort_unstable();
        assert_eq!(names, ["VP8", "red", "ulpfec"]);
        let red = leg.codecs.iter().find(|codec| codec.name == "red").unwrap();
        assert_eq!(red.rtx.is_some(), text.contains(&format!("apt={}", red.payload_type)));
        let text = answer_with(&Offer::parse(text).unwrap(), Role::Publisher, &both);
        assert!(text.contains(&format!("a=rtpmap:{} red/90000\r\n", red.payload_type)));
    }
    // H.264 has no picture ids.
    let h264 = CHROMIUM_PUBLISH.replace("VP8/90000", "H264/90000");
    assert_eq!(published(&h264, &both).0, ["H264"]);

    // And with it.
    let flexfec = "a=rtpmap:35 flexfec-03/90000\r\na=rtcp-fb:35 transport-cc\r\n\
                   a=fmtp:35 repair-window=10000000\r\na=ssrc-group:FEC-FR 3705800369 77\r\n\
                   a=ssrc:77 cname:5lo4WVBGHFPvVESP\r\na=rtpmap:120 ulpfec/90000";
    let text = CHROMIUM_PUBLISH.replace("a=rtpmap:120 ulpfec/90000", flexfec);
    let text = text.replace("118 119 120", "118 119 120 35");
    assert_ne!(text, CHROMIUM_PUBLISH);
    for fec in [&both[..], &[Fec::FlexFec]] {
        let (names, leg) = published(&text, fec);
        assert_eq!(names, ["VP8", "flexfec-03"]);
        assert_eq!(leg.encodings.len(), 1, "one encoding, with parity beside it");
        assert_eq!((leg.encodings[0].ssrc, leg.encodings[0].rtx_ssrc), (3705800369, 2471144057));
    }
    assert_eq!(published(&text, &[]).0, ["VP8"]);
    let answer = answer(&Offer::parse(&text).unwrap(), Role::Publisher);
    assert!(answer.contains("a=rtpmap:35 flexfec-03/90000\r\na=rtcp-fb:35 transport-cc\r\n"));
    assert!(answer.contains("a=fmtp:35 repair-window=10000000\r\n"), "{answer}");
    // Without retransmissions the SSRC of the parity is no encoding either.
    let alone = text.replace("a=ssrc-group:FID", "a=x-group:FID");
    assert_eq!(published(&alone, &both).1.encodings[0].ssrc, 3705800369);
    // A slot takes none: parity of the publisher's numbers is of no use there.
    let offer = Offer::parse(CHROMIUM_PLAY).unwrap();
    for wanted in plan(&offer, Role::Player, &both).unwrap() {
        let Wanted::Slot(leg) = wanted else { panic!() };
        assert!(leg.codecs.iter().all(|codec| codec.fec().is_none()));
    }
}

#[test]
fn data_channels_are_taken_where_they_are_offered() {
    let offer = Offer::parse(CHROMIUM_CONFERENCE).unwrap();
    let said = |text: &str| {
        let offer = Offer::parse(text).unwrap();
        offer.medias.iter().find_map(|media| media.channels).map(|each| each.message_bytes_max)
    };
    let line = "a=max-message-size:262144\r\n";
    assert_eq!(said(CHROMIUM_CONFERENCE), Some(262_144));
    assert_eq!(said(&CHROMIUM_CONFERENCE.replace(line, "")), Some(0), "not said");
    let any = CHROMIUM_CONFERENCE.replace(line, "a=max-message-size:0\r\n");
    assert_eq!(said(&any), Some(u32::MAX));
    let huge = CHROMIUM_CONFERENCE.replace("262144", "99999999999");
    assert_eq!(said(&huge), Some(u32::MAX));

    // For WHIP and WHEP as well; what is another protocol, or not in use, is refused.
    let is_taken = |text: &str, role| {
        let lines = plan(&Offer::parse(text).unwrap(), role, &[]).unwrap();
        matches!(lines.last(), Some(Wanted::Channels))
    };
    for role in [Role::Conference, Role::Publisher, Role::Player] {
        assert!(is_taken(CHROMIUM_CONFERENCE, role));
    }
    let format = "UDP/DTLS/SCTP webrtc-datachannel";
    for other in ["DTLS/SCTP 5000", "UDP/DTLS/SCTP something", "UDP/TLS/RTP/SAVPF 0"] {
        assert!(
            !is_taken(&CHROMIUM_CONFERENCE.replace(format, other), Role::Conference),
            "{other}"
        );
    }
    let unused = CHROMIUM_CONFERENCE.replace("m=application 9", "m=application 0");
    assert!(!is_taken(&unused, Role::Conference));
    assert_eq!(offer.medias.last().unwrap().kind, MediaKind::Data);
}
