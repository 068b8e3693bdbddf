//! The user file: a line `name:hash` for each user, the hash by Argon2. And `mqtt passwd`, which writes it.

use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use argon2::Argon2;
use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use clap::Args;

use crate::failure::{Failure, fail};

/// Who may connect.
#[derive(Debug)]
pub(crate) struct Users {
    hashes: HashMap<String, String>,
    /// What the password of a user that does not exist is compared with: it takes as long.
    nobody: String,
}

impl Users {
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let name = path.display();
        let text =
            std::fs::read_to_string(path).map_err(|error| fail(format!("{name}: {error}")))?;
        let mut hashes = HashMap::new();
        for (number, line) in lines(&text) {
            let wrong = |what: &str| fail(format!("{name}: line {number}: {what}"));
            let (user, hash) = line
                .split_once(':')
                .ok_or_else(|| wrong("must be name:hash"))?;
            if PasswordHash::new(hash).is_err() {
                return Err(wrong("the hash is none of Argon2; make it by mqtt passwd"));
            }
            if hashes.insert(user.to_owned(), hash.to_owned()).is_some() {
                return Err(wrong("the user is there already"));
            }
        }
        let nobody = hash(&crate::broker::random::<16>()?)?;
        Ok(Self { hashes, nobody })
    }

    /// What to compare a password with, in a place where that may take its time.
    pub(crate) fn hash_of(&self, user: &str) -> (String, bool) {
        match self.hashes.get(user) {
            Some(hash) => (hash.clone(), true),
            None => (self.nobody.clone(), false),
        }
    }
}

/// Whether it is the password. Takes some ten milliseconds and 19 MiB.
pub(crate) fn verify(password: &[u8], hash: &str) -> bool {
    PasswordHash::new(hash)
        .is_ok_and(|hash| Argon2::default().verify_password(password, &hash).is_ok())
}

fn hash(password: &[u8]) -> Result<String, Failure> {
    let salt = SaltString::encode_b64(&crate::broker::random::<16>()?).map_err(fail)?;
    let hash = Argon2::default()
        .hash_password(password, &salt)
        .map_err(fail)?;
    Ok(hash.to_string())
}

/// The lines that say something, with their numbers.
pub(super) fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(number, line)| (number + 1, line.trim()))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

/// Adds, changes or removes a user in a user file of the broker.
///
/// The password is asked for, or read from standard input if that is no terminal.
#[derive(Args, Debug)]
pub(crate) struct Passwd {
    /// The user file; it is made if it is not there
    file: PathBuf,
    /// The user
    user: String,
    /// Remove the user
    #[arg(short = 'D', long)]
    delete: bool,
}

impl Passwd {
    pub(crate) fn run(self) -> Result<(), Failure> {
        if self.user.is_empty() || self.user.contains([':', '\n']) || self.user.starts_with('#') {
            return Err(fail(format!(
                "user {:?}: must not be empty, begin with # nor contain a colon",
                self.user
            )));
        }
        let name = self.file.display();
        let text = match std::fs::read_to_string(&self.file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(fail(format!("{name}: {error}"))),
        };
        let own = |line: &&str| {
            line.split_once(':')
                .is_some_and(|(user, _)| user == self.user)
        };
        let mut kept: Vec<&str> = text.lines().filter(|line| !own(line)).collect();
        let known = kept.len() < text.lines().count();
        let line;
        if self.delete {
            if !known {
                return Err(fail(format!("{name}: there is no user {:?}", self.user)));
            }
        } else {
            line = format!("{}:{}", self.user, hash(password()?.as_bytes())?);
            kept.push(&line);
        }
        let mut text = kept.join("\n");
        text.push('\n');
        write(&self.file, &text).map_err(|error| fail(format!("{name}: {error}")))
    }
}

fn password() -> Result<String, Failure> {
    let password = if std::io::stdin().is_terminal() {
        let first = rpassword::prompt_password("password: ").map_err(fail)?;
        if rpassword::prompt_password("again: ").map_err(fail)? != first {
            return Err(fail("the passwords differ"));
        }
        first
    } else {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).map_err(fail)?;
        line.trim_end_matches(['\r', '\n']).to_owned()
    };
    if password.is_empty() {
        return Err(fail("the password is empty"));
    }
    Ok(password)
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
