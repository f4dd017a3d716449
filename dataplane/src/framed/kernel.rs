//! TLS that the kernel does: rustls shakes hands and serves strangers, then the kernel gets the keys, and the thread reads
//! and writes plain bytes. When that is, and of which connections, is in `tls.rs`.

use super::{Counted, Shared};
use crate::config::KernelTls;
use crate::limits::{FRAMED_RECORD_BYTES, KERNEL_TLS_PAUSE};
use rustls::{
    AlertDescription, CipherSuite, ConnectionTrafficSecrets, ContentType, ServerConnection,
    SupportedCipherSuite,
};
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Instant;
use strait_io::ktls::{self, Direction, Received};
use tokio::io::Interest;
use tokio::net::TcpStream;
use zeroize::Zeroizing;

/// Which suites the kernel takes, and how many connections it has.
#[derive(Debug, Default)]
pub(crate) struct Kernel {
    suites: Vec<CipherSuite>,
    /// It did not take a connection's keys after all.
    refusal: Mutex<Option<Refusal>>,
    /// Connections whose TLS it does.
    pub(crate) open: AtomicU64,
}

/// For how long it is not asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    /// It lacks something that is not brought to it while it runs.
    ForGood,
    Until(Instant),
}

impl Kernel {
    /// Asks the kernel, unless it shall not be asked, and says what came out.
    pub(crate) fn new(wanted: KernelTls) -> Self {
        if wanted == KernelTls::Off {
            return Self::default();
        }
        let (mut suites, mut refusal) = (Vec::new(), None);
        for (suite, cipher, key_bytes) in SUITES {
            match try_out(cipher, key_bytes) {
                Ok(()) => suites.push(suite),
                Err(error) => refusal = Some(error),
            }
        }
        match refusal.filter(|_| suites.is_empty()) {
            Some(error) => tracing::info!(
                "TLS of media is done here, for the kernel has none ({error}): `modprobe tls` loads it where there is one"
            ),
            None => tracing::info!("TLS of media is done by the kernel: {suites:?}"),
        }
        Self { suites, ..Self::default() }
    }

    /// Whether it does any TLS.
    pub(super) fn is_there(&self) -> bool {
        !self.suites.is_empty() && self.is_willing(Instant::now())
    }

    fn is_willing(&self, now: Instant) -> bool {
        match *self.refusal() {
            None => true,
            Some(Refusal::ForGood) => false,
            Some(Refusal::Until(end)) => now >= end,
        }
    }

    /// It did not take a connection's keys, which rustls has no more: that connection is lost, and others are not tried
    /// at once.
    fn refused(&self, error: &io::Error, now: Instant) {
        let mut refusal = self.refusal();
        match error.raw_os_error() {
            _ if *refusal == Some(Refusal::ForGood) => {}
            Some(libc::ENOPROTOOPT | libc::ENOENT | libc::EOPNOTSUPP) => {
                *refusal = Some(Refusal::ForGood);
                tracing::warn!(
                    "the kernel refused the keys of a connection ({error}): TLS of media is done here from now on; \
                     kernel_tls = \"off\" never asks it"
                );
            }
            _ => {
                *refusal = Some(Refusal::Until(now + KERNEL_TLS_PAUSE));
                tracing::warn!(
                    "the kernel could not take the keys of a connection ({error}): its client comes again, and TLS of media \
                     that begins within the next {} s is done here; is there memory?",
                    KERNEL_TLS_PAUSE.as_secs()
                );
            }
        }
    }

    fn refusal(&self) -> MutexGuard<'_, Option<Refusal>> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it goes on with a connection of this suite.
    pub(super) fn takes(&self, suite: Option<SupportedCipherSuite>) -> bool {
        self.is_there() && suite.is_some_and(|suite| self.suites.contains(&suite.suite()))
    }
}

/// Where records end in what comes (RFC 8446 section 5.1). The kernel begins at the end of one.
#[derive(Debug, Default)]
pub(super) struct Records {
    header: [u8; HEADER_BYTES],
    /// Bytes of the header that are there.
    begun: usize,
    /// Bytes of the record that are not.
    left: usize,
}

