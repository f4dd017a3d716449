//! RTP headers (RFC 3550 section 5.1) with extensions (RFC 8285).

use super::Reader;

/// A header as written and read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// 0 to 127.
    pub pt: u8,
    /// Last packet of a frame.
    pub marker: bool,
    /// Sequence number.
    pub seq: u16,
    /// In units of the codec's clock.
    pub timestamp: u32,
    /// Which stream.
    pub ssrc: u32,
    /// Padding bytes at the end of the packet, announced in its last byte.
    pub padding: u8,
    /// Header extensions by id.
    pub extensions: Vec<(u8, Vec<u8>)>,
}

impl Header {
    /// Appends the header. Ids above 14 bring the two-byte form.
    pub fn write(&self, out: &mut Vec<u8>) {
        let extended = !self.extensions.is_empty();
        out.push(0x80 | u8::from(self.padding > 0) << 5 | u8::from(extended) << 4);
        out.push(u8::from(self.marker) << 7 | self.pt);
        out.extend(self.seq.to_be_bytes());
        out.extend(self.timestamp.to_be_bytes());
        out.extend(self.ssrc.to_be_bytes());
        if !extended {
            return;
        }
        let one_byte =
            self.extensions.iter().all(|(id, data)| *id <= 14 && (1..=16).contains(&data.len()));
        let mut data = Vec::new();
        for (id, value) in &self.extensions {
            let len = value.len() as u8;
            if one_byte {
                data.push(id << 4 | (len - 1));
            } else {
                data.extend([*id, len]);
            }
            data.extend(value);
        }
        data.resize(data.len().next_multiple_of(4), 0);
        out.extend(if one_byte { [0xbe, 0xde] } else { [0x10, 0x00] });
        out.extend(((data.len() / 4) as u16).to_be_bytes());
        out.extend(data);
    }

    /// Reads a packet: its header, and its payload without padding. `None` if it breaks RFC 3550 or RFC 8285.
    #[must_use]
    pub fn read(packet: &[u8]) -> Option<(Self, &[u8])> {
        let mut reader = Reader(packet);
        let (first, second) = (reader.u8()?, reader.u8()?);
        let (seq, timestamp, ssrc) = (reader.u16()?, reader.u32()?, reader.u32()?);
        reader.take(usize::from(first & 15) * 4)?;
        let mut extensions = Vec::new();
        if first & 0x10 != 0 {
            let (profile, words) = (reader.u16()?, reader.u16()?);
            extensions = read_extensions(profile, reader.take(usize::from(words) * 4)?)?;
        }
        let mut payload = reader.0;
        let mut padding = 0;
        if first & 0x20 != 0 {
            padding = *payload.last()?;
            payload = payload.get(..payload.len().checked_sub(usize::from(padding.max(1)))?)?;
        }
        let (pt, marker) = (second & 0x7f, second & 0x80 != 0);
        let header = Self { pt, marker, seq, timestamp, ssrc, padding, extensions };
        (first >> 6 == 2).then_some((header, payload))
    }

    /// The value of an extension. Id 0 is nobody's.
    #[must_use]
    pub fn extension(&self, id: u8) -> Option<&[u8]> {
        let found = self.extensions.iter().find(|(own, _)| *own == id && id != 0)?;
        Some(&found.1)
    }
}

fn read_extensions(profile: u16, data: &[u8]) -> Option<Vec<(u8, Vec<u8>)>> {
    let mut extensions = Vec::new();
    let mut reader = Reader(data);
    while let Some(first) = reader.u8() {
        let (id, len) = match (profile, first) {
            (_, 0) => continue,
            (0xbede, first) => (first >> 4, usize::from(first & 15) + 1),
            (0x1000..=0x100f, id) => (id, usize::from(reader.u8()?)),
            _ => return None,
        };
        extensions.push((id, reader.take(len)?.to_vec()));
    }
    Some(extensions)
}

/// Sequence numbers made long: 16 bits of them, and how often they wrapped.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extender {
    highest: Option<u64>,
}

impl Extender {
    /// The long form nearest to the highest so far.
    pub fn extend(&mut self, seq: u16) -> u64 {
        // Starts one wrap up, so that what is older than the first packet has a number too.
        let highest = self.highest.unwrap_or(0x1_0000 | u64::from(seq));
        let ahead = seq.wrapping_sub(highest as u16) as i16;
        let long = highest.wrapping_add_signed(i64::from(ahead));
        self.highest = Some(highest.max(long));
        long
    }

    /// The highest so far.
    #[must_use]
    pub fn highest(&self) -> Option<u64> {
        self.highest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for (id, padding) in [(3, 0), (14, 4), (15, 0), (200, 255)] {
            let extensions = vec![(1, vec![7]), (id, vec![1, 2, 3])];
            let header = Header {
                pt: 96,
                marker: true,
                seq: 65535,
                timestamp: 5,
                ssrc: 6,
                padding,
                extensions,
            };
            let mut packet = Vec::new();
            header.write(&mut packet);
            assert_eq!(packet.len() % 4, 0);
            packet.extend([9; 10]);
            if padding > 0 {
                packet.resize(packet.len() + usize::from(padding), padding);
            }
            assert_eq!(Header::read(&packet), Some((header, &[9_u8; 10][..])));
        }
    }

    #[test]
    fn sequence_numbers_go_round_both_ways() {
        let mut extender = Extender::default();
        assert_eq!(extender.extend(65_534), 0x1_fffe);
        assert_eq!(extender.extend(1), 0x2_0001);
        assert_eq!(extender.extend(65_535), 0x1_ffff);
        assert_eq!(extender.highest(), Some(0x2_0001));
    }
}
