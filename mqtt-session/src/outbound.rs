//! What we send until it is acknowledged. Knows no role.
//!
//! A message at QoS 1 or 2, and each request, has a slot from its acceptance to its end:
//!
//! ```text
//!   QoS 1:  PubAck --PUBACK--> done
//!   QoS 2:  PubRec --PUBREC--> PubComp --PUBCOMP--> done        (5: a PUBREC of 0x80 or more is done)
//!   requests:  SubAck --SUBACK--> done,  UnsubAck --UNSUBACK--> done
//! ```
//!
//! Slots are in the order of their acceptance, and so are their packets in `kept`: what is sent again goes out in its
//! first order (3.1.1 \[MQTT-4.6.0-1\], 5 \[MQTT-4.6.0-1\]). Those before `Window::cursor` are on their way on this
//! connection, the others wait to be sent or sent again.

use core::ops::Range;

use mqtt_proto::{
    AckKind, Decoded, Delivery, Encode, MAX_PACKET, Packet, PacketId, Publish, QoS, ReasonCode,
    Version,
};

use crate::bytes::{copy, move_down};
use crate::config::{Config, Offline, SessionLost};
use crate::error::{Refused, Violation};
use crate::event::{Ended, Outgoing, Token};
use crate::large::{LARGE, becomes_large, is_large};
use crate::outbox::{Outbox, to_u32, to_usize};
use crate::packet_id::{Generation, PacketIds};
use crate::storage::{Memory, Table};

/// A message or request under way. Opaque; firmware lends an array of them.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    generation: Generation,
    /// Where its packet lies in `kept`.
    start: u32,
    len: u32,
    id: u16,
    awaits: Await,
    /// How it ended, once it has.
    how: Ended,
    /// Sent on this connection.
    on_wire: bool,
    /// Sent before: DUP goes with the next time.
    dup: bool,
    /// Counts in the window of this connection.
    counted: bool,
}

impl Slot {
    /// A free one, to fill an array with.
    pub const EMPTY: Self = Self {
        generation: 0,
        start: 0,
        len: 0,
        id: 0,
        awaits: Await::Connection,
        how: Ended::Sent,
        on_wire: false,
        dup: false,
        counted: false,
    };

    pub(crate) const fn generation(&self) -> Generation {
        self.generation
    }

    pub(crate) const fn packet_id(&self) -> Option<PacketId> {
        PacketId::new(self.id)
    }

    const fn token(&self) -> Token {
        Token {
            generation: self.generation,
            id: self.id,
        }
    }

    fn range(&self) -> Range<usize> {
        let start = to_usize(self.start);
        start..start.wrapping_add(to_usize(self.len))
    }

    /// Its packet.
    fn bytes<'k>(&self, kept: &'k impl Memory<u8>) -> Option<&'k [u8]> {
        kept.items().get(self.range())
    }

    const fn has_ended(&self) -> bool {
        matches!(self.awaits, Await::Told | Await::Over)
    }

    const fn end(&mut self, how: Ended) {
        (self.awaits, self.how, self.on_wire) = (Await::Told, how, true);
    }
}

impl Default for Slot {
    fn default() -> Self {
        Self::EMPTY
    }
}

/// What a slot waits for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Await {
    /// A QoS 0 message: a connection.
    Connection,
    PubAck,
    PubRec,
    PubComp,
    SubAck,
    UnsubAck,
    /// Its end is to be told to the application.
    Told,
    /// Its end was told; the message can be looked at until the next `receive`.
    Over,
}

/// What an acknowledgement leads to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Next {
    /// The end.
    Done,
    /// PUBREL goes out, and PUBCOMP is awaited.
    Release,
    /// It does not answer what was sent.
    Violation,
}

