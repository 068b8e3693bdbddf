//! The user file: a line `name:hash` for each user, the hash by Argon2.

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};

use crate::Error;
use crate::lines::{lines, read, read_text};
use crate::random::random;

/// What is wrong in a line of a user file.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum UserFileError {
    /// There is no colon.
    #[error("must be name:hash")]
    MissingHash,
    /// Nothing stands before the colon.
    #[error("the user name is empty")]
    EmptyName,
    /// What stands behind the colon is no hash that can be compared with.
    #[error("the hash is none of Argon2; make it by mqtt passwd")]
    WrongHash,
    /// An earlier line has the same user.
    #[error("the user is there already")]
    Duplicate,
}

/// Users and the hashes of their passwords.
#[derive(Debug)]
pub struct Users {
    hashes: HashMap<String, String>,
    /// What the password of a user that does not exist is compared with: it takes as long.
    nobody: String,
}

impl Users {
    /// Reads a user file. A file that every user of this machine can read or write is reported by a warning to `tracing`.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Users`] for the first line that is wrong, [`Error::Random`].
    pub fn read(path: &Path) -> Result<Self, Error> {
        let hashes = parse(&read(path)?).map_err(|(line, source)| Error::Users {
            path: path.into(),
            line,
            source,
        })?;
        let nobody = hash(&random::<16>()?)?;
        Ok(Self { hashes, nobody })
    }

    /// Returns the hash to compare a user's password with, and whether the user is known. An unknown user gets a hash of its own, so
    /// that a comparison takes as long.
    pub(crate) fn hash_of(&self, user: &str) -> (String, bool) {
        match self.hashes.get(user) {
            Some(hash) => (hash.clone(), true),
            None => (self.nobody.clone(), false),
        }
    }
}

fn parse(text: &str) -> Result<HashMap<String, String>, (usize, UserFileError)> {
    let mut hashes = HashMap::new();
    for (number, line) in lines(text) {
        let (user, hash) = line
            .split_once(':')
            .ok_or((number, UserFileError::MissingHash))?;
        if user.is_empty() {
            return Err((number, UserFileError::EmptyName));
        }
        if !is_usable(hash) {
            return Err((number, UserFileError::WrongHash));
        }
        if hashes.insert(user.to_owned(), hash.to_owned()).is_some() {
            return Err((number, UserFileError::Duplicate));
        }
    }
    Ok(hashes)
}

/// Whether a password can be compared with a hash. One that is cut off would refuse every password.
fn is_usable(hash: &str) -> bool {
    let Ok(hash) = PasswordHash::new(hash) else {
        return false;
    };
    let known_version = hash
        .version
        .is_none_or(|version| Version::try_from(version).is_ok());
    Algorithm::try_from(hash.algorithm).is_ok()
        && known_version
        && Params::try_from(&hash).is_ok()
        && hash.salt.is_some()
        && hash.hash.is_some()
}

/// Returns whether it is the password. Takes some ten milliseconds and 19 MiB.
pub(crate) fn verify(password: &[u8], hash: &str) -> bool {
    PasswordHash::new(hash)
        .is_ok_and(|hash| Argon2::default().verify_password(password, &hash).is_ok())
}

fn hash(password: &[u8]) -> Result<String, Error> {
    let salt = SaltString::encode_b64(&random::<16>()?).map_err(Error::Hash)?;
    let hash = Argon2::default()
        .hash_password(password, &salt)
        .map_err(Error::Hash)?;
    Ok(hash.to_string())
}

/// Adds a user to a user file, or changes the password. The file is made if it is not there, for its owner only; it is written whole
/// or not at all.
///
/// # Errors
/// [`Error::UserName`], [`Error::File`], [`Error::Hash`], [`Error::Random`].
pub fn set_password(path: &Path, user: &str, password: &str) -> Result<(), Error> {
    check_name(user)?;
    let text = read_or_empty(path)?;
    let line = format!("{user}:{}", hash(password.as_bytes())?);
    let kept = text.lines().filter(|line| !is_of(line, user));
    write_lines(path, kept.chain([line.as_str()]))
}

/// Removes a user from a user file.
///
/// # Errors
/// [`Error::UserName`], [`Error::NoSuchUser`], [`Error::File`].
pub fn remove(path: &Path, user: &str) -> Result<(), Error> {
    check_name(user)?;
    let text = read_or_empty(path)?;
    if !text.lines().any(|line| is_of(line, user)) {
        return Err(Error::NoSuchUser {
            path: path.into(),
            user: user.into(),
        });
    }
    write_lines(path, text.lines().filter(|line| !is_of(line, user)))
}

/// Whether a user of this name can stand in a user file.
///
/// # Errors
/// [`Error::UserName`].
pub fn check_name(user: &str) -> Result<(), Error> {
    // Lines are read without the spaces around them.
    if user.is_empty()
        || user.trim() != user
        || user.contains([':', '\n', '\r'])
        || user.starts_with('#')
    {
        return Err(Error::UserName(user.into()));
    }
    Ok(())
}

fn is_of(line: &str, user: &str) -> bool {
    line.trim()
        .split_once(':')
        .is_some_and(|(name, _)| name == user)
}

fn read_or_empty(path: &Path) -> Result<String, Error> {
    match read_text(path) {
        Err(Error::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            Ok(String::new())
        }
        read => read,
    }
}

fn write_lines<'a>(path: &Path, lines: impl Iterator<Item = &'a str>) -> Result<(), Error> {
    let mut text = String::new();
    for line in lines {
        text += line;
        text.push('\n');
    }
    write(path, &text).map_err(|source| Error::File {
        path: path.into(),
        source,
    })
}

/// Writes a file whole or not at all, for its owner's eyes.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_line_is_named() {
        let good = hash(b"secret").unwrap();
        let cut = good.rsplit_once('$').unwrap().0;
        for (text, number, what) in [
            ("pump".to_owned(), 1, UserFileError::MissingHash),
            (format!("# users\n\n:{good}"), 3, UserFileError::EmptyName),
            (format!("a:{good}\na:{good}"), 2, UserFileError::Duplicate),
            (format!("pump:{cut}"), 1, UserFileError::WrongHash),
            ("pump:secret".to_owned(), 1, UserFileError::WrongHash),
            (
                good.replace("$argon2id$", "pump:$argon3id$"),
                1,
                UserFileError::WrongHash,
            ),
        ] {
            assert_eq!(parse(&text).unwrap_err(), (number, what), "{text}");
        }
        assert_eq!(parse(&format!("pump:{good}\n")).unwrap().len(), 1);
    }

    #[test]
    fn names_that_would_be_read_differently_are_refused() {
        for user in ["", "#pump", "a:b", "a\nb", " pump", "pump\r"] {
            assert!(check_name(user).is_err(), "{user:?}");
        }
        assert!(check_name("pump 7").is_ok());
    }
}
