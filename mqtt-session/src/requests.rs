//! SUBSCRIBE and UNSUBSCRIBE, and their answers.
//!
//! ```text
//!   SubAck --SUBACK--> done        UnsubAck --UNSUBACK--> done
//! ```
//!
//! A request is not sent again, so only the QoS that each filter asks for is kept.

use mqtt_proto::num::to_usize;
use mqtt_proto::wire::{Draft, Out, kind};
use mqtt_proto::{PacketId, PacketType, Properties, QoS, Subscription, TopicFilter};

use crate::engine::Engine;
use crate::error::Refused;
use crate::event::Token;
use crate::memory::Memory;
use crate::outgoing::check_size;
use crate::problem::Problem;
use crate::progress::{Found, Progress};
use crate::slots::Awaits;

/// The filters of a request.
#[derive(Clone, Copy)]
pub(crate) enum Filters<'a> {
    Subscribe(&'a [Subscription<'a>]),
    Unsubscribe(&'a [TopicFilter<'a>]),
}

impl<'a> Filters<'a> {
    const fn len(self) -> usize {
        match self {
            Self::Subscribe(filters) => filters.len(),
            Self::Unsubscribe(filters) => filters.len(),
        }
    }

    /// Calls `then` with each filter and its options. The filters of UNSUBSCRIBE have none.
    fn each(self, then: &mut dyn FnMut(Subscription<'a>)) {
        match self {
            Self::Subscribe(filters) => filters.iter().for_each(|filter| then(*filter)),
            Self::Unsubscribe(filters) => {
                for filter in filters {
                    then(Subscription::new(*filter, QoS::ExactlyOnce));
                }
            }
        }
    }

    const fn packet(self) -> PacketType {
        match self {
            Self::Subscribe(_) => PacketType::Subscribe,
            Self::Unsubscribe(_) => PacketType::Unsubscribe,
        }
    }
}

impl Engine {
    /// Sends SUBSCRIBE or UNSUBSCRIBE with a new packet identifier, and keeps a slot for it until its answer.
    pub(crate) fn request(
        &mut self,
        m: &mut Memory<'_>,
        filters: Filters<'_>,
        properties: Properties<'_>,
        now: u32,
    ) -> Result<Token, Refused> {
        if !self.is_connected() {
            return Err(Refused::Offline);
        }
        let open = self.slots(m).iter().filter(|slot| slot.awaits.is_request());
        if open.count() >= usize::from(self.config.requests.max(1)) {
            return Err(Refused::Full);
        }
        let version = self.session.version;
        let packet = filters.packet();
        let mut draft = Draft::with_id(packet, PacketId::FIRST, properties);
        let mut measure = Out::new(&mut []);
        draft.write_filters(version, &mut measure, &|then| filters.each(then));
        let len = measure.finish()?;
        check_size(len, self.largest_in_buffer(m))?;
        if !self.message_fits(m, len) {
            return Err(Refused::Full);
        }
        // The packet type of the answer is the next number after that of the request.
        let awaits = Awaits::answer(packet.get().wrapping_add(1));
        let mut slot = self.place(m, filters.len(), awaits, self.config.slots())?;
        let mut places = Self::slot_room(m, &slot).iter_mut();
        filters.each(&mut |filter| {
            if let Some(place) = places.next() {
                *place = filter.qos.get();
            }
        });
        draft.id = PacketId::new(slot.id());
        let mut out = Out::new(self.room(m, len));
        draft.write_filters(version, &mut out, &|then| filters.each(then));
        self.advance(len);
        // The cursor does not move past messages that wait before this slot; it skips a slot that was sent.
        slot.goes(false);
        self.add(m, slot);
        if self.link.cursor.wrapping_add(1) == self.session.len {
            self.link.cursor = self.session.len;
        }
        self.link.times.sent(now);
        Ok(slot.token())
    }

    /// Handles SUBACK or UNSUBACK. An answer without a request is ignored.
    pub(crate) fn answered(
        &mut self,
        m: &mut Memory<'_>,
        progress: &mut Progress<'_>,
    ) -> Result<(), Problem> {
        let view = &progress.view;
        let awaits = Awaits::answer(view.kind);
        // 3.1.1 [MQTT-2.3.1-7], 5 [MQTT-2.2.1-6]: the answer has the identifier of its request.
        let Some(index) = self.find(m, view.id) else {
            return Ok(());
        };
        let Some(slot) = self
            .slots(m)
            .get(index)
            .filter(|slot| slot.awaits == awaits)
        else {
            return Ok(());
        };
        let subscribes = view.kind == kind::SUBACK;
        progress.left = slot.len;
        // An UNSUBACK before MQTT 5 has no codes.
        if (subscribes || self.is_v5()) && view.body.len() != to_usize(slot.len) {
            // 3.1.1 [MQTT-3.8.4-5], 5 [MQTT-3.8.4-6]
            return Err(Problem::CodeCount);
        }
        let mut pairs = view.body.iter().zip(slot.bytes(m.kept()));
        progress.granted_more =
            subscribes && pairs.any(|(code, asked)| *code < 0x80 && code > asked);
        progress.token = slot.token();
        progress.found = if subscribes {
            Found::Subscribed
        } else {
            Found::Unsubscribed
        };
        self.remove(m, index);
        Ok(())
    }
}