impl Await {
    pub(crate) const fn on(self, ack: AckKind, failed: bool) -> Next {
        match (self, ack, failed) {
            (Self::PubAck, AckKind::PubAck, _) | (Self::PubComp, AckKind::PubComp, _) => Next::Done,
            // 5 [MQTT-4.4.0-2]
            (Self::PubRec, AckKind::PubRec, true) => Next::Done,
            // 3.1.1 [MQTT-4.3.3-1], 5 [MQTT-4.3.3-4]; a repeated PUBREC gets its PUBREL again.
            (Self::PubRec | Self::PubComp, AckKind::PubRec, _) => Next::Release,
            _ => Next::Violation,
        }
    }
}

/// The part of the flow that dies with the connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    /// QoS 1 and 2 messages under way on this connection.
    in_flight: u16,
    /// QoS 2 among them.
    in_flight_qos2: u16,
    /// Slots before this one need not be sent.
    cursor: u16,
    /// The peer's receive maximum.
    pub(crate) receive_maximum: u16,
    /// The largest packet the peer takes.
    pub(crate) packet_size: u32,
}

impl Window {
    /// An empty window onto a peer that announced this.
    pub(crate) const fn new(receive_maximum: u16, packet_size: u32) -> Self {
        Self {
            in_flight: 0,
            in_flight_qos2: 0,
            cursor: 0,
            receive_maximum,
            packet_size,
        }
    }

    const fn has_room(&self, qos2: bool, config: &Config) -> bool {
        let most = if config.window < self.receive_maximum {
            config.window
        } else {
            self.receive_maximum
        };
        self.in_flight < if most == 0 { 1 } else { most }
            && (!qos2
                || self.in_flight_qos2
                    < if config.window_qos2 == 0 {
                        1
                    } else {
                        config.window_qos2
                    })
    }

    fn enter(&mut self, slot: &mut Slot) {
        slot.counted = true;
        self.in_flight = self.in_flight.wrapping_add(1);
        self.in_flight_qos2 = self
            .in_flight_qos2
            .wrapping_add(u16::from(slot.awaits == Await::PubRec));
    }

    /// 5, section 4.9: a PUBREL sent again was never counted, so its end must not count back.
    fn leave(&mut self, slot: &Slot, qos2: bool) {
        if slot.counted {
            self.in_flight = self.in_flight.saturating_sub(1);
            self.in_flight_qos2 = self.in_flight_qos2.saturating_sub(u16::from(qos2));
        }
    }
}

pub(crate) struct Outbound<K, T> {
    ids: PacketIds,
    slots: Table<T>,
    kept: K,
    /// End of the last packet in `kept`.
    kept_end: u32,
    /// Slots whose end is to be told, or was.
    ended: u16,
    /// The version `kept` is written in.
    version: Version,
}

impl<K: Memory<u8>, T: Memory<Slot>> Outbound<K, T> {
    pub(crate) const fn new(kept: K, slots: T, version: Version) -> Self {
        Self {
            ids: PacketIds::new(),
            slots: Table::new(slots),
            kept,
            kept_end: 0,
            ended: 0,
            version,
        }
    }

