//! What ends a command: a sentence for people, and the exit code for scripts.

/// Something went wrong while running (sysexits leaves 1 free for that).
pub const EXIT_ERROR: u8 = 1;
/// A configuration is wrong (`EX_CONFIG` of sysexits).
pub const EXIT_CONFIG: u8 = 78;

/// Why a command ended.
#[derive(Debug)]
pub struct Fault {
    /// What happened, the likely cause and the remedy.
    pub message: String,
    /// The process's exit code.
    pub code: u8,
}

impl Fault {
    /// A failure while running.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: EXIT_ERROR }
    }

    /// A configuration that cannot be used.
    pub fn config(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: EXIT_CONFIG }
    }
}
