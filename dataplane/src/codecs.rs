//! By what two legs' codecs are the same, though their payload types and incidental parameters differ.

use std::collections::HashMap;
use std::hash::BuildHasher;
use strait_core::command::CodecKind;

/// What the payload is, as far as the path looks into it.
#[must_use]
pub fn kind(name: &str) -> CodecKind {
    match name.to_ascii_lowercase().as_str() {
        "opus" => CodecKind::Opus,
        "vp8" => CodecKind::Vp8,
        "vp9" => CodecKind::Vp9,
        "h264" => CodecKind::H264,
        "h265" => CodecKind::H265,
        "av1" => CodecKind::Av1,
        _ => CodecKind::Other,
    }
}

/// `name/clock/channels` in lower case, and the parameters without which a decoder could not take the stream.
/// Levels are not among them: a publisher sends what it likes below its maximum.
#[must_use]
pub fn identity<S: BuildHasher>(
    name: &str,
    clock_rate_hz: u32,
    channels: u32,
    parameters: &HashMap<String, String, S>,
) -> String {
    let get = |key: &str, default: &'static str| {
        let found = parameters.iter().find(|(name, _)| name.eq_ignore_ascii_case(key));
        found.map_or_else(|| default.to_owned(), |(_, value)| value.trim().to_ascii_lowercase())
    };
    let matters = match kind(name) {
        // RFC 6184 section 8.1: without profile-level-id it is the baseline profile at level 1.
        CodecKind::H264 => format!(
            ";profile={};packetization-mode={}",
            h264_profile(&get("profile-level-id", "42000a")),
            get("packetization-mode", "0"),
        ),
        // RFC 9628 section 6.1.
        CodecKind::Vp9 => format!(";profile-id={}", get("profile-id", "0")),
        // AV1 RTP specification section 7.2.1.
        CodecKind::Av1 => format!(";profile={}", get("profile", "0")),
        // RFC 7798 section 7.1.
        CodecKind::H265 => {
            format!(";profile-id={};tier-flag={}", get("profile-id", "1"), get("tier-flag", "0"))
        }
        CodecKind::Opus | CodecKind::Vp8 | CodecKind::Other => String::new(),
    };
    format!("{}/{clock_rate_hz}/{}{matters}", name.to_ascii_lowercase(), channels.max(1))
}

/// The profile that a profile-level-id names (RFC 6184 table 5): different constraint bits can name the same one.
fn h264_profile(profile_level_id: &str) -> String {
    let parsed = u32::from_str_radix(profile_level_id, 16).ok();
    let Some(id) = parsed.filter(|_| profile_level_id.len() == 6) else {
        return profile_level_id.to_owned();
    };
    let (idc, constraints) = ((id >> 16) as u8, (id >> 8) as u8);
    let profile = match (idc, constraints) {
        (0x42, c) if c & 0x40 != 0 => "constrained-baseline",
        (0x4d, c) if c & 0x80 != 0 => "constrained-baseline",
        (0x58, c) if c & 0xc0 == 0xc0 => "constrained-baseline",
        (0x42, _) => "baseline",
        (0x58, c) if c & 0xc0 == 0x80 => "baseline",
        (0x4d, _) => "main",
        (0x58, _) => "extended",
        (0x64, 0x0c) => "constrained-high",
        (0x64, _) => "high",
        _ => return format!("{idc:02x}{constraints:02x}"),
    };
    profile.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, clock: u32, channels: u32, parameters: &[(&str, &str)]) -> String {
        let parameters: HashMap<_, _> =
            parameters.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect();
        identity(name, clock, channels, &parameters)
    }

    #[test]
    fn case_and_incidental_parameters_do_not_matter() {
        assert_eq!(of("VP8", 90_000, 0, &[]), of("vp8", 90_000, 1, &[("max-fs", "3600")]));
        let opus = [("useinbandfec", "1"), ("minptime", "10")];
        assert_eq!(of("opus", 48_000, 2, &opus), "opus/48000/2");
        assert_ne!(of("opus", 48_000, 2, &[]), of("opus", 48_000, 1, &[]));
    }

    #[test]
    fn h264_is_the_same_by_profile_and_packetization_not_by_level() {
        let h264 = |id, mode| {
            of("H264", 90_000, 0, &[("profile-level-id", id), ("packetization-mode", mode)])
        };
        assert_eq!(h264("42e01f", "1"), h264("42E034", "1"), "level");
        assert_eq!(h264("42e01f", "1"), h264("4d801f", "1"), "both are constrained baseline");
        assert_ne!(h264("42e01f", "1"), h264("42001f", "1"), "baseline");
        assert_ne!(h264("42e01f", "1"), h264("42e01f", "0"), "packetization");
        assert_ne!(h264("64001f", "1"), h264("640c1f", "1"), "constrained high");
        assert_eq!(of("h264", 90_000, 0, &[]), h264("42000a", "0"), "defaults");
        assert!(h264("nonsense", "1").contains("nonsense"));
    }

    #[test]
    fn forward_error_correction_is_known_by_its_name() {
        // As core has them.
        let window = [("repair-window", "10000000")];
        assert_eq!(of("flexfec-03", 90_000, 1, &window), "flexfec-03/90000/1");
        assert_eq!(of("ulpfec", 90_000, 0, &[]), "ulpfec/90000/1");
        assert_eq!(of("red", 90_000, 0, &[]), "red/90000/1");
    }

    #[test]
    fn other_video_is_the_same_by_profile() {
        assert_eq!(of("VP9", 90_000, 0, &[]), of("VP9", 90_000, 0, &[("profile-id", "0")]));
        assert_ne!(of("VP9", 90_000, 0, &[]), of("VP9", 90_000, 0, &[("profile-id", "2")]));
        assert_ne!(of("AV1", 90_000, 0, &[]), of("AV1", 90_000, 0, &[("profile", "1")]));
        let tier = [("tier-flag", "1"), ("level-id", "93")];
        assert_ne!(of("H265", 90_000, 0, &[]), of("H265", 90_000, 0, &tier));
    }
}
