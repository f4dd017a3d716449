//! As much HTTP as a WHIP or WHEP client needs towards a server on this machine.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Largest answer that is read: an SDP answer is a few KiB.
const ANSWER_BYTES_MAX: u64 = 1 << 20;
/// How long one request may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// Posts an SDP offer and returns the answer.
pub async fn post_sdp(
    server: SocketAddr,
    path: &str,
    token: &str,
    offer: &str,
) -> io::Result<String> {
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: {server}\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/sdp\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{offer}",
        offer.len()
    );
    let exchange = async {
        let mut stream = TcpStream::connect(server).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer).await?;
        io::Result::Ok(answer)
    };
    let answer = timeout(ANSWER_WITHIN, exchange).await??;
    body_of_created(&answer).map_err(|refusal| io::Error::other(format!("{path}: {refusal}")))
}

/// The body of a `201 Created`, or why it is none.
fn body_of_created(answer: &str) -> Result<String, String> {
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("the answer is no HTTP")?;
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("201") {
        return Err(format!("{status}: {}", body.trim()));
    }
    Ok(body.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_created_carries_an_answer() {
        let created = "HTTP/1.1 201 Created\r\nLocation: /x\r\n\r\nv=0\r\n";
        assert_eq!(body_of_created(created).as_deref(), Ok("v=0\r\n"));
        let refused = body_of_created("HTTP/1.1 401 Unauthorized\r\n\r\nwrong token");
        assert!(refused.expect_err("refused").contains("wrong token"));
        assert!(body_of_created("garbage").is_err());
    }
}
