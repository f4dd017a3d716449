//! The RFCs' own test vectors, and the drivers of replay and rollover.

use super::cipher::{Cipher, E_FLAG};
use super::kdf::{Kdf, Label, apply_counter_mode, counter_mode};
use super::*;

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        text.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// RFC 3711 appendix B.2.
#[test]
fn rfc3711_b2_counter_mode_keystream() {
    let key = counter_mode(&unhex("2B7E151628AED2A6ABF7158809CF4F3C")).unwrap();
    let iv = unhex("F0F1F2F3F4F5F6F7F8F9FAFBFCFD0000").try_into().unwrap();
    let mut stream = vec![0; 0xff02 * 16];
    apply_counter_mode(&key, iv, &mut stream).unwrap();
    let blocks = [
        (0, "e03ead0935c95e80e166b16dd92b4eb4"),
        (1, "d23513162b02d0f72a43a2fe4a5f97ab"),
        (2, "41e95b3bb0a2e8dd477901e4fca894c0"),
        (0xfeff, "ec8cdf7398607cb0f2d21675ea9ea1e4"),
        (0xff00, "362b7c3c6773516318a077d7fc5073ae"),
        (0xff01, "6a2cc3787889374fbeb4c81b17ba6c44"),
    ];
    for (block, want) in blocks {
        assert_eq!(hex(&stream[16 * block..][..16]), want, "block {block:#x}");
    }
}

/// RFC 3711 appendix B.3; the authentication key there has 94 bytes.
#[test]
fn rfc3711_b3_key_derivation() {
    let kdf = Kdf::new(
        Profile::AesCm128HmacSha1_80,
        &unhex("E1F97A0D3E018BE0D64FA32C06DE4139"),
        &unhex("0EC675AD498AFEEBB6960B3AABE6"),
    )
    .unwrap();
    assert_eq!(
        hex(&kdf.derive::<16>(Label::RtpEncryption).unwrap().0),
        "c61e7a93744f39ee10734afe3ff7a087"
    );
    assert_eq!(hex(&kdf.derive::<14>(Label::RtpSalt).unwrap().0), "30cbbc08863d8c85d49db34a9ae1");
    assert_eq!(
        hex(&kdf.derive::<94>(Label::RtpAuthentication).unwrap().0),
        "cebe321f6ff7716b6fd4ab49af256a156d38baa48f0a0acf3c34e2359e6cdbcee049646c43d9327ad175578ef72\
         270986371c10c9a369ac2f94a8c5fbcdddc256d6e919a48b610ef17c2041e474035766b68642c59bbfc2f34db60\
         dbdfb2"
            .replace(' ', "")
    );
}

/// RFC 6188 section 7.2, with the salt of 14 bytes that AES-GCM does not use.
#[test]
fn rfc6188_7_2_key_derivation_of_aes_256() {
    let kdf = Kdf::unpadded(
        &unhex("f0f04914b513f2763a1b1fa130f10e2998f6f6e43e4309d1e622a0e332b9f1b6"),
        unhex("3b04803de51ee7c96423ab5b78d2").try_into().unwrap(),
    )
    .unwrap();
    assert_eq!(
        hex(&kdf.derive::<32>(Label::RtpEncryption).unwrap().0),
        "5ba1064e30ec51613cad926c5a28ef731ec7fb397f70a960653caf06554cd8c4"
    );
    assert_eq!(
        hex(&kdf.derive::<20>(Label::RtpAuthentication).unwrap().0),
        "fd9c32d39ed5fbb5a9dc96b30818454d1313dc05"
    );
    assert_eq!(hex(&kdf.derive::<14>(Label::RtpSalt).unwrap().0), "fa31791685ca444a9e07c6c64e93");
}

const KEY_128: &str = "000102030405060708090a0b0c0d0e0f";
const KEY_256: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const SALT: &str = "517569642070726f2071756f";

fn gcm(key: &str) -> Cipher {
    Cipher::gcm_session(&unhex(key), unhex(SALT).try_into().unwrap()).unwrap()
}

