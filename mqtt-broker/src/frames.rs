//! Counts the packets in a stream of bytes that comes in pieces of any length, by their fixed headers.

use mqtt_session::proto::num::{to_u32, to_usize};

use crate::broker::Broker;
use crate::connection::ConnectionId;
use crate::hooks::Hooks;

/// Where the stream is within its packet.
#[derive(Clone, Copy, Debug)]
enum PacketPlace {
    /// This number of bytes of the packet is left.
    Body(u32),
    /// The length of the packet is being read: the bits so far, and how many.
    Length(u32, u32),
}

/// A counter of packets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frames(PacketPlace);

impl Default for Frames {
    fn default() -> Self {
        Self(PacketPlace::Body(0))
    }
}

impl<H: Hooks> Broker<H> {
    /// Returns whether the client of a connection uses MQTT 5 and is connected, and its transport took only whole packets: it understands a
    /// DISCONNECT that the host writes without this broker, after a defect.
    #[must_use]
    pub fn takes_disconnect(&self, id: ConnectionId) -> bool {
        self.connection(id).is_some_and(|connection| {
            connection.session.is_some()
                && connection.server.version().is_v5()
                && connection.frames.is_between()
        })
    }
}

impl Frames {
    /// Returns whether the stream ends with a whole packet.
    const fn is_between(self) -> bool {
        matches!(self.0, PacketPlace::Body(0))
    }

    /// Takes the next bytes of the stream. Returns how many packets begin in them.
    pub(crate) fn count(&mut self, mut bytes: &[u8]) -> u64 {
        let mut begun = 0_u64;
        loop {
            if let PacketPlace::Body(left) = self.0 {
                if left == 0 {
                    (begun, bytes) = count_short(begun, bytes);
                }
                let Some(rest) = bytes.get(to_usize(left)..) else {
                    let took = to_u32(bytes.len());
                    self.0 = PacketPlace::Body(left.saturating_sub(took));
                    return begun;
                };
                self.0 = PacketPlace::Body(0);
                let Some((_, behind)) = rest.split_first() else {
                    return begun;
                };
                begun = begun.saturating_add(1);
                (self.0, bytes) = (PacketPlace::Length(0, 0), behind);
            }
            while let PacketPlace::Length(bits, shift) = self.0 {
                let Some((byte, behind)) = bytes.split_first() else {
                    return begun;
                };
                let bits = bits | u32::from(byte & 0x7F).checked_shl(shift).unwrap_or(0);
                self.0 = if byte & 0x80 == 0 {
                    PacketPlace::Body(bits)
                } else {
                    PacketPlace::Length(bits, shift.saturating_add(7))
                };
                bytes = behind;
            }
        }
    }
}

/// Counts the complete packets of less than 130 bytes at the front. Returns the new count and the remaining bytes.
fn count_short(mut begun: u64, mut bytes: &[u8]) -> (u64, &[u8]) {
    while let [_, len @ ..0x80, behind @ ..] = bytes
        && let Some(rest) = behind.get(usize::from(*len)..)
    {
        begun = begun.saturating_add(1);
        bytes = rest;
    }
    (begun, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However a stream is cut, it has the same packets: PINGRESP, a PUBLISH of 300 bytes, PUBACK, PUBACK.
    #[test]
    fn packets_are_counted_however_they_are_cut() {
        let mut stream = vec![0xD0, 0, 0x30, 0xAC, 2];
        stream.resize(5 + 300, 0xD0);
        stream.extend([0x40, 2, 0, 1, 0x40, 2, 0, 2]);
        for len in 1..=stream.len() {
            let mut frames = Frames::default();
            let count: u64 = stream.chunks(len).map(|piece| frames.count(piece)).sum();
            assert_eq!(count, 4, "pieces of {len}");
        }
        let mut frames = Frames::default();
        let each: Vec<_> = stream[..8]
            .iter()
            .map(|byte| frames.count(&[*byte]))
            .collect();
        assert_eq!(each, [1, 0, 1, 0, 0, 0, 0, 0]);
    }
}
