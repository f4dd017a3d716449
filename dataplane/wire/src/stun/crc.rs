//! The CRC-32 of ITU V.42 that FINGERPRINT uses (RFC 8489 section 14.7).

/// The value of FINGERPRINT for the bytes before it.
pub(super) fn fingerprint(bytes: &[u8]) -> u32 {
    crc32(bytes) ^ 0x5354_554e
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        let index = (crc ^ u32::from(*byte)) & 0xff;
        // The table has an entry for every byte, so the default is never taken.
        TABLE.get(index as usize).copied().unwrap_or_default() ^ (crc >> 8)
    })
}

const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut crc = index as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { 0xedb8_8320 ^ (crc >> 1) } else { crc >> 1 };
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    #[test]
    fn check_value() {
        // The check value that every catalogue of CRCs has for CRC-32.
        assert_eq!(super::crc32(b"123456789"), 0xcbf4_3926);
    }
}
