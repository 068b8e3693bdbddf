//! Outgoing bytes, until the transport has taken them. Messages leave a reserve free, so that acknowledgements and pings always
//! have room and do not wait for messages.

use mqtt_proto::num::{to_u32, to_usize};
use mqtt_proto::write::{Body, packet_len, write_packet};
use mqtt_proto::{PacketType, ReasonCode};

use crate::bytes::{copy, move_down, part};
use crate::engine::Engine;
use crate::error::Refused;
use crate::memory::Memory;
use crate::state::link::Phase;
use crate::tune::{JOURNAL, LARGE, not_inlined_on_devices};

/// Bytes that messages leave free. An acknowledgement takes at most 5. On a heap, [`Engine::answer_fits`] allows more, which a
/// peer that keeps to the receive maximum cannot use up.
pub(crate) const RESERVE: usize = 64;

/// The length of the longest acknowledgement that is sent: fixed header, packet identifier and reason code.
const ACK_LEN: usize = 5;

/// How many bytes acknowledgements on a heap may take beyond the limit of messages: room for more than 65,535 of them, the
/// largest window, at 5 bytes each.
const CONTROL_BEYOND_LIMIT: usize = 512 << 10;

impl Engine {
    /// Returns how many bytes wait for the transport, without a large packet.
    #[inline]
    pub(crate) fn waiting(&self) -> usize {
        to_usize(self.link.end.wrapping_sub(self.link.start))
    }

    /// Returns the bytes that wait for the transport, without a large packet.
    #[inline]
    pub(crate) fn written<'m>(&self, m: &'m Memory<'_>) -> &'m [u8] {
        part(m.outgoing(), to_usize(self.link.start), self.waiting())
    }

    /// Removes `n` bytes that the transport has taken, and writes what waited for room.
    #[inline]
    pub(crate) fn sent(&mut self, m: &mut Memory<'_>, n: usize) {
        if JOURNAL {
            self.count_sent(n.min(self.outgoing(m).len()));
        }
        if self.large.get().is_none() {
            self.written_sent(n);
        } else {
            self.sent_with_large(m, n);
        }
        if self.is_connected() {
            self.flush(m);
            self.pump(m);
        }
    }

    #[inline]
    pub(crate) fn written_sent(&mut self, n: usize) {
        let start = to_usize(self.link.start).saturating_add(n);
        self.link.start = to_u32(start).min(self.link.end);
        if self.link.start == self.link.end {
            self.moved_to_front();
        }
    }

    /// Adjusts the places of the waiting bytes after they moved to the front.
    fn moved_to_front(&mut self) {
        let link = &mut self.link;
        if let Some(large) = self.large.get_mut() {
            large.at = large.at.saturating_sub(link.start);
        }
        (link.start, link.end) = (0, link.end.wrapping_sub(link.start));
    }

    /// Discards all bytes that wait, and the large packet.
    pub(crate) fn clear_outgoing(&mut self) {
        (self.link.start, self.link.end) = (0, 0);
        self.large.clear();
        self.clear_barriers();
    }

    not_inlined_on_devices! {
        /// Returns the length of the longest message that can be sent: what the buffer leaves beside the reserve.
        pub(crate) fn largest_in_buffer(&self, m: &Memory<'_>) -> usize {
            self.largest(m, RESERVE)
        }
    }

    /// Returns the length of the longest packet that the peer accepts and the buffer can hold beside `reserve` bytes.
    fn largest(&self, m: &Memory<'_>, reserve: usize) -> usize {
        let limit = m.outgoing_limit().min(self.config.most_outgoing());
        limit
            .saturating_sub(reserve)
            .min(to_usize(self.link.longest_packet()))
    }

    /// Returns whether a message of `len` bytes has room beside the reserve. Its place is behind the waiting bytes, see
    /// [`Self::room`].
    #[inline]
    pub(crate) fn message_fits(&mut self, m: &mut Memory<'_>, len: usize) -> bool {
        let waiting = self.waiting();
        let total = waiting.saturating_add(len).saturating_add(RESERVE);
        // An empty buffer accepts any message that fits into it.
        (total <= self.config.most_outgoing() || waiting == 0)
            && self.make_room(m, len.saturating_add(RESERVE))
    }

    /// Returns whether `len` bytes of control packets have room. On a heap the waiting ones are limited as well.
    #[inline]
    fn control_fits(&mut self, m: &mut Memory<'_>, len: usize) -> bool {
        let most = self.config.most_outgoing();
        self.waiting().wrapping_add(len) <= most.saturating_add(CONTROL_BEYOND_LIMIT)
            && self.make_room(m, len)
    }

    /// Returns whether the answer to any packet has room.
    #[inline]
    pub(crate) fn answer_fits(&mut self, m: &mut Memory<'_>) -> bool {
        self.control_fits(m, ACK_LEN) && self.record_fits(m, 0)
    }

    /// Returns the room behind the waiting bytes. What is written there becomes outgoing with [`Self::advance`].
    #[inline]
    pub(crate) fn room<'m>(&self, m: &'m mut Memory<'_>) -> &'m mut [u8] {
        let end = to_usize(self.link.end);
        m.outgoing_mut().get_mut(end..).unwrap_or_default()
    }

