//! RTCP as the peers need it: RFC 3550 section 6, RFC 4585, RFC 5104, REMB and transport-wide feedback.

use super::Reader;

/// One packet of a compound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    /// Sender report.
    SenderReport {
        /// Of whom.
        ssrc: u32,
        /// NTP time, 32.32.
        ntp: u64,
        /// The same instant on the stream's clock.
        rtp: u32,
        /// Packets sent.
        packets: u32,
        /// Payload bytes sent.
        octets: u32,
        /// What is received.
        blocks: Vec<Block>,
    },
    /// Receiver report.
    ReceiverReport {
        /// From whom.
        ssrc: u32,
        /// What is received.
        blocks: Vec<Block>,
    },
    /// Source description: canonical names by SSRC.
    Names(Vec<(u32, String)>),
    /// These streams end.
    Bye(Vec<u32>),
    /// Generic negative acknowledgement.
    Nack {
        /// From whom.
        sender: u32,
        /// Of which stream.
        media: u32,
        /// What is missing.
        seqs: Vec<u16>,
    },
    /// Picture loss indication.
    Pli {
        /// From whom.
        sender: u32,
        /// Of which stream.
        media: u32,
    },
    /// Full intra request.
    Fir {
        /// From whom.
        sender: u32,
        /// Streams and the numbers of the commands.
        entries: Vec<(u32, u8)>,
    },
    /// Transport-wide feedback: the first number and how many packets it speaks of.
    TransportFeedback {
        /// First transport-wide number.
        base: u16,
        /// How many.
        count: u16,
    },
    /// Receiver estimated maximum bitrate.
    Remb {
        /// Bits per second.
        bitrate_bps: u64,
    },
    /// Anything else, by packet type.
    Other(u8),
}

/// A report block (RFC 3550 section 6.4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// Of which stream.
    pub ssrc: u32,
    /// Lost since the last report, in 1/256.
    pub fraction_lost: u8,
    /// Lost in all.
    pub lost: u32,
    /// Highest extended sequence number.
    pub highest: u32,
    /// Jitter in timestamp units.
    pub jitter: u32,
    /// Middle 32 bits of the last sender report's NTP time.
    pub last_report: u32,
    /// Since then, in 1/65536 s.
    pub delay: u32,
}

/// Reads a compound. `None` if it breaks RFC 3550 section 6.1: lengths that do not add up.
#[must_use]
pub fn read(compound: &[u8]) -> Option<Vec<Packet>> {
    let mut packets = Vec::new();
    let mut reader = Reader(compound);
    while !reader.0.is_empty() {
        let (first, pt, words) = (reader.u8()?, reader.u8()?, reader.u16()?);
        let mut body = reader.take(usize::from(words) * 4)?;
        if first & 0x20 != 0 {
            body = body.get(..body.len().checked_sub(usize::from(*body.last()?))?)?;
        }
        if first >> 6 != 2 {
            return None;
        }
        packets.push(read_one(first & 31, pt, Reader(body))?);
    }
    Some(packets)
}

fn read_one(count: u8, pt: u8, mut body: Reader<'_>) -> Option<Packet> {
    Some(match (pt, count) {
        (200, _) => {
            let (ssrc, seconds, fraction) = (body.u32()?, body.u32()?, body.u32()?);
            let (rtp, packets, octets) = (body.u32()?, body.u32()?, body.u32()?);
            let ntp = u64::from(seconds) << 32 | u64::from(fraction);
            let blocks = read_blocks(count, &mut body)?;
            Packet::SenderReport { ssrc, ntp, rtp, packets, octets, blocks }
        }
        (201, _) => {
            let ssrc = body.u32()?;
            Packet::ReceiverReport { ssrc, blocks: read_blocks(count, &mut body)? }
        }
        (202, _) => Packet::Names(read_names(count, &mut body)?),
        (203, _) => Packet::Bye((0..count).map(|_| body.u32()).collect::<Option<_>>()?),
        (205, 1) => {
            let (sender, media) = (body.u32()?, body.u32()?);
            let mut seqs = Vec::new();
            while let (Some(pid), Some(blp)) = (body.u16(), body.u16()) {
                seqs.push(pid);
                let following = (0..16).filter(|bit| blp >> bit & 1 == 1);
                seqs.extend(following.map(|bit| pid.wrapping_add(bit + 1)));
            }
            Packet::Nack { sender, media, seqs }
        }
        (205, 15) => {
            body.take(8)?;
            Packet::TransportFeedback { base: body.u16()?, count: body.u16()? }
        }
        (206, 1) => Packet::Pli { sender: body.u32()?, media: body.u32()? },
        (206, 4) => {
            let sender = body.u32()?;
            body.take(4)?;
            let mut entries = Vec::new();
            while let (Some(ssrc), Some(rest)) = (body.u32(), body.u32()) {
                entries.push((ssrc, (rest >> 24) as u8));
            }
            Packet::Fir { sender, entries }
        }
        (206, 15) => {
            body.take(8)?;
            if body.take(4)? != b"REMB" {
                return Some(Packet::Other(pt));
            }
            let packed = body.u32()?;
            let bitrate_bps = u64::from(packed & 0x3_ffff) << (packed >> 18 & 63);
            Packet::Remb { bitrate_bps }
        }
        _ => Packet::Other(pt),
    })
}

