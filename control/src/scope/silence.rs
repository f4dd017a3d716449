//! Messages between peers are taken until the process ends: what is taken then would be lost with it.

use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use super::registry::Scopes;
use crate::fault::Fault;

/// Whether no more messages are taken.
#[derive(Debug, Default)]
pub(super) struct Silence(RwLock<bool>);

/// Who has it may hand a message on. Shortly: who makes all silent waits for it.
pub struct Floor<'a> {
    _silence: RwLockReadGuard<'a, bool>,
}

impl Scopes {
    /// To be held while a message is handed on to its receivers.
    ///
    /// # Errors
    /// [`crate::fault::Class::Unavailable`]: the process ends.
    pub fn may_speak(&self) -> Result<Floor<'_>, Fault> {
        let silence = self.silence.0.read().unwrap_or_else(PoisonError::into_inner);
        match *silence {
            false => Ok(Floor { _silence: silence }),
            true => Err(Fault::unavailable("the server is ending; say it again when you are back")),
        }
    }

    /// Takes no more messages. Those that were taken are with their receivers when it returns.
    pub fn fall_silent(&self) {
        *self.silence.0.write().unwrap_or_else(PoisonError::into_inner) = true;
    }
}
