//! How it stands with the store: whether it has room, and takes this process's account.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use sqlx::error::DatabaseError;
use sqlx::mysql::MySqlDatabaseError;
use sqlx::postgres::PgDatabaseError;
use tracing::warn;

use super::broken;
use crate::fault::Fault;
use crate::limits::{SAID_AGAIN, STORE_FULL_TIME};
use crate::rate::Rate;

/// How it stands with the store.
pub struct Standing {
    full: Told,
    refused: Told,
    /// How often the log has it that the account is refused.
    said: Rate<()>,
}

/// What the store said no to.
#[derive(Default)]
struct Told {
    count: AtomicU64,
    last: Mutex<Option<Instant>>,
}

/// Whether the store answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// It does what it is asked.
    Answers,
    /// It answers, and refuses some of it: the account lacks a right.
    Lacks,
    /// It lets this process in no more, or not to its tables.
    Refuses,
    /// Nobody answers.
    Away,
}

impl Default for Standing {
    fn default() -> Self {
        let said = Rate::new(1.0, 1.0 / SAID_AGAIN.as_secs_f64(), 1);
        Self { full: Told::default(), refused: Told::default(), said }
    }
}

impl Standing {
    /// Whether something was not written a moment ago as there was no room, and how often that was so.
    pub fn full(&self) -> (bool, u64) {
        self.full.state()
    }

    /// The same of what the account may not.
    pub fn refused(&self) -> (bool, u64) {
        self.refused.state()
    }

    /// Looks at a failure: a fault where it is one of these.
    pub fn judge(&self, error: &dyn DatabaseError) -> Option<Fault> {
        if is_full(error) {
            self.full.note();
            return Some(Fault::unavailable(
                "the store has no room; free some on its disk. What happens in calls is told to it \
                 when there is, anything else has to be asked for again",
            ));
        }
        is_refused(error).then(|| {
            let fault = broken(&format_args!("it refuses this process's account ({error})"));
            self.refuse(&format!(
                "{fault}; another password belongs in store.url, rights are given back at the store"
            ));
            fault
        })
    }

    /// It does not take this process for long, for another reason than that nobody answers. The log has it
    /// each minute.
    pub fn refuse(&self, why: &str) {
        self.refused.note();
        if self.said.admits((), Instant::now()) {
            warn!("{why}");
        }
    }
}

impl Told {
    fn note(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn state(&self) -> (bool, u64) {
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let is_so = last.is_some_and(|last| last.elapsed() < STORE_FULL_TIME);
        (is_so, self.count.load(Ordering::Relaxed))
    }
}

/// Whether a disk is full.
fn is_full(error: &dyn DatabaseError) -> bool {
    if let Some(error) = error.try_downcast_ref::<MySqlDatabaseError>() {
        // ER_DISK_FULL, ER_RECORD_FILE_FULL.
        return [1021, 1114].contains(&error.number());
    }
    // SQLITE_FULL, SQLITE_IOERR_SHMSIZE; disk_full of PostgreSQL.
    error.code().is_some_and(|code| ["13", "4874", "53100"].contains(&&*code))
}

/// Whether the account is why.
fn is_refused(error: &dyn DatabaseError) -> bool {
    if let Some(error) = error.try_downcast_ref::<MySqlDatabaseError>() {
        // ER_DBACCESS_DENIED_ERROR, ER_ACCESS_DENIED_ERROR, ER_TABLEACCESS_DENIED_ERROR,
        // ER_COLUMNACCESS_DENIED_ERROR, ER_SPECIFIC_ACCESS_DENIED_ERROR,
        // ER_ACCESS_DENIED_NO_PASSWORD_ERROR, ER_MUST_CHANGE_PASSWORD, ER_ACCOUNT_HAS_BEEN_LOCKED.
        const NUMBERS: [u16; 8] = [1044, 1045, 1142, 1143, 1227, 1698, 1820, 4151];
        return NUMBERS.contains(&error.number());
    }
    // invalid_authorization_specification, invalid_password, insufficient_privilege.
    error
        .try_downcast_ref::<PgDatabaseError>()
        .is_some_and(|error| ["28000", "28P01", "42501"].contains(&error.code()))
}
