//! The frames of the peer. The payload of a data frame is passed on as it arrives, so that no memory depends on the length that a frame
//! announces: MQTT has limits of its own for packets. A control frame, which is short, is collected.

use std::io::Cursor;

use bytes::BytesMut;
use tungstenite::error::{CapacityError, Error as Fault, ProtocolError};
use tungstenite::protocol::Role;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Data, OpCode};

/// Splits the bytes of the peer into frames.
#[derive(Debug)]
pub(super) struct Incoming {
    role: Role,
    /// The bytes of an unfinished header, or of a control frame.
    collected: Vec<u8>,
    /// What follows in the bytes of the peer.
    next: Next,
    /// Whether the last data frame was not the final one of its message.
    is_fragmented: bool,
}

#[derive(Clone, Copy, Debug)]
enum Next {
    Header,
    /// The payload of a data frame: how many bytes are left, and the mask of the next ones.
    Data(u64, [u8; 4]),
    /// How many bytes of a control frame are left.
    Control(usize),
}

/// What the bytes of the peer completed, beside payload.
#[derive(Debug)]
pub(super) enum Found {
    /// All bytes were taken.
    Nothing,
    /// A control frame, with its header and its mask. Its header has passed [`Incoming::check`].
    Control(Vec<u8>),
    /// The header of a text frame.
    Text,
}

/// The largest header: two bytes, a length of eight bytes and a mask.
const HEADER: usize = 14;

/// RFC 6455, 5.5: the largest payload of a control frame.
const CONTROL: usize = 125;

/// The bytes of the largest control frame.
pub(super) const CONTROL_FRAME: usize = HEADER + CONTROL;

/// RFC 6455, 5.2: the highest bit of a length is 0.
const LONGEST: u64 = u64::MAX >> 1;

impl Incoming {
    pub(super) const fn new(role: Role) -> Self {
        Self {
            role,
            collected: Vec::new(),
            next: Next::Header,
            is_fragmented: false,
        }
    }

    /// Takes bytes from `wire` up to the end of a control frame or of the header of a text frame, and appends the payload of binary
    /// frames to `plain`.
    pub(super) fn take(&mut self, wire: &mut &[u8], plain: &mut BytesMut) -> Result<Found, Fault> {
        while !wire.is_empty() {
            match self.next {
                Next::Header => {
                    if let Some((header, len)) = self.header(wire)? {
                        self.check(&header, len)?;
                        if self.begin(&header, len) {
                            return Ok(Found::Text);
                        }
                    }
                }
                Next::Data(left, mask) => {
                    let n = usize::try_from(left).map_or(wire.len(), |left| left.min(wire.len()));
                    append_unmasked(plain, split(wire, n), mask);
                    let left = left.saturating_sub(u64::try_from(n).unwrap_or(u64::MAX));
                    self.next = match left {
                        0 => Next::Header,
                        _ => Next::Data(left, rotated(mask, n)),
                    };
                }
                Next::Control(left) => {
                    let n = left.min(wire.len());
                    self.collected.extend_from_slice(split(wire, n));
                    self.next = Next::Control(left.saturating_sub(n));
                }
            }
            if let Next::Control(0) = self.next {
                self.next = Next::Header;
                return Ok(Found::Control(std::mem::take(&mut self.collected)));
            }
        }
        Ok(Found::Nothing)
    }

    /// Takes bytes of a header. Returns it and the length of the payload when it is whole; its bytes stay collected.
    fn header(&mut self, wire: &mut &[u8]) -> Result<Option<(FrameHeader, u64)>, Fault> {
        let before = self.collected.len();
        let n = HEADER.saturating_sub(before).min(wire.len());
        self.collected
            .extend_from_slice(wire.get(..n).unwrap_or_default());
        let mut cursor = Cursor::new(&self.collected[..]);
        let parsed = FrameHeader::parse(&mut cursor)?;
        let end = usize::try_from(cursor.position()).unwrap_or(HEADER);
        if parsed.is_some() {
            // The other collected bytes are the payload's, and stay in `wire`.
            self.collected.truncate(end);
        }
        split(wire, self.collected.len().saturating_sub(before));
        Ok(parsed)
    }

    /// Checks a header against the rules of RFC 6455 that do not depend on the payload.
    fn check(&self, header: &FrameHeader, len: u64) -> Result<(), Fault> {
        let is_masked = header.mask.is_some();
        let error = match header.opcode {
            // 5.2: without an extension, the reserved bits are 0.
            _ if header.rsv1 || header.rsv2 || header.rsv3 => ProtocolError::NonZeroReservedBits,
            // 5.1: clients mask their frames, servers do not.
            _ if self.role == Role::Server && !is_masked => ProtocolError::UnmaskedFrameFromClient,
            _ if self.role == Role::Client && is_masked => ProtocolError::MaskedFrameFromServer,
            OpCode::Control(_) if !header.is_final => ProtocolError::FragmentedControlFrame,
            OpCode::Control(_) if usize::try_from(len).map_or(true, |len| len > CONTROL) => {
                ProtocolError::ControlFrameTooBig
            }
            _ if len > LONGEST => {
                let size = |len| usize::try_from(len).unwrap_or(usize::MAX);
                return Err(Fault::Capacity(CapacityError::MessageTooLong {
                    size: size(len),
                    max_size: size(LONGEST),
                }));
            }
            // 5.4: the frames of a message follow each other; control frames may be between them.
            OpCode::Data(Data::Continue) if !self.is_fragmented => {
                ProtocolError::UnexpectedContinueFrame
            }
            OpCode::Data(data @ (Data::Text | Data::Binary)) if self.is_fragmented => {
                ProtocolError::ExpectedFragment(data)
            }
            // The parser refuses reserved opcodes.
            _ => return Ok(()),
        };
        Err(error.into())
    }

    /// Begins the frame of a header that is checked. Returns whether it has text.
    fn begin(&mut self, header: &FrameHeader, len: u64) -> bool {
        if let OpCode::Control(_) = header.opcode {
            self.next = Next::Control(usize::try_from(len).unwrap_or(CONTROL));
            return false;
        }
        self.collected.clear();
        self.is_fragmented = !header.is_final;
        if len > 0 {
            self.next = Next::Data(len, header.mask.unwrap_or_default());
        }
        header.opcode == OpCode::Data(Data::Text)
    }
}

/// Takes the first `n` bytes, or all if there are fewer.
fn split<'a>(wire: &mut &'a [u8], n: usize) -> &'a [u8] {
    let (taken, rest) = wire.split_at_checked(n).unwrap_or((*wire, &[]));
    *wire = rest;
    taken
}

/// Appends payload without its mask. RFC 6455, 5.3: each byte has one of the four bytes of the mask, in turn.
fn append_unmasked(plain: &mut BytesMut, payload: &[u8], mask: [u8; 4]) {
    let begin = plain.len();
    plain.extend_from_slice(payload);
    if mask == [0; 4] {
        return;
    }
    let [a, b, c, d] = mask;
    let twice = [a, b, c, d, a, b, c, d];
    let added = plain.get_mut(begin..).unwrap_or_default();
    let (words, rest) = added.as_chunks_mut();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ u64::from_ne_bytes(twice)).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(twice) {
        *byte ^= mask;
    }
}

/// Returns the mask of what follows after `n` bytes.
fn rotated(mut mask: [u8; 4], n: usize) -> [u8; 4] {
    mask.rotate_left(n % 4);
    mask
}
