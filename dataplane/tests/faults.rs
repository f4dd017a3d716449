//! What goes wrong with the process: threads that die or hang, strangers at its door, a host that grants it little.

mod privileges;
mod program;
mod threads;

/// Says that a test cannot run here, and why, so that `./dev test` can list it.
pub fn skip(test: &str, reason: &str) {
    eprintln!("skipped {test}: {reason}");
    let Some(list) = std::env::var_os("STRAIT_SKIPS") else { return };
    let list = std::fs::OpenOptions::new().append(true).create(true).open(list);
    // A list that cannot be written costs the summary a line, not the run its result.
    let _ = list.and_then(|mut list| {
        std::io::Write::write_fmt(&mut list, format_args!("{test}: {reason}\n"))
    });
}

/// What a page of the listener for health says, with its status line.
fn page(address: std::net::SocketAddr, path: &str) -> String {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