impl Records {
    /// Bytes to the end of the header, or of the record.
    pub(super) fn wanted(&self) -> usize {
        if self.left > 0 { self.left } else { HEADER_BYTES - self.begun }
    }

    /// At most as many as were wanted came.
    pub(super) fn took(&mut self, bytes: &[u8]) {
        if self.left > 0 {
            self.left = self.left.saturating_sub(bytes.len());
            return;
        }
        for (place, byte) in self.header.iter_mut().skip(self.begun).zip(bytes) {
            *place = *byte;
            self.begun += 1;
        }
        if self.begun == HEADER_BYTES {
            let [.., high, low] = self.header;
            self.left = usize::from(u16::from_be_bytes([high, low]));
            self.begun = 0;
        }
    }

    /// Nothing of a record that is not whole has come.
    pub(super) fn is_between(&self) -> bool {
        self.begun == 0 && self.left == 0
    }
}

/// A connection whose keys the kernel has.
pub(super) struct Stream {
    /// What it did not take yet, of one write at most.
    unsent: Vec<u8>,
    /// Records that the keys may still protect (RFC 8446 section 5.5).
    left: u64,
    _counted: Counted,
}

impl Stream {
    /// Gives the kernel the keys. Nothing of rustls' may wait on either way, and [`ktls::attach`] was called.
    ///
    /// # Errors
    /// It did not take them; nobody has them any more.
    pub(super) fn new(
        peer: &TcpStream,
        tls: ServerConnection,
        shared: &Arc<Shared>,
    ) -> io::Result<Self> {
        let suite = tls.negotiated_cipher_suite().and_then(|suite| suite.tls13());
        let most = suite.map_or(0, |suite| suite.common.confidentiality_limit);
        let secrets = tls.dangerous_extract_secrets().map_err(io::Error::other)?;
        for (direction, (sequence, secrets)) in
            [(Direction::Receive, &secrets.rx), (Direction::Transmit, &secrets.tx)]
        {
            let info = info_of(secrets, *sequence);
            let info = info.ok_or_else(|| io::Error::other("keys of an unknown cipher"))?;
            ktls::give_keys(peer, direction, &info)
                .inspect_err(|error| shared.kernel.refused(error, Instant::now()))?;
        }
        let counted = Counted::new(shared, |shared| &shared.kernel.open);
        let left = most.saturating_sub(secrets.tx.0);
        Ok(Self { unsent: Vec::new(), left, _counted: counted })
    }

