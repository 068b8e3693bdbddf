//! SUBSCRIBE and UNSUBSCRIBE, and their answers.
//!
//! ```text
//!   SubAck --SUBACK--> done        UnsubAck --UNSUBACK--> done
//! ```
//!
//! A request is not sent again, so only the QoS that each filter asks for is kept.

use mqtt_proto::num::to_usize;
use mqtt_proto::wire::kind;
use mqtt_proto::write::{Body, Request, packet_len};
use mqtt_proto::{Properties, Subscription, TopicFilter};

use crate::engine::Engine;
use crate::error::Refused;
use crate::event::Token;
use crate::memory::Memory;
use crate::outgoing::check_size;
use crate::problem::Problem;
use crate::progress::{Found, Progress};
use crate::state::slot::{Awaits, Slot};

impl Engine {
    /// Sends SUBSCRIBE, and keeps the QoS that each filter asks for.
    pub(crate) fn subscribe(
        &mut self,
        m: &mut Memory<'_>,
        filters: &[Subscription<'_>],
        properties: Properties<'_>,
        now: u32,
    ) -> Result<Token, Refused> {
        if self.is_v5() {
            self.link.unsupported.subscribe(filters, &properties)?;
        }
        let mut slot = self.next_slot(m, Awaits::answer(kind::SUBACK));
        let packet = Request {
            id: slot.packet_id(),
            properties,
            filters,
        };
        self.request(m, &mut slot, (&packet, filters.len()), now)?;
        let places = Self::slot_room(m, &slot).iter_mut();
        for (place, filter) in places.zip(filters) {
            *place = filter.qos.get();
        }
        Ok(slot.token())
    }

    /// Sends UNSUBSCRIBE.
    pub(crate) fn unsubscribe(
        &mut self,
        m: &mut Memory<'_>,
        filters: &[TopicFilter<'_>],
        properties: Properties<'_>,
        now: u32,
    ) -> Result<Token, Refused> {
        let mut slot = self.next_slot(m, Awaits::answer(kind::UNSUBACK));
        let packet = Request {
            id: slot.packet_id(),
            properties,
            filters,
        };
        self.request(m, &mut slot, (&packet, filters.len()), now)?;
        Ok(slot.token())
    }

    /// Sends a request, and keeps its slot and a byte for each filter until its answer.
    fn request(
        &mut self,
        m: &mut Memory<'_>,
        slot: &mut Slot,
        (packet, filters): (&dyn Body, usize),
        now: u32,
    ) -> Result<(), Refused> {
        if !self.is_connected() {
            return Err(Refused::Offline);
        }
        let open = self.slots(m).iter().filter(|slot| slot.awaits.is_request());
        if open.count() >= usize::from(self.config.requests.max(1)) {
            return Err(Refused::Full);
        }
        let len = packet_len(packet, self.link.version)?;
        check_size(len, self.largest_in_buffer(m))?;
        if !self.message_fits(m, len) {
            return Err(Refused::Full);
        }
        self.place(m, slot, filters, self.config.slots())?;
        self.put(m, packet, len);
        // The cursor does not move past messages that wait before this slot; it skips a slot that was sent.
        slot.goes(false);
        self.add(m, *slot);
        if self.link.cursor.wrapping_add(1) == self.session.len {
            self.link.cursor = self.session.len;
        }
        self.link.times.sent(now);
        Ok(())
    }

    /// Handles the answer to a request: it must have one code for each filter, and may grant more than was asked for.
    #[cold]
    pub(crate) fn request_answered(
        &self,
        m: &Memory<'_>,
        slot: &Slot,
        progress: &mut Progress<'_>,
    ) -> Result<(), Problem> {
        let view = &progress.view;
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
        progress.found = if subscribes {
            Found::Subscribed
        } else {
            Found::Unsubscribed
        };
        Ok(())
    }
}