    /// Makes `len` bytes that were written to the room outgoing.
    #[inline]
    pub(crate) fn advance(&mut self, len: usize) {
        self.link.end = self.link.end.wrapping_add(to_u32(len));
    }

    #[inline]
    fn make_room(&mut self, m: &mut Memory<'_>, len: usize) -> bool {
        to_usize(self.link.end).wrapping_add(len) <= m.outgoing().len()
            || self.make_room_by_moving(m, len)
    }

    #[cold]
    #[inline(never)]
    fn make_room_by_moving(&mut self, m: &mut Memory<'_>, len: usize) -> bool {
        let (start, end) = (to_usize(self.link.start), to_usize(self.link.end));
        let wanted = end.wrapping_add(len);
        if !LARGE {
            move_down(m.outgoing_mut(), start..end, 0);
            self.moved_to_front();
            return wanted.wrapping_sub(start) <= m.outgoing().len();
        }
        // The buffer grows while most of it is unsent. Otherwise the rest moves to the front, which moves fewer bytes than it
        // frees.
        let mostly_sent = start >= end.wrapping_sub(start);
        if !mostly_sent && m.grow_outgoing(wanted) {
            return true;
        }
        if !m.grow_outgoing(wanted.wrapping_sub(start)) {
            return false;
        }
        move_down(m.outgoing_mut(), start..end, 0);
        self.moved_to_front();
        true
    }

    /// Sends an acknowledgement. All acknowledgements are sent by this function. They have a reason code only if it is not
    /// success, which needs MQTT 5, and never properties. Returns `false` if there is no room.
    #[inline]
    pub(crate) fn acknowledgement(
        &mut self,
        m: &mut Memory<'_>,
        packet: PacketType,
        id: u16,
        reason: ReasonCode,
    ) -> bool {
        if !self.make_room(m, ACK_LEN) {
            return false;
        }
        self.acknowledgement_waits(m, packet);
        let flags = if matches!(packet, PacketType::PubRel) {
            2
        } else {
            0
        };
        let first = packet.get() << 4 | flags;
        // 5 [MQTT-3.4.2-2], [MQTT-3.4.2-3], [MQTT-3.5.2-2], [MQTT-3.5.2-3], [MQTT-3.6.2-2], [MQTT-3.6.2-3],
        // 5 [MQTT-3.7.2-2] and [MQTT-3.7.2-3]: without properties it is never too large for the peer.
        // 5 [MQTT-3.1.2-29]: no reason strings.
        let more = u8::from(reason != ReasonCode::Success);
        // 3.1.1 [MQTT-2.3.1-6], 5 [MQTT-2.2.1-5]: the identifier of the PUBLISH.
        let [high, low] = id.to_be_bytes();
        if let Some(room) = self.room(m).first_chunk_mut() {
            *room = [first, 2_u8.wrapping_add(more), high, low, reason.get()];
        }
        self.advance(usize::from(more).wrapping_add(4));
        true
    }

    /// Sends a packet that has only a fixed header, or also a reason code. Without room it is not sent.
    pub(crate) fn send_short(
        &mut self,
        m: &mut Memory<'_>,
        packet: PacketType,
        reason: Option<ReasonCode>,
    ) {
        let len = if reason.is_some() { 3 } else { 2 };
        if len > self.link.longest_packet() || !self.control_fits(m, 3) {
            return;
        }
        let reason_code = reason.map_or(0, ReasonCode::get);
        if let Some(room) = self.room(m).first_chunk_mut() {
            *room = [packet.get() << 4, u8::from(reason.is_some()), reason_code];
        }
        self.advance(to_usize(len));
    }

    /// Sends a packet that is neither a message, a request nor an acknowledgement.
    #[inline(never)]
    pub(crate) fn send(&mut self, m: &mut Memory<'_>, packet: &dyn Body) -> Result<(), Refused> {
        let len = packet_len(packet, self.link.version)?;
        // 5 [MQTT-3.2.2-19], [MQTT-3.2.2-20], [MQTT-3.9.2-1], [MQTT-3.9.2-2], [MQTT-3.11.2-1], [MQTT-3.11.2-2],
        // 5 [MQTT-3.14.2-3], [MQTT-3.14.2-4], [MQTT-3.15.2-2] and [MQTT-3.15.2-3]: no packet goes out that is too
        // large for the peer.
        check_size(len, self.largest(m, 0))?;
        if !self.control_fits(m, len) {
            return Err(Refused::Full);
        }
        self.put(m, packet, len);
        Ok(())
    }

    /// Writes a packet of `len` bytes that has room behind the waiting bytes.
    pub(crate) fn put(&mut self, m: &mut Memory<'_>, packet: &dyn Body, len: usize) {
        write_packet(packet, self.link.version, len, self.room(m));
        self.advance(len);
    }

    /// Sends bytes that are a packet of another version than that of the connection.
    #[cfg(feature = "server")]
    pub(crate) fn send_bytes(&mut self, m: &mut Memory<'_>, packet: &[u8]) {
        if self.link.phase != Phase::Offline && self.control_fits(m, packet.len()) {
            copy(self.room(m), packet);
            self.advance(packet.len());
        }
    }
}

/// Checks that a packet of `len` bytes is not longer than `max`.
pub(crate) fn check_size(len: usize, max: usize) -> Result<(), Refused> {
    if len > max {
        Err(Refused::TooLarge { len, max })
    } else {
        Ok(())
    }
}
