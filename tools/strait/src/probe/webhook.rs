//! Tells a server of the operator's, which can see that it is us.

use std::time::Duration;

use aws_lc_rs::hmac;
use strait_client::Trust;

use crate::http::{self, Url};

/// Attempts, with a pause between them that doubles.
const ATTEMPTS: u32 = 4;
const PAUSE: Duration = Duration::from_secs(1);

/// Where to tell, and what signs it.
pub struct Webhook {
    url: Url,
    key: hmac::Key,
    trust: Trust,
}

impl Webhook {
    /// Of a secret that its server has as well.
    pub fn new(url: Url, secret: &str, trust: &Trust) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        Self { url, key, trust: trust.clone() }
    }

    /// Tells it, some times over where there is no answer.
    ///
    /// # Errors
    /// The last attempt's.
    pub fn tell(&self, body: &str, now: u64) -> Result<(), String> {
        let headers = [
            format!("Strait-Signature: {}", signature(&self.key, now, body)),
            "Content-Type: application/json".to_owned(),
        ];
        // A server that the given file does not vouch for is one that the system does.
        let tls = self.trust.config(b"http/1.1").ok();
        let mut last = String::new();
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                std::thread::sleep(PAUSE * (1 << (attempt - 1)));
            }
            match http::send(&self.url, "POST", &headers, body, tls.clone()) {
                Ok((200..=299, _)) => return Ok(()),
                Ok((status, _)) => last = format!("it answers {status}"),
                Err(error) => last = error.to_string(),
            }
        }
        Err(last)
    }
}

/// `t=TIME,v1=HEX`: the time is signed too, so that what was heard cannot be told again later.
fn signature(key: &hmac::Key, now: u64, body: &str) -> String {
    let tag = hmac::sign(key, format!("{now}.{body}").as_bytes());
    let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("t={now},v1={hex}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_what_others_calculate() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"whsec");
        // python3 -c 'import hmac; print(hmac.new(b"whsec", b"1700000000.{}", "sha256").hexdigest())'
        let expected = "7d44587dddbaf4c7f70fef20f48cd594834ffea1641e3ac227b84408298738af";
        assert_eq!(signature(&key, 1_700_000_000, "{}"), format!("t=1700000000,v1={expected}"));
    }
}