    /// Accepts a message and sends it, or keeps it while offline. `alias` puts a topic alias into the packet that goes out
    /// now, if there can be one.
    pub(crate) fn publish<M: Memory<u8>>(
        &mut self,
        message: &Outgoing<'_>,
        online: bool,
        alias: Option<impl FnOnce(&mut Publish<'_>)>,
        window: &mut Window,
        outbox: &mut Outbox<M>,
        config: &Config,
    ) -> Result<Option<Token>, Refused> {
        if !online && config.offline == Offline::Reject {
            return Err(Refused::Offline);
        }
        // What waits goes first: a new message does not overtake.
        if online && self.waits(window) {
            return Err(Refused::Full);
        }
        let mut publish = prepare(message);
        let len = publish.encoded_len(self.version)?;
        let largest = if online {
            largest_message(window, outbox, config)
        } else {
            self.kept.limit()
        };
        check_size(len, largest)?;
        let awaits = match message.qos {
            QoS::AtMostOnce => Await::Connection,
            QoS::AtLeastOnce => Await::PubAck,
            QoS::ExactlyOnce => Await::PubRec,
        };
        if !online {
            let slot = self.keep_for_later(&mut publish, len, awaits, config)?;
            return Ok(Some(slot.token()));
        }
        // 5 [MQTT-4.9.0-2]
        if awaits != Await::Connection && !window.has_room(awaits == Await::PubRec, config) {
            return Err(Refused::Full);
        }
        let room = largest_packet(window, outbox, config);
        if becomes_large(len, awaits, room) {
            return self
                .publish_large(&mut publish, (len, awaits), window, outbox, config)
                .map(Some);
        }
        // An alias is assigned when nothing can refuse the message any more, and its packet fits in any case.
        let with_alias = len.wrapping_add(ALIAS_LEN);
        let alias = alias.filter(|_| with_alias <= room);
        let most = if alias.is_some() { with_alias } else { len };
        let limit = to_usize(config.outgoing_limit);
        let Some(room) = outbox.message(most, limit) else {
            return Err(Refused::Full);
        };
        let slot = if awaits == Await::Connection {
            None
        } else {
            Some(self.keep(&mut publish, len, awaits, config.slots(), config)?)
        };
        let kept = slot.as_ref().and_then(|slot| slot.bytes(&self.kept));
        let len = match (alias, kept) {
            (None, Some(packet)) => {
                copy(room, packet);
                len
            }
            (alias, _) => {
                if let Some(alias) = alias {
                    alias(&mut publish);
                }
                publish.encode(self.version, room)?
            }
        };
        outbox.advance(len);
        Ok(slot.map(|slot| {
            if let Some(slot) = self.slots.items_mut().last_mut() {
                slot.on_wire = true;
                window.enter(slot);
            }
            window.cursor = window.cursor.wrapping_add(1);
            slot.token()
        }))
    }

    /// Accepts a message whose packet goes out from `kept`.
    #[cold]
    fn publish_large<M: Memory<u8>>(
        &mut self,
        publish: &mut Publish<'_>,
        (len, awaits): (usize, Await),
        window: &mut Window,
        outbox: &mut Outbox<M>,
        config: &Config,
    ) -> Result<Token, Refused> {
        if outbox.large.get().is_some() {
            return Err(Refused::Full);
        }
        let slot = self.keep(publish, len, awaits, config.slots(), config)?;
        if let Some(slot) = self.slots.items_mut().last_mut() {
            begin_large(slot, &mut self.kept, window, outbox);
        }
        window.cursor = window.cursor.wrapping_add(1);
        Ok(slot.token())
    }

    /// The packet of the slot with this generation.
    pub(crate) fn packet(&self, generation: Generation) -> &[u8] {
        let mut slots = self.slots.items().iter();
        let slot = slots.find(|slot| slot.generation == generation);
        slot.and_then(|slot| slot.bytes(&self.kept))
            .unwrap_or_default()
    }

    /// The transport took all of a large packet.
    pub(crate) fn large_sent(&mut self, generation: Generation) {
        self.end_large(generation, Ended::Sent);
    }

    /// A large packet does not go out to its end; of some of it the transport took a part.
    pub(crate) fn large_stopped(&mut self, generation: Generation, in_part: bool) {
        if in_part {
            return self.end_large(generation, Ended::Lost);
        }
        // As if it had never been its turn.
        let mut slots = self.slots.items_mut().iter_mut();
        if let Some(slot) = slots.find(|slot| slot.generation == generation) {
            slot.on_wire = false;
        }
    }

    /// Nothing more is awaited of a large message at QoS 0.
    fn end_large(&mut self, generation: Generation, how: Ended) {
        let mut slots = self.slots.items_mut().iter_mut();
        if let Some(slot) = slots.find(|slot| slot.generation == generation)
            && slot.awaits == Await::Connection
        {
            slot.end(how);
            self.ended = self.ended.wrapping_add(1);
        }
    }

    fn keep_for_later(
        &mut self,
        publish: &mut Publish<'_>,
        len: usize,
        awaits: Await,
        config: &Config,
    ) -> Result<Slot, Refused> {
        let most = usize::from(config.queue.max(1));
        loop {
            match self.keep(publish, len, awaits, most, config) {
                Err(Refused::Full)
                    if config.offline == Offline::DropOldest && self.drop_oldest() => {}
                result => return result,
            }
        }
    }

    /// Ends the oldest message that was never sent. Its packet makes room at once, only its end is still to be told.
    fn drop_oldest(&mut self) -> bool {
        let fresh = |slot: &&mut Slot| {
            !slot.on_wire
                && !slot.dup
                && matches!(
                    slot.awaits,
                    Await::Connection | Await::PubAck | Await::PubRec
                )
        };
        let Some(slot) = self.slots.items_mut().iter_mut().find(fresh) else {
            return false;
        };
        slot.end(Ended::Dropped);
        slot.len = 0;
        self.ended = self.ended.wrapping_add(1);
        true
    }

    /// Writes the message's packet, under a new identifier, to `kept` and gives it a slot. `most` bounds the slots that are
    /// not ended.
    fn keep(
        &mut self,
        publish: &mut Publish<'_>,
        len: usize,
        awaits: Await,
        most: usize,
        config: &Config,
    ) -> Result<Slot, Refused> {
        let slot = self.place(len, awaits, most, config)?;
        if let Some(id) = slot.packet_id() {
            set_id(publish, id);
        }
        publish.encode(self.version, self.room(&slot))?;
        self.add(slot);
        Ok(slot)
    }

    /// A slot for a packet of `len` bytes and room for it in `kept`.
    #[inline(always)]
    fn place(
        &mut self,
        len: usize,
        awaits: Await,
        most: usize,
        config: &Config,
    ) -> Result<Slot, Refused> {
        let most = most.wrapping_add(usize::from(self.ended));
        // Dropped messages whose end nobody fetches must not pile up for ever.
        let most = most.min(config.slots().saturating_mul(2));
        let start = self.make_room(len, most, config)?;
        let (id, generation) = if awaits == Await::Connection {
            (0, self.ids.generation())
        } else {
            let (id, generation) = self.ids.issue(self.slots.items());
            (id.get(), generation)
        };
        Ok(Slot {
            generation,
            start: to_u32(start),
            len: to_u32(len),
            id,
            awaits,
            ..Slot::EMPTY
        })
    }

    fn room(&mut self, slot: &Slot) -> &mut [u8] {
        let bytes = self.kept.items_mut();
        bytes.get_mut(slot.range()).unwrap_or_default()
    }

    fn add(&mut self, slot: Slot) {
        self.kept_end = slot.start.wrapping_add(slot.len);
        self.slots.push(slot, usize::MAX);
    }

    /// Sends a request under a new identifier and remembers it until its answer. `packet` writes it.
    pub(crate) fn request<P: Encode, M: Memory<u8>>(
        &mut self,
        awaits: Await,
        packet: impl Fn(PacketId) -> P,
        window: &mut Window,
        outbox: &mut Outbox<M>,
        config: &Config,
    ) -> Result<Token, Refused> {
        let requests = self
            .slots
            .items()
            .iter()
            .filter(|s| matches!(s.awaits, Await::SubAck | Await::UnsubAck))
            .count();
        if requests >= usize::from(config.requests.max(1)) {
            return Err(Refused::Full);
        }
        let len = packet(PacketId::FIRST).encoded_len(self.version)?;
        check_size(len, largest_packet(window, outbox, config))?;
        let limit = to_usize(config.outgoing_limit);
        if outbox.message(len, limit).is_none() {
            return Err(Refused::Full);
        }
        let mut slot = self.place(len, awaits, config.slots(), config)?;
        let id = slot.packet_id().unwrap_or(PacketId::FIRST);
        packet(id).encode(self.version, self.room(&slot))?;
        put(&slot, &self.kept, outbox, limit);
        // All before it that wait stay where the cursor finds them: a slot on the wire is passed over.
        slot.on_wire = true;
        self.add(slot);
        if usize::from(window.cursor).wrapping_add(1) == self.slots.len() {
            window.cursor = window.cursor.wrapping_add(1);
        }
        Ok(slot.token())
    }

    /// A place for `len` bytes in `kept`, and room for a slot.
    fn make_room(&mut self, len: usize, most: usize, config: &Config) -> Result<usize, Refused> {
        if !self.slots.make_room(most) {
            return Err(Refused::Full);
        }
        if self.slots.is_empty() {
            self.kept_end = 0;
        }
        let end = to_usize(self.kept_end);
        let wanted = end.wrapping_add(len);
        // A large message may have made the memory larger than the limit.
        let within = !LARGE || wanted <= to_usize(config.kept_limit);
        if within && wanted <= self.kept.items().len() {
            return Ok(end);
        }
        let live: usize = self
            .slots
            .items()
            .iter()
            .map(|slot| to_usize(slot.len))
            .sum();
        check_size(len, self.kept.limit())?;
        // One message may be larger than the limit, if nothing else is kept.
        let limit = if live == 0 {
            usize::MAX
        } else {
            to_usize(config.kept_limit)
        };
        // While at least half of it is in use, growing is better than moving what is in use to the front.
        if live >= end / 2 && wanted <= limit && self.kept.grow(wanted) {
            return Ok(end);
        }
        let moved = live.wrapping_add(len);
        if moved > limit || (moved > self.kept.items().len() && !self.kept.grow(moved)) {
            return Err(Refused::Full);
        }
        self.compact();
        Ok(live)
    }

    /// Moves what is kept together to the front. Slots and packets are in the same order, so nothing is overwritten.
    fn compact(&mut self) {
        let mut end = 0_usize;
        let bytes = self.kept.items_mut();
        for slot in self.slots.items_mut() {
            let start = to_usize(slot.start);
            move_down(bytes, start, to_usize(slot.len), end);
            slot.start = to_u32(end);
            end = end.wrapping_add(to_usize(slot.len));
        }
        self.kept_end = to_u32(end);
    }

    /// Whether something waits to be sent.
    #[inline]
    pub(crate) fn waits(&self, window: &Window) -> bool {
        usize::from(window.cursor) < self.slots.len()
    }

    /// Sends, in order, what waits and has room now.
    pub(crate) fn pump<M: Memory<u8>>(
        &mut self,
        window: &mut Window,
        outbox: &mut Outbox<M>,
        config: &Config,
    ) {
        while let Some(slot) = self.slots.items_mut().get_mut(usize::from(window.cursor)) {
            if !slot.on_wire
                && !Self::send(
                    slot,
                    &mut self.kept,
                    window,
                    outbox,
                    config,
                    &mut self.ended,
                )
            {
                return;
            }
            window.cursor = window.cursor.wrapping_add(1);
        }
    }

    fn send<M: Memory<u8>>(
        slot: &mut Slot,
        kept: &mut K,
        window: &mut Window,
        outbox: &mut Outbox<M>,
        config: &Config,
        ended: &mut u16,
    ) -> bool {
        if slot.awaits == Await::PubComp {
            // 3.1.1 [MQTT-4.4.0-1], 5 [MQTT-4.3.3-6]: once PUBREL is out the message is never published again.
            slot.on_wire = outbox.acknowledge(AckKind::PubRel, slot.id, ReasonCode::Success);
            return slot.on_wire;
        }
        // A resumed session may have come back with smaller limits: what no longer fits must not stall the rest.
        if to_usize(slot.len) > largest_message(window, outbox, config) {
            slot.end(Ended::TooLarge);
            *ended = ended.wrapping_add(1);
            return true;
        }
        let message = matches!(slot.awaits, Await::PubAck | Await::PubRec);
        if message && !window.has_room(slot.awaits == Await::PubRec, config) {
            return false;
        }
        if is_large(to_usize(slot.len), largest_packet(window, outbox, config)) {
            let free = outbox.large.get().is_none();
            if free {
                begin_large(slot, kept, window, outbox);
            }
            return free;
        }
        if !put(slot, kept, outbox, to_usize(config.outgoing_limit)) {
            return false;
        }
        if message {
            slot.on_wire = true;
            window.enter(slot);
        } else {
            slot.end(Ended::Sent);
            *ended = ended.wrapping_add(1);
        }
        true
    }

    /// PUBACK, PUBREC or PUBCOMP came. `Some` when a message came to its end; then what waited may go.
    #[inline]
    pub(crate) fn acknowledge<M: Memory<u8>>(
        &mut self,
        kind: AckKind,
        id: PacketId,
        reason: ReasonCode,
        window: &mut Window,
        outbox: &mut Outbox<M>,
    ) -> Result<Option<Token>, Violation> {
        let failed = reason.is_error();
        let found = self
            .slots
            .items()
            .iter()
            .position(|slot| slot.id == id.get() && !slot.has_ended());
        let (Some(index), slots) = (found, self.slots.items_mut()) else {
            // An end that was told twice is no fault; a PUBREC nobody here waits for is released, so that its
            // receiver can forget it.
            if kind == AckKind::PubRec && !failed {
                outbox.acknowledge(AckKind::PubRel, id.get(), ReasonCode::Success);
            }
            return Ok(None);
        };
        let Some(slot) = slots.get_mut(index) else {
            return Ok(None);
        };
        if outbox.large.is(slot) {
            return Err(Violation::WrongAck {
                packet: kind.packet_type(),
                id,
            });
        }
        match slot.awaits.on(kind, failed) {
            Next::Done => {
                let token = slot.token();
                let slot = *slot;
                window.leave(&slot, kind != AckKind::PubAck);
                self.remove(index, window);
                Ok(Some(token))
            }
            Next::Release => {
                // The message itself has arrived: its bytes are free.
                (slot.awaits, slot.len, slot.on_wire) = (Await::PubComp, 0, true);
                outbox.acknowledge(AckKind::PubRel, id.get(), ReasonCode::Success);
                Ok(None)
            }
            Next::Violation => Err(Violation::WrongAck {
                packet: kind.packet_type(),
                id,
            }),
        }
    }

    /// SUBACK or UNSUBACK came: the token, and the request as it was sent.
    pub(crate) fn answered(
        &mut self,
        awaits: Await,
        id: PacketId,
    ) -> Option<(usize, Token, &[u8])> {
        let index = self
            .slots
            .items()
            .iter()
            .position(|slot| slot.id == id.get() && slot.awaits == awaits)?;
        let slot = self.slots.items().get(index)?;
        Some((index, slot.token(), slot.bytes(&self.kept)?))
    }

    pub(crate) fn remove(&mut self, index: usize, window: &mut Window) {
        self.slots.remove(index);
        if LARGE && self.slots.is_empty() {
            self.kept.give_back(KEPT_WHEN_EMPTY);
        }
        if index < usize::from(window.cursor) {
            window.cursor = window.cursor.saturating_sub(1);
        }
    }

    /// The next end that no packet told, if there is one. What was told before is forgotten.
    pub(crate) fn next_ended(&mut self, window: &mut Window) -> Option<(Token, Ended)> {
        if self.ended == 0 {
            return None;
        }
        self.tell_ended(window)
    }

    #[cold]
    fn tell_ended(&mut self, window: &mut Window) -> Option<(Token, Ended)> {
        if let Some(index) = self
            .slots
            .items()
            .iter()
            .position(|slot| slot.awaits == Await::Over)
        {
            self.remove(index, window);
            self.ended = self.ended.saturating_sub(1);
        }
        self.slots
            .items_mut()
            .iter_mut()
            .find_map(|slot| match slot.awaits {
                Await::Told => {
                    slot.awaits = Await::Over;
                    Some((slot.token(), slot.how))
                }
                _ => None,
            })
    }

    /// Whether an end is still to be told.
    pub(crate) const fn has_ended(&self) -> bool {
        self.ended > 0
    }

    /// The message of a token that is not acknowledged, or whose end was told last.
    pub(crate) fn message(&self, token: Token) -> Option<Publish<'_>> {
        let slot = self
            .slots
            .items()
            .iter()
            .find(|slot| slot.token() == token)?;
        self.read(slot)
    }

