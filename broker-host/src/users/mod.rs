//! Reads the user file, which has a line `name:hash` for each user. `mqtt passwd` writes Argon2 hashes; the hashes of Mosquitto's
//! password files are supported as well.

mod file;
mod hash;
mod memory;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub use self::file::{check_name, create, remove, set_password};
pub use self::hash::Cost;
pub(crate) use self::hash::{Hash, Memory};
pub(crate) use self::memory::{PasswordMemory, Proof};
use crate::Error;
use crate::lines::{lines, read};

/// The error of a line of a user file.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum UserFileError {
    /// There is no colon.
    #[error("must be name:hash")]
    MissingHash,
    /// The text before the colon is empty.
    #[error("the user name is empty")]
    EmptyName,
    /// The text after the colon is not a supported hash.
    #[error("the hash is none of Argon2 nor of Mosquitto; make it by mqtt passwd")]
    WrongHash,
    /// A comparison with the hash would take more memory or time than a log-in may.
    #[error(
        "the hash takes more than 1 GiB, 4 GiB of passes or 10,000,000 rounds; make it by mqtt passwd"
    )]
    CostlyHash,
    /// An earlier line has the same user.
    #[error("the user is there already")]
    Duplicate,
}

/// Users and the hashes of their passwords. Clones share them and the remembered passwords.
#[derive(Clone, Debug)]
pub struct Users {
    /// The indexes in `hashes` by user.
    places: Arc<HashMap<String, usize>>,
    hashes: Arc<[Arc<Hash>]>,
    memory: Arc<PasswordMemory>,
}

/// The hash that a password is compared with.
#[derive(Debug)]
pub(crate) struct Claim {
    pub(crate) hash: Arc<Hash>,
    /// Whether the user exists. If not, the comparison is done only for its time.
    pub(crate) is_known: bool,
    pub(crate) proof: Proof,
    pub(crate) memory: Arc<PasswordMemory>,
}

impl Users {
    /// Reads a user file. Warns by `tracing` if every user of this machine can read or write the file.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Users`] for the first invalid line, [`Error::Random`].
    pub fn read(path: &Path) -> Result<Self, Error> {
        let users = parse(&read(path)?).map_err(|(line, source)| Error::Users {
            path: path.into(),
            line,
            source,
        })?;
        Self::new(users)
    }

    fn new(users: Vec<(String, Hash)>) -> Result<Self, Error> {
        let mut places = HashMap::new();
        let mut hashes = Vec::new();
        for (name, hash) in users {
            places.insert(name, hashes.len());
            hashes.push(Arc::new(hash));
        }
        let memory = Arc::new(PasswordMemory::new()?);
        Ok(Self {
            places: places.into(),
            hashes: hashes.into(),
            memory,
        })
    }

    /// Makes users `user-0`, `user-1` and so on, with hashes that no password matches.
    #[cfg(test)]
    pub(crate) fn numbered(count: usize) -> Self {
        let hash = Hash::Sha512 {
            salt: [].into(),
            hash: [0; 64],
        };
        let users = (0..count).map(|n| (format!("user-{n}"), hash.clone()));
        Self::new(users.collect()).unwrap()
    }

    /// Sets how long a correct password is recognised by a fast hash with a secret key; 0 turns this off. One password of each
    /// user is remembered, in this process only.
    pub fn remember_for(&mut self, span: Duration) {
        self.memory.set_span(span);
    }

    /// Returns the hash to compare a user's password with. For an unknown user it is the hash of another user, always the same
    /// one, so that the comparison takes as long. Returns `None` if there are no users.
    pub(crate) fn claim(&self, user: &str, password: &[u8]) -> Option<Claim> {
        let proof = self.memory.proof(user, password);
        let known = self.places.get(user).copied();
        let place = match known {
            Some(place) => place,
            None => self.memory.number(user).checked_rem(self.hashes.len())?,
        };
        Some(Claim {
            hash: Arc::clone(self.hashes.get(place)?),
            is_known: known.is_some(),
            proof,
            memory: Arc::clone(&self.memory),
        })
    }
}

/// Parses the text of a user file, and returns the number of users.
///
/// # Errors
/// The number of the first invalid line, counted from 1, and its error.
pub fn check(text: &str) -> Result<usize, (usize, UserFileError)> {
    parse(text).map(|users| users.len())
}

fn parse(text: &str) -> Result<Vec<(String, Hash)>, (usize, UserFileError)> {
    let mut users = Vec::new();
    let mut names = std::collections::HashSet::new();
    for (number, line) in lines(text) {
        let (user, hash) = line
            .split_once(':')
            .ok_or((number, UserFileError::MissingHash))?;
        if user.is_empty() {
            return Err((number, UserFileError::EmptyName));
        }
        let hash = Hash::parse(hash).map_err(|error| (number, error))?;
        if !names.insert(user) {
            return Err((number, UserFileError::Duplicate));
        }
        users.push((user.to_owned(), hash));
    }
    Ok(users)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_line_is_named() {
        let good = hash::make(b"secret", Cost::default()).unwrap();
        let cut = good.rsplit_once('$').unwrap().0;
        for (text, number, what) in [
            ("pump".to_owned(), 1, UserFileError::MissingHash),
            (format!("# users\n\n:{good}"), 3, UserFileError::EmptyName),
            (format!("a:{good}\na:{good}"), 2, UserFileError::Duplicate),
            (format!("pump:{cut}"), 1, UserFileError::WrongHash),
            ("pump:secret".to_owned(), 1, UserFileError::WrongHash),
            ("pump:$7$101$AAAA".to_owned(), 1, UserFileError::WrongHash),
            (
                good.replace("$argon2id$", "pump:$argon3id$"),
                1,
                UserFileError::WrongHash,
            ),
            (
                format!("a:{good}\npump:{}", good.replace("m=19456", "m=4294967295")),
                2,
                UserFileError::CostlyHash,
            ),
        ] {
            assert_eq!(parse(&text).unwrap_err(), (number, what), "{text}");
        }
        assert_eq!(parse(&format!("pump:{good}\n")).unwrap().len(), 1);
    }

    #[test]
    fn an_unknown_user_is_compared_with_the_hash_of_some_user() {
        let none = Users::new(Vec::new()).unwrap();
        assert!(none.claim("pump", b"secret").is_none());
        let users = Users::numbered(3);
        let first = users.claim("nobody", b"1").unwrap();
        let second = users.claim("nobody", b"2").unwrap();
        assert!(!first.is_known && Arc::ptr_eq(&first.hash, &second.hash));
        assert!(users.claim("user-0", b"1").unwrap().is_known);
    }
}
