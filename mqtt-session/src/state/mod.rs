//! What an engine stores. Nothing in this folder knows the engine: the files beside it have what the engine does with it.
//!
//! ```text
//! session.rs   belongs to a client identifier      link.rs     ends with the connection      times.rs    its times
//! slot.rs      a message or request to the peer    received.rs a message from the peer       large.rs    a packet sent without a copy
//! journal.rs   records that outlive the process    log.rs      where they lie until they are stored
//! note.rs      the note in one of them             flows.rs    what the host of a server records instead
//! ```

pub(crate) mod large;
pub(crate) mod link;
pub(crate) mod received;
pub(crate) mod session;
pub(crate) mod slot;
pub(crate) mod times;

#[cfg(all(feature = "alloc", feature = "journal", feature = "server"))]
pub(crate) mod flows;
#[cfg(feature = "journal")]
pub(crate) mod journal;
#[cfg(feature = "journal")]
pub(crate) mod log;
#[cfg(feature = "journal")]
pub(crate) mod note;