    /// The messages that have not ended and whose bytes are still needed.
    pub(crate) fn messages(&self) -> impl Iterator<Item = (Token, Publish<'_>)> {
        let open = |slot: &&Slot| {
            matches!(
                slot.awaits,
                Await::Connection | Await::PubAck | Await::PubRec
            )
        };
        self.slots
            .items()
            .iter()
            .filter(open)
            .filter_map(|slot| Some((slot.token(), self.read(slot)?)))
    }

    fn read(&self, slot: &Slot) -> Option<Publish<'_>> {
        match Packet::decode(slot.bytes(&self.kept)?, self.version, MAX_PACKET) {
            Ok(Decoded::Packet {
                packet: Packet::Publish(publish),
                ..
            }) => Some(publish),
            _ => None,
        }
    }

    /// How many messages and requests are not ended.
    pub(crate) fn pending(&self) -> usize {
        self.slots.len().saturating_sub(usize::from(self.ended))
    }

    /// The connection is gone: requests are in doubt, messages wait for the next one.
    pub(crate) fn disconnected(&mut self) {
        let ended = &mut self.ended;
        for slot in self.slots.items_mut() {
            match slot.awaits {
                Await::SubAck | Await::UnsubAck => {
                    slot.end(Ended::InDoubt);
                    *ended = ended.wrapping_add(1);
                }
                Await::PubAck | Await::PubRec => slot.dup |= slot.on_wire,
                Await::Connection | Await::PubComp | Await::Told | Await::Over => {}
            }
            slot.counted = false;
            slot.on_wire = slot.has_ended();
        }
    }

    /// The peer has no session: what was sent before is in doubt, or new again. What was never sent stays.
    pub(crate) fn session_lost(&mut self, policy: SessionLost) {
        let ended = &mut self.ended;
        for slot in self.slots.items_mut() {
            let received = slot.awaits == Await::PubComp;
            let hand_back = slot.dup && policy == SessionLost::HandBack && !slot.has_ended();
            if received || hand_back {
                slot.end(Ended::InDoubt);
                *ended = ended.wrapping_add(1);
            }
            slot.dup = false;
        }
    }

    /// Packets are kept in one version: what was kept in the other cannot be sent any more.
    pub(crate) fn set_version(&mut self, version: Version) {
        if version.is_v5() != self.version.is_v5() {
            let ended = &mut self.ended;
            for slot in self
                .slots
                .items_mut()
                .iter_mut()
                .filter(|slot| !slot.has_ended())
            {
                slot.end(Ended::InDoubt);
                slot.len = 0;
                *ended = ended.wrapping_add(1);
            }
        }
        self.version = version;
    }

    /// Forgets everything at once, told or not.
    pub(crate) fn clear(&mut self) {
        self.slots.clear();
        if LARGE {
            self.kept.give_back(KEPT_WHEN_EMPTY);
        }
        (self.kept_end, self.ended) = (0, 0);
    }
}

