//! SRTP, SRTCP and DTLS-SRTP key agreement, sans-IO.
#![forbid(unsafe_code)]

pub mod srtp {
    //! RFC 3711, RFC 7714.
    /// A protection profile (RFC 5764 section 4.1.2, RFC 7714 section 14.2).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Profile {
        /// AES_CM_128_HMAC_SHA1_80.
        AesCm128HmacSha1_80,
        /// AES_CM_128_HMAC_SHA1_32: SRTCP keeps the 80 bit tag.
        AesCm128HmacSha1_32,
        /// AEAD_AES_128_GCM.
        AeadAes128Gcm,
        /// AEAD_AES_256_GCM.
        AeadAes256Gcm,
    }
    /// Master keys and salts of both directions. No `Debug` output of the secrets.
    #[derive(Clone)]
    pub struct SessionKeys {
        /// Which cipher.
        pub profile: Profile,
        /// Master key of what we send.
        pub local_key: Vec<u8>,
        /// Master salt of what we send.
        pub local_salt: Vec<u8>,
        /// Master key of what the peer sends.
        pub remote_key: Vec<u8>,
        /// Master salt of what the peer sends.
        pub remote_salt: Vec<u8>,
    }
    impl std::fmt::Debug for SessionKeys {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.debug_struct("SessionKeys").field("profile", &self.profile).finish_non_exhaustive()
        }
    }
}