fn read_blocks(count: u8, body: &mut Reader<'_>) -> Option<Vec<Block>> {
    (0..count)
        .map(|_| {
            let (ssrc, loss) = (body.u32()?, body.u32()?);
            let (highest, jitter) = (body.u32()?, body.u32()?);
            let (last_report, delay) = (body.u32()?, body.u32()?);
            let (fraction_lost, lost) = ((loss >> 24) as u8, loss & 0xff_ffff);
            Some(Block { ssrc, fraction_lost, lost, highest, jitter, last_report, delay })
        })
        .collect()
}

fn read_names(count: u8, body: &mut Reader<'_>) -> Option<Vec<(u32, String)>> {
    let mut names = Vec::new();
    for _ in 0..count {
        let before = body.0.len();
        let ssrc = body.u32()?;
        loop {
            let item = body.u8()?;
            if item == 0 {
                break;
            }
            let len = usize::from(body.u8()?);
            let text = body.take(len)?;
            if item == 1 {
                names.push((ssrc, String::from_utf8(text.to_vec()).ok()?));
            }
        }
        // A chunk ends on a 32-bit boundary (RFC 3550 section 6.5).
        let odd = (before - body.0.len()) % 4;
        body.take((4 - odd) % 4)?;
    }
    Some(names)
}

/// Appends a packet to a compound. What only a relay sends is not written.
pub fn write(packet: &Packet, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend([0; 4]);
    let (count, pt) = write_body(packet, out);
    out.resize(start + (out.len() - start).next_multiple_of(4), 0);
    let words = ((out.len() - start) / 4 - 1) as u16;
    out[start] = 0x80 | count;
    out[start + 1] = pt;
    out[start + 2..start + 4].copy_from_slice(&words.to_be_bytes());
}

fn write_body(packet: &Packet, out: &mut Vec<u8>) -> (u8, u8) {
    let mut words = |words: &[u32]| out.extend(words.iter().flat_map(|word| word.to_be_bytes()));
    match packet {
        Packet::SenderReport { ssrc, ntp, rtp, packets, octets, blocks } => {
            words(&[*ssrc, (ntp >> 32) as u32, *ntp as u32, *rtp, *packets, *octets]);
            blocks.iter().for_each(|block| words(&block.words()));
            (blocks.len() as u8, 200)
        }
        Packet::ReceiverReport { ssrc, blocks } => {
            words(&[*ssrc]);
            blocks.iter().for_each(|block| words(&block.words()));
            (blocks.len() as u8, 201)
        }
        Packet::Names(names) => {
            for (ssrc, name) in names {
                out.extend(ssrc.to_be_bytes());
                out.extend([1, name.len() as u8]);
                out.extend(name.as_bytes());
                out.push(0);
                out.resize(out.len().next_multiple_of(4), 0);
            }
            (names.len() as u8, 202)
        }
        Packet::Bye(ssrcs) => {
            words(ssrcs);
            (ssrcs.len() as u8, 203)
        }
        Packet::Nack { sender, media, seqs } => {
            words(&[*sender, *media]);
            let mut rest = seqs.as_slice();
            while let Some((&pid, after)) = rest.split_first() {
                let within = |seq: &u16| (1..=16).contains(&seq.wrapping_sub(pid));
                let taken = after.iter().take_while(|seq| within(seq)).count();
                let blp = after[..taken]
                    .iter()
                    .fold(0_u16, |blp, seq| blp | 1 << (seq.wrapping_sub(pid) - 1));
                words(&[u32::from(pid) << 16 | u32::from(blp)]);
                rest = &after[taken..];
            }
            (1, 205)
        }
        Packet::Pli { sender, media } => {
            words(&[*sender, *media]);
            (1, 206)
        }
        Packet::Fir { sender, entries } => {
            words(&[*sender, 0]);
            entries.iter().for_each(|(ssrc, seq)| words(&[*ssrc, u32::from(*seq) << 24]));
            (4, 206)
        }
        Packet::TransportFeedback { .. } | Packet::Remb { .. } | Packet::Other(_) => (0, 204),
    }
}

impl Block {
    fn words(&self) -> [u32; 6] {
        let loss = u32::from(self.fraction_lost) << 24 | self.lost & 0xff_ffff;
        [self.ssrc, loss, self.highest, self.jitter, self.last_report, self.delay]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let block = Block {
            ssrc: 1,
            fraction_lost: 2,
            lost: 3,
            highest: 4,
            jitter: 5,
            last_report: 6,
            delay: 7,
        };
        let seqs = vec![10, 11, 26, 27, 65_535, 0, 15];
        let packets = vec![
            Packet::SenderReport {
                ssrc: 9,
                ntp: 1 << 40 | 7,
                rtp: 3,
                packets: 4,
                octets: 5,
                blocks: vec![block],
            },
            Packet::ReceiverReport { ssrc: 9, blocks: vec![block, block] },
            Packet::Names(vec![(9, "someone".into()), (10, "else".into())]),
            Packet::Bye(vec![9, 10]),
            Packet::Nack { sender: 1, media: 2, seqs },
            Packet::Pli { sender: 1, media: 2 },
            Packet::Fir { sender: 1, entries: vec![(2, 3), (4, 5)] },
        ];
        let mut compound = Vec::new();
        packets.iter().for_each(|packet| write(packet, &mut compound));
        assert_eq!(read(&compound), Some(packets));
        assert_eq!(read(&compound[..compound.len() - 4]), None);
    }
}