/// How large the memory of kept packets may stay when there are none: as much as outgoing packets have by default, so that
/// windows of usual size do not allocate again and again.
const KEPT_WHEN_EMPTY: usize = 256 << 10;

/// How much longer a topic alias can make a packet: three bytes, and one more for each of the two lengths.
const ALIAS_LEN: usize = 5;

fn check_size(len: usize, max: usize) -> Result<(), Refused> {
    if len > max {
        Err(Refused::TooLarge { len, max })
    } else {
        Ok(())
    }
}

/// The largest packet that the peer takes and the buffer holds.
fn largest_packet<M: Memory<u8>>(window: &Window, outbox: &Outbox<M>, config: &Config) -> usize {
    to_usize(window.packet_size).min(outbox.largest_message(to_usize(config.outgoing_limit)))
}

/// The largest PUBLISH that the peer takes and that can be sent.
fn largest_message<M: Memory<u8>>(window: &Window, outbox: &Outbox<M>, config: &Config) -> usize {
    if LARGE {
        to_usize(window.packet_size)
    } else {
        largest_packet(window, outbox, config)
    }
}

/// The packet of a slot goes out from where it is kept.
fn begin_large<M: Memory<u8>>(
    slot: &mut Slot,
    kept: &mut impl Memory<u8>,
    window: &mut Window,
    outbox: &mut Outbox<M>,
) {
    slot.on_wire = true;
    if slot.awaits != Await::Connection {
        window.enter(slot);
    }
    // 3.1.1 [MQTT-3.3.1-1], 5 [MQTT-3.3.1-1]; a session that was lost takes it back.
    if let Some(first) = kept.items_mut().get_mut(to_usize(slot.start)) {
        *first = *first & !DUP | if slot.dup { DUP } else { 0 };
    }
    outbox.begin_large(slot.generation);
}

