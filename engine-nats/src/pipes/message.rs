//! The bytes of the messages between the ends of pipes.
//!
//! | message | bytes |
//! | --- | --- |
//! | request for a pipe | 1, its use (1: 0 for a link, 1 for a client), shard (1) and epoch (8) of the process that asks, instance (16) and number (8) of its end, what the pipe is for |
//! | its answer | 0 if it is refused; 1, instance (16) and number (8) of the other end |
//! | request for the address | 2 |
//! | its answer | 0 if there is none; 1, instance (16), the address |
//! | in a pipe | kind (1), sent (8), taken (8), data |
//!
//! In a pipe, sent is what its sender sent before: each message with data counts its bytes and 256, and the end counts 1. Taken is what
//! the sender's reader has taken of the other end's data, in the same measure.
//!
//! Numbers are big-endian. A request with another first byte is refused with one byte 0.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use super::PipeUse;
use super::owners::OwnerName;

/// The bytes of a message in a pipe before its data.
pub(crate) const HEADER: usize = 17;

/// The answer to a request that is refused, or for an address if there is none.
pub(crate) const REFUSED: &[u8] = &[0];

/// The name of one end of a pipe.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct EndName {
    /// The number of the process.
    pub(crate) instance: u128,
    pub(crate) number: u64,
}

impl EndName {
    fn write(self, bytes: &mut BytesMut) {
        bytes.put_u128(self.instance);
        bytes.put_u64(self.number);
    }

    fn read(bytes: &mut Bytes) -> Option<Self> {
        Some(Self {
            instance: bytes.try_get_u128().ok()?,
            number: bytes.try_get_u64().ok()?,
        })
    }
}

/// A request to the owner of a shard.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Request {
    Pipe(PipeRequest),
    Address,
}

/// A request for a pipe.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct PipeRequest {
    pub(crate) carries: PipeUse,
    /// The shard and the epoch of the process that asks.
    pub(crate) shard: u8,
    pub(crate) epoch: u64,
    pub(crate) from: EndName,
    pub(crate) about: Bytes,
}

impl PipeRequest {
    /// Returns the process that asks.
    pub(crate) const fn process(&self) -> OwnerName {
        OwnerName {
            instance: self.from.instance,
            epoch: self.epoch,
        }
    }
}

impl Request {
    pub(crate) fn write(&self) -> Bytes {
        let mut bytes = BytesMut::new();
        match self {
            Self::Pipe(request) => {
                bytes.put_u8(1);
                bytes.put_u8(match request.carries {
                    PipeUse::Link => 0,
                    PipeUse::Client => 1,
                });
                bytes.put_u8(request.shard);
                bytes.put_u64(request.epoch);
                request.from.write(&mut bytes);
                bytes.put_slice(&request.about);
            }
            Self::Address => bytes.put_u8(2),
        }
        bytes.freeze()
    }

    pub(crate) fn read(mut bytes: Bytes) -> Option<Self> {
        match bytes.try_get_u8().ok()? {
            1 => Some(Self::Pipe(PipeRequest {
                carries: match bytes.try_get_u8().ok()? {
                    0 => PipeUse::Link,
                    1 => PipeUse::Client,
                    _ => return None,
                },
                shard: bytes.try_get_u8().ok()?,
                epoch: bytes.try_get_u64().ok()?,
                from: EndName::read(&mut bytes)?,
                about: bytes,
            })),
            2 => Some(Self::Address),
            _ => None,
        }
    }
}

/// Writes the answer to a request for a pipe.
pub(crate) fn accepts(end: EndName) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(1);
    end.write(&mut bytes);
    bytes.freeze()
}

/// Writes the answer to a request for the address.
pub(crate) fn has_address(instance: u128, address: &str) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(1);
    bytes.put_u128(instance);
    bytes.put_slice(address.as_bytes());
    bytes.freeze()
}

/// Reads an answer: the end that accepts, or an address. `None` if it is refused, or there is none.
pub(crate) fn accepted(mut answer: Bytes) -> Option<EndName> {
    let is_yes = answer.try_get_u8() == Ok(1);
    EndName::read(&mut answer).filter(|_| is_yes)
}

