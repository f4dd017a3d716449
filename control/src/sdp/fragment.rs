//! SDP fragments of trickle ICE over HTTP (RFC 8840, `application/trickle-ice-sdpfrag`).

use std::fmt::Write;

use super::IceCredentials;
use crate::fault::Fault;
use crate::limits;

/// What a fragment says. Candidates are counted only: a relay with ICE-lite learns addresses from
/// the checks that arrive, never from what a client claims (RFC 8445 section 7.3.1.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fragment {
    /// Credentials that the candidates belong to, when the fragment names them.
    pub ice: Option<IceCredentials>,
    /// Candidates in it.
    pub candidates: usize,
    /// `a=end-of-candidates`.
    pub is_end: bool,
}

impl Fragment {
    /// Reads a fragment.
    ///
    /// # Errors
    /// [`crate::fault::Class::TooLarge`], [`crate::fault::Class::Malformed`].
    pub fn parse(text: &str) -> Result<Self, Fault> {
        if text.len() > limits::FRAGMENT_BYTES {
            return Err(Fault::too_large(format!(
                "the fragment is larger than {} KiB; send fewer candidates at a time",
                limits::FRAGMENT_BYTES >> 10
            )));
        }
        let (mut ufrag, mut pwd, mut candidates, mut is_end) = (None, None, 0, false);
        for line in text.lines().map(str::trim_end).filter(|line| !line.is_empty()) {
            let Some((kind, rest)) = line.split_once('=').filter(|(kind, _)| kind.len() == 1)
            else {
                return Err(Fault::malformed(format!(
                    "the fragment has a line that is no SDP: {:?}",
                    line.chars().take(40).collect::<String>()
                )));
            };
            match (kind, rest.split_once(':').map_or((rest, ""), |(name, value)| (name, value))) {
                ("a", ("ice-ufrag", value)) => ufrag = ufrag.or(Some(value.trim())),
                ("a", ("ice-pwd", value)) => pwd = pwd.or(Some(value.trim())),
                ("a", ("candidate", _)) => candidates += 1,
                ("a", ("end-of-candidates", _)) => is_end = true,
                _ => {}
            }
        }
        let ice = match (ufrag, pwd) {
            (None, None) => None,
            (Some(ufrag), Some(pwd)) => Some(IceCredentials::new(ufrag, pwd).ok_or_else(|| {
                Fault::malformed(
                    "the fragment's ICE credentials are too short or hold other characters than \
                     RFC 8839 allows",
                )
            })?),
            _ => {
                return Err(Fault::malformed(
                    "the fragment has one of a=ice-ufrag and a=ice-pwd; send both or none",
                ));
            }
        };
        if ice.is_none() && candidates == 0 && !is_end {
            return Err(Fault::malformed(
                "the fragment has no candidate and no credentials; send what \
                 RFC 9725 section 4.3 shows",
            ));
        }
        Ok(Self { ice, candidates, is_end })
    }

    /// The answer to an ICE restart: our new credentials and all candidates.
    pub fn write(ice: &IceCredentials, mid: &str, candidates: &[String]) -> String {
        let mut text =
            format!("a=ice-lite\r\na=ice-ufrag:{}\r\na=ice-pwd:{}\r\n", ice.ufrag, ice.pwd);
        let _ = write!(text, "m=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:{mid}\r\n");
        for candidate in candidates {
            let _ = write!(text, "a=candidate:{candidate}\r\n");
        }
        text.push_str("a=end-of-candidates\r\n");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fragment_is_read() {
        let text = "a=group:BUNDLE 0 1\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\n\
                    a=ice-ufrag:EsAw\r\na=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\n\
                    a=candidate:1387637174 1 udp 2122260223 192.0.2.1 61764 typ host\r\n\
                    a=end-of-candidates\r\n";
        let fragment = Fragment::parse(text).unwrap();
        assert_eq!(fragment.ice.as_ref().unwrap().ufrag, "EsAw");
        assert_eq!(fragment.candidates, 1);
        assert!(fragment.is_end);
        let ours =
            Fragment::write(fragment.ice.as_ref().unwrap(), "0", &["1 1 udp 1 ::1 1".into()]);
        assert_eq!(Fragment::parse(&ours).unwrap(), fragment);
    }

    #[test]
    fn bad_fragments_are_refused() {
        for text in ["", "hello", "a=ice-ufrag:abcd\r\n", "a=ice-ufrag:a\r\na=ice-pwd:b\r\n", "\0"]
        {
            assert!(Fragment::parse(text).is_err(), "{text:?}");
        }
        assert!(Fragment::parse(&"a=candidate:x\r\n".repeat(5000)).is_err());
    }
}
