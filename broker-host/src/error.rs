//! Why a broker cannot start, or a user file cannot be changed.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::acl::AclError;
use crate::users::UserFileError;

/// Why a broker cannot start, or a user file cannot be changed.
///
/// `Display` does not repeat what [`source`](std::error::Error::source) says: print both.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read or written.
    #[error("{}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The settings file has a wrong line.
    #[error("{}", place(path, *line))]
    Settings {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1, if one line is to blame.
        line: Option<usize>,
        /// What is wrong there.
        source: SettingsError,
    },
    /// The user file has a wrong line.
    #[error("{}", place(path, Some(*line)))]
    Users {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong there.
        source: UserFileError,
    },
    /// The ACL file has a wrong line.
    #[error("{}", place(path, Some(*line)))]
    Acl {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong there.
        source: AclError,
    },
    /// With this value of a setting nobody would be served.
    #[error("{name}: {why}")]
    Setting {
        /// The setting, as it is written.
        name: &'static str,
        /// What it has to be.
        why: &'static str,
    },
    /// Nothing can listen on an address.
    #[error("cannot bind {address}")]
    Listen {
        /// The address, as it stands in the settings.
        address: String,
        /// What the system says.
        source: io::Error,
    },
    /// An address to listen on is none.
    #[error("bind: {address:?} {why}")]
    Bind {
        /// The address, as it stands in the settings.
        address: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A certificate, a key or a revocation list cannot be used.
    #[cfg(feature = "tls")]
    #[error("TLS")]
    Tls(#[source] mqtt_transport::Error),
    /// Other machines could connect, no users are known, and nothing says that this is meant.
    #[error(
        "everyone could connect to {0}: give --user-file, or --allow-anonymous if that is meant"
    )]
    Unprotected(SocketAddr),
    /// The store cannot be opened.
    #[error("no store")]
    Store(#[source] mqtt_store::OpenError),
    /// The store failed while the broker ran. What clients were told is stored.
    #[error("the store failed")]
    StoreFailed(#[source] crate::StoreFailed),
    /// A name that cannot stand in a user file.
    #[error(
        "user {0:?}: must not be empty, begin with # nor contain a colon, a control character or spaces around it"
    )]
    UserName(String),
    /// A user who is to be removed is not in the file.
    #[error("{}: there is no user {user:?}", path.display())]
    NoSuchUser {
        /// The file.
        path: PathBuf,
        /// The user.
        user: String,
    },
    /// A password cannot be hashed.
    #[error("the password cannot be hashed: {0}")]
    Hash(argon2::password_hash::Error),
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    Random(#[source] getrandom::Error),
}

/// What is wrong in a settings file: the parser's message in one line.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct SettingsError(pub(crate) String);

fn place(path: &std::path::Path, line: Option<usize>) -> String {
    match line {
        Some(line) => format!("{}: line {line}", path.display()),
        None => path.display().to_string(),
    }
}
