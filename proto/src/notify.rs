//! What systemd is told (sd_notify): ready, alive, stopping. Nothing without `NOTIFY_SOCKET`.

use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The service manager's socket, if there is one.
#[derive(Debug)]
pub struct Notify {
    socket: Option<(UnixDatagram, SocketAddr)>,
}

impl Notify {
    /// As the environment says.
    #[must_use]
    pub fn from_environment() -> Self {
        Self::to(std::env::var("NOTIFY_SOCKET").ok().as_deref())
    }

    fn to(name: Option<&str>) -> Self {
        use std::os::linux::net::SocketAddrExt;
        let address = name.and_then(|name| match name.strip_prefix('@') {
            Some(hidden) => SocketAddr::from_abstract_name(hidden).ok(),
            None => SocketAddr::from_pathname(name).ok(),
        });
        Self { socket: UnixDatagram::unbound().ok().zip(address) }
    }

    /// Says something like `READY=1`. A manager that does not listen is no reason to stop.
    pub fn say(&self, state: &str) {
        if let Some((socket, address)) = &self.socket {
            let _ = socket.send_to_addr(state.as_bytes(), address);
        }
    }

    /// How often `WATCHDOG=1` is expected: half of what the manager allows.
    #[must_use]
    pub fn watchdog_interval() -> Option<Duration> {
        let microseconds: u64 = std::env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
        (microseconds > 0).then(|| Duration::from_micros(microseconds / 2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_arrive_and_nobody_listening_is_no_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        Notify::to(path.to_str()).say("READY=1\nSTATUS=serving");
        let mut bytes = [0; 64];
        let length = manager.recv(&mut bytes).unwrap();
        assert_eq!(&bytes[..length], b"READY=1\nSTATUS=serving");
        Notify::to(Some("/nowhere/at/all")).say("READY=1");
        Notify::to(None).say("READY=1");
    }
}