/// Reads the answer to a request for the address: the instance of the process that answers, and the address.
pub(crate) fn address(mut answer: Bytes) -> Option<(u128, String)> {
    let is_yes = answer.try_get_u8() == Ok(1);
    let instance = answer.try_get_u128().ok().filter(|_| is_yes)?;
    Some((instance, String::from_utf8(answer.into()).ok()?))
}

/// The kind of a message in a pipe.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// Bytes of the stream follow.
    Data,
    /// Nothing new: tells what was taken.
    Taken,
    /// No data. The receiver answers with [`Kind::Taken`].
    Probe,
    /// No data follow any more.
    End,
    /// There is no such pipe any more.
    Gone,
}

impl Kind {
    const ALL: [Self; 5] = [Self::Data, Self::Taken, Self::Probe, Self::End, Self::Gone];

    const fn number(self) -> u8 {
        match self {
            Self::Data => 0,
            Self::Taken => 1,
            Self::Probe => 2,
            Self::End => 3,
            Self::Gone => 4,
        }
    }
}

/// The first bytes of each message in a pipe.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    /// How many bytes the sender has sent before this message.
    pub(crate) sent: u64,
    /// How many of the bytes that were sent to it the sender of this message has taken.
    pub(crate) taken: u64,
}

impl Header {
    pub(crate) fn write(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        let mut rest = &mut bytes[..];
        rest.put_u8(self.kind.number());
        rest.put_u64(self.sent);
        rest.put_u64(self.taken);
        bytes
    }

    /// Reads a header, and leaves the data.
    pub(crate) fn read(bytes: &mut Bytes) -> Option<Self> {
        let number = bytes.try_get_u8().ok()?;
        let kind = Kind::ALL.into_iter().find(|kind| kind.number() == number)?;
        Some(Self {
            kind,
            sent: bytes.try_get_u64().ok()?,
            taken: bytes.try_get_u64().ok()?,
        })
    }
}

/// Returns the message that there is no such pipe any more.
pub(crate) fn gone() -> Bytes {
    let (sent, taken) = (0, 0);
    let kind = Kind::Gone;
    Bytes::copy_from_slice(&Header { kind, sent, taken }.write())
}

#[cfg(test)]
mod tests {
    use super::*;

    const END: EndName = EndName {
        instance: 7 << 100,
        number: 9,
    };

    #[test]
    fn requests_and_answers_are_read_as_written() {
        let pipe = |carries| {
            Request::Pipe(PipeRequest {
                carries,
                shard: 3,
                epoch: u64::MAX,
                from: END,
                about: Bytes::from_static(b"link 3"),
            })
        };
        assert_eq!(pipe(PipeUse::Link).write().len(), 35 + 6);
        for request in [pipe(PipeUse::Link), pipe(PipeUse::Client), Request::Address] {
            let bytes = request.write();
            assert_eq!(Request::read(bytes), Some(request));
        }
        assert_eq!(accepted(accepts(END)), Some(END));
        let told = address(has_address(7, "a:1"));
        assert_eq!(told, Some((7, "a:1".to_owned())));
        for refused in [&[][..], REFUSED, &[1, 2], &[2; 25]] {
            assert_eq!(accepted(Bytes::copy_from_slice(refused)), None);
        }
        for none in [
            &[][..],
            REFUSED,
            &[1; 16],
            &[2; 18],
            &[&[1; 17][..], &[0xff]].concat(),
        ] {
            assert_eq!(address(Bytes::copy_from_slice(none)), None);
        }
        for unknown in [
            &[][..],
            REFUSED,
            &[3; 40],
            &[1; 34],
            &[&[1, 2][..], &[0; 40]].concat(),
        ] {
            assert_eq!(Request::read(Bytes::copy_from_slice(unknown)), None);
        }
    }

    #[test]
    fn a_header_is_read_as_written() {
        for kind in Kind::ALL {
            let (sent, taken) = (u64::MAX, 3);
            let header = Header { kind, sent, taken };
            let mut bytes = Bytes::copy_from_slice(&header.write());
            assert_eq!(Header::read(&mut bytes.split_to(HEADER - 1)), None);
            let mut whole = Bytes::copy_from_slice(&[&header.write()[..], b"x"].concat());
            assert_eq!(Header::read(&mut whole), Some(header));
            assert_eq!(whole, "x");
        }
        let mut unknown = Bytes::from_static(&[5; HEADER]);
        assert_eq!(Header::read(&mut unknown), None);
    }
}