    /// Reads once, to the end of `inward`.
    pub(super) fn poll_read(
        &self,
        peer: &TcpStream,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
        inward: &mut Vec<u8>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(peer.poll_read_ready(cx))?;
            // A short read does not mean that nothing else waits, which tokio's own reads take it for.
            let read = peer.try_io(Interest::READABLE, || ktls::receive(peer, scratch));
            let (kind, length) = match read {
                Ok(Received::Data(length)) => {
                    inward.extend_from_slice(scratch.get(..length).unwrap_or_default());
                    return Poll::Ready(Ok(()));
                }
                Ok(Received::Control(kind, length)) => (kind, length),
                Ok(Received::End) => return Poll::Ready(Err(ErrorKind::UnexpectedEof.into())),
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(error) => return Poll::Ready(Err(self.broken(peer, error))),
            };
            match (ContentType::from(kind), scratch.get(..length)) {
                (ContentType::Alert, Some(&[_, alert])) => match AlertDescription::from(alert) {
                    // In TLS 1.3 it says nothing by itself (RFC 8446 section 6.1).
                    AlertDescription::UserCanceled => {}
                    AlertDescription::CloseNotify => {
                        return Poll::Ready(Err(ErrorKind::UnexpectedEof.into()));
                    }
                    alert => {
                        let error = rustls::Error::AlertReceived(alert);
                        return Poll::Ready(Err(io::Error::other(error)));
                    }
                },
                // New keys are made of secrets that went with rustls. Whoever changes keys may come again.
                (ContentType::Handshake, _) => {
                    self.close(peer);
                    return Poll::Ready(Err(ended("the peer changes keys")));
                }
                _ => {
                    self.alert(peer, FATAL, AlertDescription::UnexpectedMessage);
                    let error = rustls::Error::General(format!("a record of type {kind}"));
                    return Poll::Ready(Err(io::Error::other(error)));
                }
            }
        }
    }

    /// Writes what waits, for as long as the socket takes it. Whether it took all.
    pub(super) fn flush(&mut self, peer: &TcpStream, cx: &mut Context<'_>) -> io::Result<bool> {
        while !self.unsent.is_empty() {
            match peer.poll_write_ready(cx) {
                Poll::Ready(ready) => ready?,
                Poll::Pending => return Ok(false),
            }
            let taken = try_write(peer, &self.unsent)?;
            self.unsent.drain(..taken);
        }
        // Most have nothing to say most of the time.
        self.unsent = Vec::new();
        Ok(true)
    }

    /// Whether something waits.
    pub(super) fn is_waiting(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Writes what the socket takes, after [`Stream::flush`] took all; the rest waits.
    ///
    /// # Errors
    /// The connection ended, or its keys protected as much as they may.
    pub(super) fn write(&mut self, peer: &TcpStream, bytes: &[u8]) -> io::Result<()> {
        // What is written by several calls makes a few more; the limit is no sharp one.
        let records = bytes.len().div_ceil(FRAMED_RECORD_BYTES) as u64;
        let Some(left) = self.left.checked_sub(records) else {
            self.close(peer);
            return Err(ended("its keys protected as much as they may"));
        };
        self.left = left;
        let taken = try_write(peer, bytes)?;
        self.unsent.extend_from_slice(bytes.get(taken..).unwrap_or_default());
        Ok(())
    }

    /// Says that no more follows.
    pub(super) fn close(&self, peer: &TcpStream) {
        self.alert(peer, WARNING, AlertDescription::CloseNotify);
    }

    /// An alert says why; it may not arrive.
    fn alert(&self, peer: &TcpStream, level: u8, what: AlertDescription) {
        let bytes = [level, u8::from(what)];
        let _ = ktls::send_control(peer, u8::from(ContentType::Alert), &bytes);
    }

    /// Why a read failed: the peer's records, or the connection.
    fn broken(&self, peer: &TcpStream, error: io::Error) -> io::Error {
        match error.raw_os_error() {
            Some(libc::EBADMSG | libc::EMSGSIZE | libc::EINVAL) => {
                self.alert(peer, FATAL, AlertDescription::BadRecordMac);
                io::Error::other(rustls::Error::DecryptError)
            }
            _ => error,
        }
    }
}

/// Bytes of a record before what it carries.
const HEADER_BYTES: usize = 5;
/// Levels of alerts (RFC 8446 section 6).
const WARNING: u8 = 1;
const FATAL: u8 = 2;
/// The suites of TLS 1.3 with the kernel's number of their cipher (linux/tls.h) and the bytes of their keys. TLS 1.2 is none
/// of them: no client of ours and no browser of today speaks it when it need not.
const SUITES: [(CipherSuite, u16, usize); 3] = [
    (CipherSuite::TLS13_AES_128_GCM_SHA256, libc::TLS_CIPHER_AES_GCM_128, 16),
    (CipherSuite::TLS13_AES_256_GCM_SHA384, libc::TLS_CIPHER_AES_GCM_256, 32),
    (CipherSuite::TLS13_CHACHA20_POLY1305_SHA256, libc::TLS_CIPHER_CHACHA20_POLY1305, 32),
];
/// Bytes of the salt, which GCM has apart from the rest of its vector.
const GCM_SALT_BYTES: usize = 4;

/// Gives the kernel keys that are none, on a connection of this process with itself.
fn try_out(cipher: u16, key_bytes: usize) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let peer = std::net::TcpStream::connect(listener.local_addr()?)?;
    ktls::attach(&peer)?;
    let key = vec![0; key_bytes];
    let info = info(cipher, &key, &[0; 12], 0);
    ktls::give_keys(&peer, Direction::Receive, &info)?;
    ktls::give_keys(&peer, Direction::Transmit, &info)
}

