//! Identifiers that nobody can guess.

use aws_lc_rs::rand::{SecureRandom, SystemRandom};

use crate::fault::Fault;

/// A new identifier: `prefix`, a dash, and 26 characters of base 32 that carry 130 random bits.
///
/// # Errors
/// [`crate::fault::Class::Internal`] when the system has no randomness to give.
pub fn random(prefix: &str) -> Result<String, Fault> {
    Ok([prefix, "-", &letters()?].concat())
}

/// How an identifier of [`random`] begins, for logs: enough to tell it from others, too little to go
/// on with a session that has it.
pub fn short(id: &str) -> &str {
    const LETTERS: usize = 6;
    let dash = id.find('-').unwrap_or_default();
    id.get(..dash + 1 + LETTERS).unwrap_or_default()
}

/// 26 characters of base 32 that carry 130 random bits.
///
/// # Errors
/// As [`random`].
pub fn letters() -> Result<String, Fault> {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut bytes = [0; 26];
    fill(&mut bytes)?;
    Ok(bytes.iter().map(|byte| char::from(ALPHABET[usize::from(byte & 31)])).collect())
}

/// Fills `bytes` from the system's secure source.
///
/// # Errors
/// As [`random`].
pub fn fill(bytes: &mut [u8]) -> Result<(), Fault> {
    SystemRandom::new()
        .fill(bytes)
        .map_err(|_| Fault::internal("the system's random source failed; see the kernel's log"))
}

/// Lower-case hexadecimal text.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Checks a name that someone chose: 1 to `bytes_max` bytes without control characters.
///
/// # Errors
/// [`crate::fault::Class::Malformed`] with `what` in its sentence.
pub fn check_name(what: &str, name: &str, bytes_max: usize) -> Result<(), Fault> {
    if name.is_empty() {
        return Err(Fault::malformed(format!("{what} is empty; give it 1 to {bytes_max} bytes")));
    }
    if name.len() > bytes_max {
        return Err(Fault::malformed(format!("{what} is longer than {bytes_max} bytes")));
    }
    if name.chars().any(char::is_control) {
        return Err(Fault::malformed(format!("{what} contains control characters; remove them")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_differ_and_fit() {
        let (a, b) = (random("p").unwrap(), random("p").unwrap());
        assert_ne!(a, b);
        assert_eq!(a.len(), 28);
        assert!(a.starts_with("p-"));
        assert!(a.starts_with(short(&a)) && short(&a).len() == 8);
        assert_eq!(short("x"), "");
    }

    #[test]
    fn names_are_checked() {
        assert!(check_name("scope", "lobby", 64).is_ok());
        assert!(check_name("scope", "", 64).is_err());
        assert!(check_name("scope", "a\nb", 64).is_err());
        assert!(check_name("scope", &"x".repeat(65), 64).is_err());
    }
}
