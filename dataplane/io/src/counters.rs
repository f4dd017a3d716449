//! What the sockets count.

/// Declares the reasons once: the enum, [`Drop::ALL`], names and descriptions come from one table.
macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $reason:ident = $name:literal,)+) => {
        /// Why a datagram was not sent or not taken in.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Drop { $($(#[doc = $doc])+ $reason,)+ }

        impl Drop {
            /// Each of them.
            pub const ALL: &[Self] = &[$(Self::$reason,)+];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// Its name in statistics, metrics and docs/reference/drop-reasons.md.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$reason => $name,)+ }
            }

            /// The text of the reference: cause, whose doing, remedy.
            #[must_use]
            pub const fn description(self) -> &'static str {
                match self { $(Self::$reason => concat!($($doc, "\n"),+).trim_ascii(),)+ }
            }
        }
    };
}

reasons! {
    /// The socket's send buffer is full. Remedy: a larger net.core.wmem_max, more workers, or a faster link.
    SendBufferFull = "send_buffer_full",
    /// The kernel has no memory for it (ENOBUFS, ENOMEM). Of a full queue of the network card Linux does not tell:
    /// `tc -s qdisc` shows what is lost there. Remedy: more memory, or a faster link.
    SendNoBuffers = "send_no_buffers",
    /// A local firewall rule forbids the destination (EPERM, EACCES). Remedy: look at the host's output rules.
    SendForbidden = "send_forbidden",
    /// Larger than the interface's MTU (EMSGSIZE); datagrams are never fragmented. Remedy: an MTU of 1280 or more.
    SendTooBig = "send_too_big",
    /// No route to the destination, or it refused. The peer is gone, or its address family is not routed here.
    SendUnreachable = "send_unreachable",
    /// Any other error of the send call.
    SendFailed = "send_failed",
    /// Received, but longer than 2048 bytes. The sender's fault: no WebRTC datagram is.
    ReceiveTooBig = "receive_too_big",
    /// Received, but the kernel did not say to which address. Does not happen with a healthy kernel.
    ReceiveNoAddress = "receive_no_address",
    /// The socket's receive buffer was full: the kernel dropped it. Remedy: a larger net.core.rmem_max, more workers.
    ReceiveOverflow = "receive_overflow",
    /// The ICE-TCP connection is closed.
    TcpClosed = "tcp_closed",
    /// The ICE-TCP connection's reader is too slow for what it is sent.
    TcpQueueFull = "tcp_queue_full",
}

impl Drop {
    /// The reason for an error of a send call.
    pub(crate) fn of_send_error(error: &std::io::Error) -> Self {
        match error.raw_os_error().unwrap_or(0) {
            libc::EAGAIN => Self::SendBufferFull,
            libc::ENOBUFS | libc::ENOMEM => Self::SendNoBuffers,
            libc::EPERM | libc::EACCES => Self::SendForbidden,
            libc::EMSGSIZE => Self::SendTooBig,
            libc::ECONNREFUSED
            | libc::EHOSTUNREACH
            | libc::ENETUNREACH
            | libc::ENETDOWN
            | libc::EHOSTDOWN
            | libc::EADDRNOTAVAIL => Self::SendUnreachable,
            _ => Self::SendFailed,
        }
    }
}

/// Counters of one worker's sockets since its start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    /// Datagrams and ICE-TCP frames read.
    pub packets_received: u64,
    /// Their bytes, without IP and UDP headers.
    pub bytes_received: u64,
    /// Datagrams and ICE-TCP frames given to the kernel.
    pub packets_sent: u64,
    /// Their bytes, without IP and UDP headers.
    pub bytes_sent: u64,
    /// Calls of recvmmsg that returned something.
    pub receive_batches: u64,
    /// Calls of sendmmsg.
    pub send_batches: u64,
    /// Runs by their length: of 1, 2 to 3, 4 to 7, 8 to 15, 16 to 31, 32 to 63, and 64 datagrams.
    pub runs: [u64; RUN_LENGTHS],
    /// Datagrams in them.
    pub run_datagrams: u64,
    /// Runs that the kernel refused to cut, and that were sent datagram by datagram.
    pub runs_refused: u64,
    /// ICE-TCP connections that are open.
    pub tcp_open: u64,
    /// ICE-TCP connections accepted.
    pub tcp_accepted: u64,
    /// ICE-TCP connections refused, for a limit or for want of file descriptors.
    pub tcp_refused: u64,
    /// ICE-TCP connections that we closed because the peer broke the rules: no STUN first, a frame too long, silence.
    pub tcp_expelled: u64,
    drops: [u64; Drop::COUNT],
}

/// Classes of run lengths: powers of two up to [`strait_core::limits::RUN_DATAGRAMS`].
pub const RUN_LENGTHS: usize = strait_core::limits::RUN_DATAGRAMS.ilog2() as usize + 1;

impl Counters {
    /// Counts a run of so many datagrams with so many bytes as sent.
    pub(crate) fn add_run(&mut self, datagrams: usize, bytes: usize) {
        self.packets_sent += datagrams as u64;
        self.bytes_sent += bytes as u64;
        if let Some(count) = self.runs.get_mut(datagrams.max(1).ilog2() as usize) {
            *count += 1;
            self.run_datagrams += datagrams as u64;
        }
    }

    /// Counts `n` drops.
    pub(crate) fn add_drops(&mut self, reason: Drop, n: u64) {
        if let Some(count) = self.drops.get_mut(reason as usize) {
            *count = count.wrapping_add(n);
        }
    }

    /// How many were dropped for `reason`.
    #[must_use]
    pub fn drops(&self, reason: Drop) -> u64 {
        self.drops.get(reason as usize).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_own_name_and_counter() {
        let mut counters = Counters::default();
        for (n, reason) in (1..).zip(Drop::ALL) {
            counters.add_drops(*reason, n);
        }
        for (n, reason) in (1..).zip(Drop::ALL) {
            assert_eq!(counters.drops(*reason), n, "{}", reason.name());
        }
        let names: std::collections::HashSet<_> = Drop::ALL.iter().map(|r| r.name()).collect();
        assert_eq!(names.len(), Drop::COUNT);
    }
}