/// DUP in the first byte of a PUBLISH.
const DUP: u8 = 0b1000;

/// Sends the packet of a slot as it is kept; `false` without room.
fn put<M: Memory<u8>>(
    slot: &Slot,
    kept: &impl Memory<u8>,
    outbox: &mut Outbox<M>,
    limit: usize,
) -> bool {
    let packet = slot.bytes(kept).unwrap_or_default();
    let Some(room) = outbox.message(packet.len(), limit) else {
        return false;
    };
    copy(room, packet);
    // 3.1.1 [MQTT-3.3.1-1], 5 [MQTT-3.3.1-1]
    if let (true, Some(first)) = (slot.dup, room.first_mut()) {
        *first |= DUP;
    }
    outbox.advance(packet.len());
    true
}

/// The packet of a message, under the first identifier until it has its own.
const fn prepare<'a>(message: &Outgoing<'a>) -> Publish<'a> {
    let mut publish = Publish::new(message.topic, message.payload);
    publish.retain = message.retain;
    publish.properties = message.properties;
    publish.delivery = match message.qos {
        QoS::AtMostOnce => Delivery::AtMostOnce,
        QoS::AtLeastOnce => Delivery::AtLeastOnce(PacketId::FIRST),
        QoS::ExactlyOnce => Delivery::ExactlyOnce(PacketId::FIRST),
    };
    publish
}

