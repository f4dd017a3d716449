//! Our SRTP against libsrtp, both ways, for every profile: what one protects the other opens, byte for byte.
//!
//! libsrtp here is the distribution's, reached through the `srtp` crate.

use srtp2::{CryptoPolicy, Session, StreamPolicy};
use strait_crypt::srtp::{Error, Inbound, Outbound, Profile, RTCP_OVERHEAD_MAX, TAG_MAX};

/// libsrtp's numbers for the ciphers (`srtp.h`).
const SRTP_AES_GCM_128: u32 = 6;
const SRTP_AES_GCM_256: u32 = 7;

fn policy(profile: Profile) -> (CryptoPolicy, CryptoPolicy) {
    let gcm = |cipher: u32, key_len| {
        let mut raw = CryptoPolicy::aes_cm_128_hmac_sha1_80().into_raw();
        raw.cipher_type = cipher;
        raw.cipher_key_len = key_len;
        raw.auth_type = 0;
        raw.auth_key_len = 0;
        raw.auth_tag_len = 16;
        // SAFETY: the numbers are those of srtp_crypto_policy_set_aes_gcm_*_16_auth, which the crate offers only
        // together with a second OpenSSL; libsrtp checks them when it makes a session.
        unsafe { CryptoPolicy::from_raw(raw) }
    };
    match profile {
        Profile::AesCm128HmacSha1_80 => {
            (CryptoPolicy::aes_cm_128_hmac_sha1_80(), CryptoPolicy::aes_cm_128_hmac_sha1_80())
        }
        Profile::AesCm128HmacSha1_32 => {
            (CryptoPolicy::aes_cm_128_hmac_sha1_32(), CryptoPolicy::aes_cm_128_hmac_sha1_80())
        }
        Profile::AeadAes128Gcm => (gcm(SRTP_AES_GCM_128, 28), gcm(SRTP_AES_GCM_128, 28)),
        Profile::AeadAes256Gcm => (gcm(SRTP_AES_GCM_256, 44), gcm(SRTP_AES_GCM_256, 44)),
    }
}

struct Pairs {
    ours_out: Outbound,
    ours_in: Inbound,
    theirs_out: Session,
    theirs_in: Session,
}

fn pairs(profile: Profile) -> Pairs {
    srtp2::ensure_init();
    let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ profile.key_len() as u64);
    let key = random.bytes(profile.key_len());
    let salt = random.bytes(profile.salt_len());
    let master = [key.clone(), salt.clone()].concat();
    let (rtp, rtcp) = policy(profile);
    let stream = StreamPolicy { rtp, rtcp, key: &master, window_size: 512, ..Default::default() };
    Pairs {
        ours_out: Outbound::new(profile, &key, &salt).unwrap(),
        ours_in: Inbound::new(profile, &key, &salt).unwrap(),
        theirs_out: Session::with_outbound_template(stream).unwrap(),
        theirs_in: Session::with_inbound_template(stream).unwrap(),
    }
}

/// xorshift64*: the shapes of the packets, the same in each run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: u64) -> usize {
        (self.next() >> 16) as usize % end as usize
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| (self.next() >> 32) as u8).collect()
    }

    /// An RTP packet with any number of CSRCs, extension words and payload bytes.
    fn rtp(&mut self, ssrc: u32, seq: u16) -> Vec<u8> {
        let csrcs = self.below(16);
        let extension = self.below(2) == 1;
        let mut packet = vec![0x80 | csrcs as u8 | if extension { 0x10 } else { 0 }, 0x60];
        packet.extend(seq.to_be_bytes());
        packet.extend(self.bytes(4));
        packet.extend(ssrc.to_be_bytes());
        packet.extend(self.bytes(4 * csrcs));
        if extension {
            let words = self.below(6);
            packet.extend([0xbe, 0xde, 0, words as u8]);
            packet.extend(self.bytes(4 * words));
        }
        let payload = self.below(1300);
        packet.extend(self.bytes(payload));
        packet
    }

    /// A receiver report with any number of words.
    fn rtcp(&mut self, ssrc: u32) -> Vec<u8> {
        let words = self.below(200);
        let mut packet = vec![0x80, 201];
        packet.extend((words as u16 + 1).to_be_bytes());
        packet.extend(ssrc.to_be_bytes());
        packet.extend(self.bytes(4 * words));
        packet
    }
}

impl Pairs {
    fn ours(&mut self, packet: &[u8]) -> Vec<u8> {
        let mut buffer = packet.to_vec();
        buffer.resize(packet.len() + TAG_MAX, 0);
        let len = self.ours_out.protect_rtp(&mut buffer, packet.len()).unwrap();
        buffer.truncate(len);
        buffer
    }

