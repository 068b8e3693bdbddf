//! The note that the program stores with its last acknowledgement.

#[cfg(not(feature = "alloc"))]
use mqtt_journal::MAX_NOTE;
use mqtt_journal::Note;
use mqtt_proto::PacketId;

#[cfg(feature = "alloc")]
pub(crate) type Bytes = alloc::boxed::Box<[u8]>;

/// At most [`MAX_NOTE`] bytes, and how many.
#[cfg(not(feature = "alloc"))]
#[derive(Debug)]
pub(crate) struct Bytes([u8; MAX_NOTE], usize);

#[cfg(not(feature = "alloc"))]
impl From<&[u8]> for Bytes {
    fn from(note: &[u8]) -> Self {
        let mut bytes = [0; MAX_NOTE];
        crate::bytes::copy(&mut bytes, note);
        Self(bytes, note.len().min(MAX_NOTE))
    }
}

#[cfg(not(feature = "alloc"))]
impl core::ops::Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.get(..self.1).unwrap_or_default()
    }
}

/// The note that is valid.
#[derive(Debug)]
pub(crate) struct LastNote {
    /// The number of the note.
    pub(crate) order: u64,
    /// The packet identifier of the message in whose record it is.
    pub(crate) id: PacketId,
    pub(crate) bytes: Bytes,
}

impl LastNote {
    pub(crate) fn as_note(&self) -> Note<'_> {
        Note {
            order: self.order,
            bytes: &self.bytes,
        }
    }
}
