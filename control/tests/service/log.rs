//! All that is logged while a test runs, and that nothing secret is in it.

use std::io;
use std::sync::{Arc, Mutex, OnceLock};

/// Where everything that is logged goes.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Takes what is logged from now on, as `filter` says; who asks again gets the same. `nextest`
    /// gives each test a process of its own.
    pub fn take(filter: &str) -> Self {
        static LOG: OnceLock<Log> = OnceLock::new();
        let log = LOG.get_or_init(|| {
            let log = Log::default();
            let writer = log.clone();
            let subscriber = tracing_subscriber::fmt()
                .with_env_filter(filter)
                .with_ansi(false)
                .with_writer(move || writer.clone());
            subscriber.init();
            log
        });
        log.clone()
    }

    /// Takes all that Strait itself logs.
    pub fn of_strait() -> Self {
        Self::take("strait=trace,strait_control=trace,strait_relay=trace,strait_core=trace")
    }

    /// The text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }

    /// The line with one of these secrets, if there is any.
    pub fn leak(&self, secrets: impl IntoIterator<Item = String>) -> Option<String> {
        let text = self.text();
        let mut secrets = secrets.into_iter().filter(|secret| !secret.is_empty());
        let line = secrets.find_map(|secret| text.lines().find(|line| line.contains(&secret)));
        line.map(str::to_owned)
    }
}

/// A key as it could be written: hexadecimal digits, a list of numbers.
pub fn written(key: &[u8]) -> [String; 2] {
    [strait_control::id::hex(key), format!("{key:?}")]
}

/// Looks through the log when it goes.
pub struct Watch {
    log: Log,
    /// What must not be in it.
    secrets: Arc<Mutex<Vec<String>>>,
}

impl Watch {
    pub fn new(secrets: Arc<Mutex<Vec<String>>>) -> Self {
        Self { log: Log::of_strait(), secrets }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        assert!(self.log.text().contains("connected to the relay"), "nothing is logged");
        let secrets = self.secrets.lock().unwrap().clone();
        if let Some(line) = self.log.leak(secrets) {
            panic!("something secret is in the log: {line}");
        }
    }
}

#[test]
fn what_leaks_is_found() {
    let log = Log::default();
    let written = written(&[1, 2, 250]);
    assert_eq!(written, ["0102fa".to_owned(), "[1, 2, 250]".to_owned()]);
    for line in ["peace", "a key=[1, 2, 250] of nobody", "end"] {
        io::Write::write_all(&mut log.clone(), format!("{line}\n").as_bytes()).unwrap();
    }
    assert_eq!(log.leak(written).unwrap(), "a key=[1, 2, 250] of nobody");
    assert_eq!(log.leak(["war".to_owned(), String::new()]), None);
}