/// The keys of a direction as the kernel wants them.
fn info_of(secrets: &ConnectionTrafficSecrets, sequence: u64) -> Option<Zeroizing<Vec<u8>>> {
    let (cipher, key, iv) = match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (libc::TLS_CIPHER_AES_GCM_128, key, iv),
        ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (libc::TLS_CIPHER_AES_GCM_256, key, iv),
        ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => {
            (libc::TLS_CIPHER_CHACHA20_POLY1305, key, iv)
        }
        _ => return None,
    };
    Some(info(cipher, key.as_ref(), iv.as_ref(), sequence))
}

/// A `tls12_crypto_info_…` of linux/tls.h, whatever the version: version, cipher, vector, key, salt, number of the next record.
fn info(cipher: u16, key: &[u8], iv: &[u8], sequence: u64) -> Zeroizing<Vec<u8>> {
    let is_gcm = cipher != libc::TLS_CIPHER_CHACHA20_POLY1305;
    let (salt, iv) = iv.split_at(if is_gcm { GCM_SALT_BYTES.min(iv.len()) } else { 0 });
    // One allocation: no copy stays behind where it grew.
    let mut info = Zeroizing::new(Vec::with_capacity(64));
    info.extend_from_slice(&libc::TLS_1_3_VERSION.to_ne_bytes());
    info.extend_from_slice(&cipher.to_ne_bytes());
    for part in [iv, key, salt, &sequence.to_be_bytes()] {
        info.extend_from_slice(part);
    }
    info
}

/// Writes without waiting. How many bytes the socket took.
fn try_write(peer: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    match peer.try_write(bytes) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
        written => written,
    }
}

/// An end that is nobody's fault.
fn ended(why: &'static str) -> io::Error {
    io::Error::new(ErrorKind::ConnectionAborted, why)
}

#[cfg(test)]
mod tests {
    use super::super::tests::with_runtime;
    use super::*;
    use std::future::poll_fn;
    use std::io::Read;
    use std::time::Duration;

    #[test]
    fn records_end_where_their_headers_say() {
        let record = |length: u16| {
            let [high, low] = length.to_be_bytes();
            [&[23, 3, 3, high, low][..], &vec![7; length.into()]].concat()
        };
        let lengths = [1, 0, 5, 300, 16_640];
        let bytes = lengths.map(record).concat();
        for most in [1, 2, 3, 7, 4096, usize::MAX] {
            let (mut records, mut ends, mut at) = (Records::default(), Vec::new(), 0);
            while at < bytes.len() {
                let read = records.wanted().min(most).min(bytes.len() - at);
                assert!(read > 0);
                records.took(&bytes[at..at + read]);
                at += read;
                if records.is_between() {
                    ends.push(at);
                }
            }
            let wanted = lengths.iter().scan(0, |end, length| {
                *end += HEADER_BYTES + usize::from(*length);
                Some(*end)
            });
            assert_eq!(ends, wanted.collect::<Vec<_>>());
        }
    }

    #[test]
    fn keys_are_laid_out_as_in_the_kernels_header() {
        let iv: Vec<u8> = (1..=12).collect();
        let gcm = info(libc::TLS_CIPHER_AES_GCM_128, &[9; 16], &iv, 0x0102);
        assert_eq!(gcm.len(), size_of::<libc::tls12_crypto_info_aes_gcm_128>());
        assert_eq!(gcm[..4], [libc::TLS_1_3_VERSION.to_ne_bytes(), 51_u16.to_ne_bytes()].concat());
        assert_eq!((&gcm[4..12], &gcm[28..32]), (&iv[4..], &iv[..4]));
        assert_eq!(gcm[32..], [0, 0, 0, 0, 0, 0, 1, 2]);
        let gcm = info(libc::TLS_CIPHER_AES_GCM_256, &[9; 32], &iv, 0);
        assert_eq!(gcm.len(), size_of::<libc::tls12_crypto_info_aes_gcm_256>());
        let chacha = info(libc::TLS_CIPHER_CHACHA20_POLY1305, &[9; 32], &iv, 0);
        assert_eq!(chacha.len(), size_of::<libc::tls12_crypto_info_chacha20_poly1305>());
        assert_eq!(chacha[4..16], iv);
    }

