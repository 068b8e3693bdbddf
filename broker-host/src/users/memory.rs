//! Remembers correct passwords by a fast hash with a secret key.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;
use tokio::time::Instant;

use crate::Error;
use crate::random::random;

/// The default time for which a password is remembered.
const SPAN: Duration = Duration::from_secs(3_600);

/// The last correct password of each user.
#[derive(Debug)]
pub(crate) struct PasswordMemory {
    key: [u8; 32],
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    span: Duration,
    proofs: HashMap<String, (Proof, Instant)>,
}

/// A user and a password under the key of a [`Memory`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Proof([u8; 32]);

impl PasswordMemory {
    pub(crate) fn new() -> Result<Self, Error> {
        Ok(Self {
            key: random()?,
            known: Mutex::new(Known {
                span: SPAN,
                proofs: HashMap::new(),
            }),
        })
    }

    pub(crate) fn set_span(&self, span: Duration) {
        self.known().span = span;
    }

    pub(crate) fn proof(&self, user: &str, password: &[u8]) -> Proof {
        self.mac(&[b"password", user.as_bytes(), password])
    }

    /// Returns whether this password was correct and is still remembered.
    pub(crate) fn knows(&self, user: &str, proof: &Proof, now: Instant) -> bool {
        let known = self.known();
        known.proofs.get(user).is_some_and(|(right, since)| {
            now.duration_since(*since) < known.span && right.0.ct_eq(&proof.0).into()
        })
    }

    /// Remembers a correct password.
    pub(crate) fn remember(&self, user: &str, proof: Proof, now: Instant) {
        let mut known = self.known();
        if !known.span.is_zero() {
            known.proofs.insert(user.to_owned(), (proof, now));
        }
    }

    /// Returns a number that is fixed for a user, and that nobody else can compute.
    pub(crate) fn number(&self, user: &str) -> usize {
        let Proof(bytes) = self.mac(&[b"number", user.as_bytes()]);
        bytes
            .first_chunk()
            .map_or(0, |bytes| usize::from_le_bytes(*bytes))
    }

    fn mac(&self, parts: &[&[u8]]) -> Proof {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.key) else {
            return Proof(self.key); // HMAC accepts a key of any length.
        };
        for part in parts {
            // The length of each part is included, so that different parts cannot have the same bytes.
            mac.update(&part.len().to_le_bytes());
            mac.update(part);
        }
        Proof(mac.finalize().into_bytes().into())
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // The value is valid at any time, even if a thread panicked while it held the lock.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_right_is_known_for_a_while() {
        let memory = PasswordMemory::new().unwrap();
        memory.set_span(Duration::from_secs(10));
        let start = Instant::now();
        let right = memory.proof("pump", b"secret");
        assert!(!memory.knows("pump", &right, start));
        memory.remember("pump", right, start);
        let after = |seconds| start + Duration::from_secs(seconds);
        assert!(memory.knows("pump", &right, after(9)));
        assert!(!memory.knows("pump", &right, after(10)));
        for (user, password) in [("pump", "Secret"), ("pum", "psecret"), ("valve", "secret")] {
            let proof = memory.proof(user, password.as_bytes());
            assert!(!memory.knows(user, &proof, start), "{user}");
        }
        // Another correct password replaces the remembered one.
        let other = memory.proof("pump", b"other");
        memory.remember("pump", other, start);
        assert!(!memory.knows("pump", &right, start) && memory.knows("pump", &other, start));
        memory.set_span(Duration::ZERO);
        assert!(!memory.knows("pump", &other, start));
    }
}
