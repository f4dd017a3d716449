//! Whom a credential speaks for, and what it allows.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::refusal::{Counters, Reason, Refusal};
use crate::fault::Fault;

/// Who a credential speaks for and what it allows. Only an [`super::Authenticator`] makes them.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The application: scopes of different applications never meet.
    pub application: String,
    /// Who, as the application names them. Empty for development tokens.
    pub subject: String,
    /// Display name, if the credential carries one.
    pub name: Option<String>,
    /// The scope that it opens; `*` for every scope of the application.
    pub scope: String,
    /// Whether it may publish.
    pub publish: bool,
    /// Whether it may subscribe.
    pub subscribe: bool,
    /// Whether it may send messages to others in the scope.
    pub message: bool,
    /// Whether it may act on others in the scope.
    pub admin: bool,
    /// Whether the session key of its scope changes when it leaves.
    pub changes_keys: bool,
    pub(super) counters: Arc<Counters>,
}

/// An [`Identity`], as it is noted for after a restart.
#[derive(Clone, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of `Identity`")]
pub struct Noted {
    pub application: String,
    pub subject: String,
    pub name: Option<String>,
    pub scope: String,
    pub publish: bool,
    pub subscribe: bool,
    pub message: bool,
    pub admin: bool,
    pub changes_keys: bool,
}

impl Identity {
    /// For a memo.
    pub fn noted(&self) -> Noted {
        Noted {
            application: self.application.clone(),
            subject: self.subject.clone(),
            name: self.name.clone(),
            scope: self.scope.clone(),
            publish: self.publish,
            subscribe: self.subscribe,
            message: self.message,
            admin: self.admin,
            changes_keys: self.changes_keys,
        }
    }

    /// Whether this identity may enter `scope`.
    ///
    /// # Errors
    /// [`crate::fault::Class::Forbidden`].
    pub fn check_scope(&self, scope: &str) -> Result<(), Fault> {
        let text = || {
            format!(
                "the token is for another scope than {scope:?}; ask the application for one that \
                 names this scope"
            )
        };
        self.check(self.scope == "*" || self.scope == scope, Reason::WrongScope, text)
    }

    /// Whether this identity may publish.
    ///
    /// # Errors
    /// [`crate::fault::Class::Forbidden`].
    pub fn check_publish(&self) -> Result<(), Fault> {
        self.check_grant(self.publish, "publishing", "publish")
    }

    /// Whether this identity may subscribe.
    ///
    /// # Errors
    /// [`crate::fault::Class::Forbidden`].
    pub fn check_subscribe(&self) -> Result<(), Fault> {
        self.check_grant(self.subscribe, "subscribing", "subscribe")
    }

    /// Whether this identity may send messages.
    ///
    /// # Errors
    /// [`crate::fault::Class::Forbidden`].
    pub fn check_message(&self) -> Result<(), Fault> {
        self.check_grant(self.message, "messages", "message")
    }

    /// Whether this identity may act on others.
    ///
    /// # Errors
    /// [`crate::fault::Class::Forbidden`].
    pub fn check_admin(&self) -> Result<(), Fault> {
        self.check_grant(self.admin, "acting on others", "admin")
    }

    fn check_grant(&self, is_granted: bool, what: &str, grant: &str) -> Result<(), Fault> {
        let text = || format!("the token does not allow {what}; ask for one with {grant}");
        self.check(is_granted, Reason::NotGranted, text)
    }

    fn check(&self, is_good: bool, reason: Reason, text: impl Fn() -> String) -> Result<(), Fault> {
        if is_good {
            return Ok(());
        }
        self.counters.refuse(reason);
        Err(Refusal::new(reason, text()).into())
    }
}
