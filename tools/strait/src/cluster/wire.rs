//! What is asked of the parts themselves.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::http;

/// How long connecting, and each answer of Redis, may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// An HTTP request on this host: status and body. With a token, as its bearer.
pub fn http(
    address: SocketAddr,
    method: &str,
    path: &str,
    token: Option<&str>,
) -> io::Result<(u16, String)> {
    let url: http::Url = format!("http://{address}{path}").parse().map_err(io::Error::other)?;
    let bearer = token.map(|token| format!("Authorization: Bearer {token}"));
    http::send(&url, method, bearer.as_slice(), "", None)
}

/// What a Redis server, or a Sentinel, says of its role: what it is, and of whom.
pub fn redis_role(address: SocketAddr) -> Result<Vec<String>, String> {
    let asked = || {
        let client = redis::Client::open(format!("redis://{address}"))?;
        let mut connection = client.get_connection_with_timeout(PATIENCE)?;
        connection.set_read_timeout(Some(PATIENCE))?;
        redis::cmd("ROLE").query::<redis::Value>(&mut connection)
    };
    let mut words = Vec::new();
    flatten(asked().map_err(|e: redis::RedisError| e.to_string())?, &mut words);
    Ok(words)
}

fn flatten(value: redis::Value, words: &mut Vec<String>) {
    match value {
        redis::Value::Array(items) => items.into_iter().for_each(|item| flatten(item, words)),
        redis::Value::BulkString(text) => words.push(String::from_utf8_lossy(&text).into_owned()),
        redis::Value::Int(number) => words.push(number.to_string()),
        _ => {}
    }
}