/// RFC 7714 sections 16.1.1, 16.1.2, 16.2.1 and 16.2.2.
#[test]
fn rfc7714_16_srtp() {
    let header = unhex("8040f17b8041f8d35501a0b2");
    let payload = b"Gallia est omnis divisa in partes tres";
    let cases = [
        (
            KEY_128,
            "f24de3a3fb34de6cacba861c9d7e4bcabe633bd50d294e6f42a5f47a51c7d19b36de3adf8833",
            "899d7f27beb16a9152cf765ee4390cce",
        ),
        (
            KEY_256,
            "32b1de78a822fe12ef9f78fa332e33aab18012389a58e2f3b50b2a0276ffae0f1ba63799b87b",
            "7aa3db36dfffd6b0f9bb7878d7a76c13",
        ),
    ];
    for (key, ciphertext, tag) in cases {
        let cipher = gcm(key);
        let (mut body, mut got) = (payload.to_vec(), [0; 16]);
        cipher.seal_rtp(0x5501_a0b2, 0xf17b, &header, &mut body, &mut got).unwrap();
        assert_eq!((hex(&body), hex(&got)), (ciphertext.to_owned(), tag.to_owned()));

        let (mut other, mut got) = (vec![0; payload.len()], [0; 16]);
        cipher.seal_rtp_from(0x5501_a0b2, 0xf17b, &header, payload, &mut other, &mut got).unwrap();
        assert_eq!((hex(&other), hex(&got)), (ciphertext.to_owned(), tag.to_owned()));

        cipher.open_rtp(0x5501_a0b2, 0xf17b, &header, &mut body, &got).unwrap();
        assert_eq!(body, payload);
    }
}

/// RFC 7714 sections 17.1 to 17.4: encrypted, and tagged only (E flag 0).
#[test]
fn rfc7714_17_srtcp() {
    let packet = unhex(
        "81c8000d4d6172734e5450314e545032525450200000042a0000e9304c756e61\
         deadbeefdeadbeefdeadbeefdeadbeefdeadbeef",
    );
    let encrypted = [
        (
            KEY_128,
            "81c8000d4d61727363e94885dcdab67ca727d7662f6b7e997ff5c0f76c06f32dc676a5f1730d6fda4ce09b46\
             86303ded0bb9275bc84aa45896cf4d2fc5abf87245d9eade800005d4",
        ),
        (
            KEY_256,
            "81c8000d4d617273d50ae4d1f5ce5d304ba297e47d470c282c3ece5dbffe0a50a2eaa5c1110555be8415f658\
             c61de0476f1b6fad1d1eb30c4446839f57ff6f6cb26ac3be800005d4",
        ),
    ];
    for (key, want) in encrypted {
        let cipher = gcm(key);
        let mut buffer = packet.clone();
        buffer.resize(packet.len() + 20, 0);
        let len = cipher.seal_rtcp(0x4d61_7273, 0x5d4, &mut buffer, packet.len()).unwrap();
        assert_eq!(hex(&buffer[..len]), hex(&unhex(want)));
        let word = cipher.rtcp_word(&buffer).unwrap();
        assert_eq!(word, E_FLAG | 0x5d4);
        assert_eq!(cipher.open_rtcp(0x4d61_7273, word, &mut buffer), Ok(packet.len()));
        assert_eq!(buffer[..packet.len()], packet);
    }
    for (key, tag) in [
        (KEY_128, "841dd9683dd78ec92ae58790125f62b3"),
        (KEY_256, "91db4afbfeee5a978fab4393ed2615fe"),
    ] {
        let cipher = gcm(key);
        let mut buffer = [packet.clone(), unhex(tag), unhex("000005d4")].concat();
        assert_eq!(cipher.open_rtcp(0x4d61_7273, 0x5d4, &mut buffer), Ok(packet.len()));
        assert_eq!(buffer[..packet.len()], packet);
        buffer[30] ^= 1;
        assert_eq!(cipher.open_rtcp(0x4d61_7273, 0x5d4, &mut buffer), Err(Error::Unauthentic));
    }
}