const fn set_id(publish: &mut Publish<'_>, id: PacketId) {
    publish.delivery = match publish.delivery {
        Delivery::AtMostOnce => Delivery::AtMostOnce,
        Delivery::AtLeastOnce(_) => Delivery::AtLeastOnce(id),
        Delivery::ExactlyOnce(_) => Delivery::ExactlyOnce(id),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table is complete: each pair of what is awaited and what comes has the end the standard gives it.
    #[test]
    fn each_acknowledgement_ends_or_goes_on_as_the_standard_says() {
        let kinds = [
            AckKind::PubAck,
            AckKind::PubRec,
            AckKind::PubRel,
            AckKind::PubComp,
        ];
        for awaits in [
            Await::PubAck,
            Await::PubRec,
            Await::PubComp,
            Await::SubAck,
            Await::UnsubAck,
            Await::Connection,
        ] {
            for kind in kinds {
                for failed in [false, true] {
                    let expected = match (awaits, kind) {
                        (Await::PubAck, AckKind::PubAck) | (Await::PubComp, AckKind::PubComp) => {
                            Next::Done
                        }
                        (Await::PubRec, AckKind::PubRec) if failed => Next::Done,
                        (Await::PubRec | Await::PubComp, AckKind::PubRec) => Next::Release,
                        _ => Next::Violation,
                    };
                    assert_eq!(
                        awaits.on(kind, failed),
                        expected,
                        "{awaits:?} {kind:?} {failed}"
                    );
                }
            }
        }
    }
}
