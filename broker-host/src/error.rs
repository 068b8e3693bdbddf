//! Holds the errors of starting a broker and of changing a user file.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::acl::AclError;
use crate::users::UserFileError;

/// Why a broker cannot start, or a user file cannot be changed.
///
/// `Display` does not repeat the text of [`source`](std::error::Error::source): print both.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read or written.
    #[error("{}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// A line of the settings file is invalid.
    #[error("{}", place(path, *line))]
    Settings {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1, if the error is in one line.
        line: Option<usize>,
        /// The error of the line.
        source: SettingsError,
    },
    /// A line of the user file is invalid.
    #[error("{}", place(path, Some(*line)))]
    Users {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// The error of the line.
        source: UserFileError,
    },
    /// A line of the ACL file is invalid.
    #[error("{}", place(path, Some(*line)))]
    Acl {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// The error of the line.
        source: AclError,
    },
    /// With this value of a setting the broker could not serve any client.
    #[error("{name}: {why}")]
    Setting {
        /// The name of the setting.
        name: &'static str,
        /// The condition for its value.
        why: &'static str,
    },
    /// The system refuses to listen on an address.
    #[error("cannot bind {address}")]
    Listen {
        /// The address as written in the settings.
        address: String,
        /// The error of the system.
        source: io::Error,
    },
    /// An address to listen on is not valid.
    #[error("bind: {address:?} {why}")]
    Bind {
        /// The address as written in the settings.
        address: String,
        /// Why it is not valid.
        why: &'static str,
    },
    /// A certificate, a key or a revocation list cannot be used.
    #[cfg(feature = "tls")]
    #[error("TLS")]
    Tls(#[source] mqtt_transport::Error),
    /// Other machines could connect, there is no user file, and anonymous clients are not explicitly allowed.
    #[error(
        "everyone could connect to {0}: give --user-file, or --allow-anonymous if that is meant"
    )]
    Unprotected(SocketAddr),
    /// The store cannot be opened.
    #[error("no store")]
    Store(#[source] mqtt_store::OpenError),
    /// The store failed while the broker ran. All that clients were told is stored.
    #[error("the store failed")]
    StoreFailed(#[source] crate::StoreFailed),
    /// The store was made with another number of threads.
    #[error("the store {} is of {stored} thread{}: start with --threads {stored}", dir.display(), if *stored == 1 { "" } else { "s" })]
    OtherThreads {
        /// The directory of the store.
        dir: PathBuf,
        /// How many threads it is of.
        stored: u8,
    },
    /// The journal of the engine cannot be used with these settings.
    #[error("no journal")]
    Engine(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The system has no thread for a part of the clients.
    #[error("a thread cannot start")]
    Thread(#[source] io::Error),
    /// A thread ended by a defect of the program, and so the broker does.
    #[error("a thread of the broker has ended")]
    ThreadEnded,
    /// The name cannot be in a user file.
    #[error(
        "user {0:?}: must not be empty, begin with # nor contain a colon, a control character or spaces around it"
    )]
    UserName(String),
    /// The user to be removed is not in the file.
    #[error("{}: there is no user {user:?}", path.display())]
    NoSuchUser {
        /// The file.
        path: PathBuf,
        /// The user.
        user: String,
    },
    /// A password cannot be hashed.
    #[error("the password cannot be hashed")]
    Hash(#[source] HashError),
    /// A comparison with the hash would take too much memory or time.
    #[error("a comparison may take at most 1 GiB of memory and 4 GiB of passes over it")]
    Cost,
    /// The system does not return random numbers.
    #[error("the system gives no random numbers")]
    Random(#[source] io::Error),
}

/// Why Argon2 cannot hash a password.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct HashError(pub(crate) argon2::password_hash::Error);

/// The error of a settings file: the message of the parser in one line.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct SettingsError(pub(crate) String);

fn place(path: &std::path::Path, line: Option<usize>) -> String {
    match line {
        Some(line) => format!("{}: line {line}", path.display()),
        None => path.display().to_string(),
    }
}