    #[test]
    fn who_is_told_not_to_does_not_ask() {
        let kernel = Kernel::new(KernelTls::Off);
        assert!(!kernel.is_there());
        let suite = rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
        assert!(!kernel.takes(Some(suite)));
    }

    #[test]
    fn what_the_kernel_lacks_is_asked_for_once_and_what_it_could_not_later_again() {
        let start = Instant::now();
        let (before, after) =
            (start + KERNEL_TLS_PAUSE - Duration::from_millis(1), start + KERNEL_TLS_PAUSE);
        for (error, is_for_good) in [
            (libc::ENOMEM, false),
            (libc::EBUSY, false),
            (libc::EINVAL, false),
            (libc::ENOPROTOOPT, true),
            (libc::ENOENT, true),
            (libc::EOPNOTSUPP, true),
        ] {
            let kernel = Kernel::default();
            assert!(kernel.is_willing(start));
            let error = io::Error::from_raw_os_error(error);
            kernel.refused(&error, start);
            assert!(!kernel.is_willing(start) && !kernel.is_willing(before), "{error}");
            assert_eq!(kernel.is_willing(after), !is_for_good, "{error}");
            // Of a connection that was given its keys at the same time.
            kernel.refused(&io::Error::from_raw_os_error(libc::ENOMEM), start);
            assert_eq!(kernel.is_willing(after), !is_for_good, "{error}");
        }
    }

    /// A stream on a connection without TLS, where bytes go as they are, and its other end.
    fn plain(left: u64) -> (Stream, TcpStream, std::net::TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let far = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (near, _) = listener.accept().unwrap();
        near.set_nonblocking(true).unwrap();
        let counted = Counted::new(&Arc::default(), |shared| &shared.kernel.open);
        let stream = Stream { unsent: Vec::new(), left, _counted: counted };
        (stream, TcpStream::from_std(near).unwrap(), far)
    }

    async fn flush(stream: &mut Stream, near: &TcpStream) {
        let flushed = poll_fn(|cx| match stream.flush(near, cx) {
            Ok(true) => Poll::Ready(()),
            Ok(false) => Poll::Pending,
            Err(error) => panic!("{error}"),
        });
        flushed.await;
    }

    #[test]
    fn keys_protect_no_more_than_they_may() {
        with_runtime(async {
            let (mut stream, near, mut far) = plain(3);
            let two = [5; FRAMED_RECORD_BYTES + 1];
            for record in [&two[..], &[7]] {
                stream.write(&near, record).unwrap();
                flush(&mut stream, &near).await;
            }
            let end = stream.write(&near, &[7]).unwrap_err();
            assert_eq!(end.kind(), ErrorKind::ConnectionAborted);
            assert!(!super::super::is_failure(&Err(end)), "its client may come again");
            let mut came = [0; FRAMED_RECORD_BYTES + 2];
            far.read_exact(&mut came).unwrap();
            assert!(came.starts_with(&two) && came.ends_with(&[7]));
        });
    }

    #[test]
    fn what_the_socket_does_not_take_waits_and_goes_later() {
        with_runtime(async {
            let (mut stream, near, mut far) = plain(u64::MAX);
            let (mut sent, mut record) = (0, vec![0; FRAMED_RECORD_BYTES]);
            while !stream.is_waiting() {
                record.fill(sent as u8);
                stream.write(&near, &record).unwrap();
                sent += 1;
                assert!(sent < 10_000, "some time nothing more fits");
                // The socket's readiness is known to whoever waits for it.
                near.writable().await.unwrap();
            }
            let reads = std::thread::spawn(move || {
                let mut came = Vec::new();
                far.read_to_end(&mut came).unwrap();
                came
            });
            flush(&mut stream, &near).await;
            drop((near, stream));
            let came = reads.join().unwrap();
            assert_eq!(came.len(), sent * FRAMED_RECORD_BYTES);
            for (number, record) in came.chunks(FRAMED_RECORD_BYTES).enumerate() {
                assert!(record.iter().all(|byte| *byte == number as u8));
            }
        });
    }
}
