//! Defines what the owner of a journal needs of a stream.

use mqtt_store::Failure;

/// A replicated stream of messages. Their sequences ascend by one. [`crate::Owner`] uses it for its journal; the tests have a
/// model of it.
///
/// An answer may be lost, and a message may be stored long after its sender has given up.
pub trait Stream {
    /// Appends a message if the last sequence of the stream is `expected`. The only later effect of this call is that the stream
    /// may store the message later, with the same condition.
    ///
    /// # Errors
    /// The stream cannot be used any more.
    fn append(&mut self, expected: u64, message: &[u8]) -> Result<Answer, Failure>;

    /// Returns the message at `sequence`, or `None` if there is none now, or if it is not known yet where this is answered.
    ///
    /// # Errors
    /// The stream cannot be used any more.
    fn get(&mut self, sequence: u64) -> Result<Option<Vec<u8>>, Failure>;

    /// Returns the first and the last sequence. They may be older ones. Without a message, the first one is the last one plus 1.
    ///
    /// # Errors
    /// The stream cannot be used any more.
    fn ends(&mut self) -> Result<Ends, Failure>;

    /// Calls `each` with each message from the first one to `through`, in their order, and with its sequence. Ends at its first
    /// failure.
    ///
    /// # Errors
    /// The failure of `each`, or the stream cannot be used any more.
    fn read(&mut self, through: u64, each: &mut Each<'_>) -> Result<(), Failure>;

    /// Deletes all messages before `sequence`.
    ///
    /// # Errors
    /// Nothing may be deleted. The owner tries again later.
    fn purge(&mut self, sequence: u64) -> Result<(), Failure>;

    /// Waits before another try; `tries` were made before.
    ///
    /// # Errors
    /// There were enough tries: the stream is given up.
    fn pause(&mut self, tries: u32) -> Result<(), Failure>;
}

/// A function that [`Stream::read`] calls with the sequence and the bytes of each message.
pub type Each<'a> = dyn FnMut(u64, &[u8]) -> Result<(), Failure> + 'a;

/// The answer to [`Stream::append`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Answer {
    /// The message is stored, with this sequence.
    Stored(u64),
    /// The stream has another last sequence. This is also the answer to a repeated message that is stored already.
    Refused,
    /// There is no room, and the message is not stored.
    Full,
    /// There is no answer. The message may be stored now or later, or never.
    Unknown,
}

/// The ends of a stream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ends {
    /// The sequence of the first message.
    pub first: u64,
    /// The sequence of the last message, or of the last one that there was; 0 if there never was one.
    pub last: u64,
}