    fn ours_rtcp(&mut self, packet: &[u8]) -> Vec<u8> {
        let mut buffer = packet.to_vec();
        buffer.resize(packet.len() + RTCP_OVERHEAD_MAX, 0);
        let len = self.ours_out.protect_rtcp(&mut buffer, packet.len()).unwrap();
        buffer.truncate(len);
        buffer
    }

    fn open(&mut self, sealed: &[u8]) -> Result<Vec<u8>, Error> {
        let mut buffer = sealed.to_vec();
        let len = self.ours_in.unprotect_rtp(&mut buffer)?;
        buffer.truncate(len);
        Ok(buffer)
    }

    fn open_rtcp(&mut self, sealed: &[u8]) -> Result<Vec<u8>, Error> {
        let mut buffer = sealed.to_vec();
        let len = self.ours_in.unprotect_rtcp(&mut buffer)?;
        buffer.truncate(len);
        Ok(buffer)
    }
}

#[test]
fn rtp_over_three_rounds_of_sequence_numbers() {
    for profile in Profile::ALL {
        let mut pairs = pairs(profile);
        let mut random = Random(profile.rtp_overhead() as u64 + 1);
        let mut index = 20_000u64;
        while index < 3 * 65_536 {
            for ssrc in [1, 0xdead_beef] {
                let packet = random.rtp(ssrc, index as u16);
                let mut theirs = packet.clone();
                pairs.theirs_out.protect(&mut theirs).unwrap();
                let ours = pairs.ours(&packet);
                assert_eq!(ours, theirs, "{profile:?} index {index}");

                assert_eq!(pairs.open(&theirs).as_ref(), Ok(&packet), "{profile:?} index {index}");
                let mut opened = ours.clone();
                pairs.theirs_in.unprotect(&mut opened).unwrap();
                assert_eq!(opened, packet);

                assert_eq!(pairs.open(&theirs), Err(Error::Replayed));
                assert!(pairs.theirs_in.unprotect(&mut ours.clone()).is_err());
            }
            index += 1 + random.below(400) as u64;
        }
    }
}

#[test]
fn rtp_with_loss_and_reordering_around_the_wrap() {
    for profile in Profile::ALL {
        let mut pairs = pairs(profile);
        let mut random = Random(77);
        let mut packets: Vec<_> = (65_400u64..65_700)
            .map(|index| {
                let packet = random.rtp(9, index as u16);
                let sealed = pairs.ours(&packet);
                (packet, sealed)
            })
            .collect();
        // Each moves by up to 40 places, a tenth is lost, a tenth comes twice.
        for at in 0..packets.len() {
            let other = (at + random.below(40)).min(packets.len() - 1);
            packets.swap(at, other);
        }
        for (packet, sealed) in packets {
            let fate = random.below(10);
            if fate == 0 {
                continue;
            }
            for _ in 0..if fate == 1 { 2 } else { 1 } {
                let ours = pairs.open(&sealed);
                let mut theirs = sealed.clone();
                let verdict = pairs.theirs_in.unprotect(&mut theirs);
                assert_eq!(ours.is_ok(), verdict.is_ok(), "{ours:?} {verdict:?}");
                if let Ok(opened) = ours {
                    assert_eq!((&opened, &theirs), (&packet, &packet));
                }
            }
        }
    }
}

#[test]
fn rtcp_both_ways() {
    for profile in Profile::ALL {
        let mut pairs = pairs(profile);
        let mut random = Random(3);
        // libsrtp counts from 1, we from 0 (RFC 3711 section 3.2.1): once they are level the bytes are the same.
        pairs.ours_rtcp(&random.rtcp(1));
        for _ in 0..300 {
            let packet = random.rtcp(1);
            let mut theirs = packet.clone();
            pairs.theirs_out.protect_rtcp(&mut theirs).unwrap();
            let ours = pairs.ours_rtcp(&packet);
            assert_eq!(ours, theirs, "{profile:?}");

            assert_eq!(pairs.open_rtcp(&theirs).as_ref(), Ok(&packet));
            let mut opened = ours.clone();
            pairs.theirs_in.unprotect_rtcp(&mut opened).unwrap();
            assert_eq!(opened, packet);

            assert_eq!(pairs.open_rtcp(&theirs), Err(Error::Replayed));
            assert!(pairs.theirs_in.unprotect_rtcp(&mut ours.clone()).is_err());
        }
    }
}

#[test]
fn what_was_changed_is_refused_by_both() {
    for profile in Profile::ALL {
        let mut pairs = pairs(profile);
        let mut random = Random(11);
        for seq in 0..200 {
            let mut sealed = pairs.ours(&random.rtp(5, seq));
            let bit = random.below(8 * sealed.len() as u64);
            sealed[bit / 8] ^= 1 << (bit % 8);
            assert!(pairs.open(&sealed).is_err());
            assert!(pairs.theirs_in.unprotect(&mut sealed).is_err());
        }
    }
}
