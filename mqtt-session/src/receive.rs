//! Incoming packets. One function does a step for every role; the role decides which packets are accepted.

use mqtt_proto::num::to_u32;
use mqtt_proto::wire::{Frame, Layout, Reader, View, frame, kind, layout};
use mqtt_proto::{PacketType, PropertyId, ReasonCode};

use crate::engine::Engine;
use crate::inbound::Arrival;
use crate::memory::Memory;
use crate::pieces::may_be_in_pieces;
use crate::problem::Problem;
use crate::progress::{Found, Progress};
use crate::state::link::Phase;
use crate::state::session::fingerprint;
use crate::tune::{FAST, JOURNAL, V5};

impl Engine {
    /// Does one step over the front of the input. An error ends the connection.
    #[inline]
    pub(crate) fn step<'i>(
        &mut self,
        m: &mut Memory<'_>,
        progress: &mut Progress<'i>,
    ) -> Result<(), Problem> {
        let waiting = self.waiting();
        let result = if FAST && let Some(result) = self.fast_step(m, progress) {
            result
        } else {
            self.full_step(m, progress)
        };
        if self.waiting() != waiting {
            self.link.times.sent(progress.now);
        }
        if let Err(problem) = result {
            let reason = match problem {
                Problem::Malformed => self.malformed_reason(progress),
                other => other.reason_code(),
            };
            self.fail(m, reason);
        }
        result
    }

    #[cold]
    fn malformed_reason(&self, progress: &Progress<'_>) -> ReasonCode {
        ReasonCode::new(progress.fault.reason()).unwrap_or(ReasonCode::MalformedPacket)
    }

    /// The fast path for most packets: handles a complete PUBLISH, or an acknowledgement of four bytes, on a connection, if the
    /// answer has room. For anything else, and if a rule of the bytes is broken, it returns `None`, and the full step decides.
    #[inline]
    fn fast_step<'i>(
        &mut self,
        m: &mut Memory<'_>,
        progress: &mut Progress<'i>,
    ) -> Option<Result<(), Problem>> {
        if !self.is_connected() || self.has_ended() || self.link.pieces.is_some() || progress.full {
            return None;
        }
        let input = progress.input;
        let packet = input.first()? >> 4;
        if packet == kind::PUBLISH {
            return self.fast_publish(m, progress);
        }
        let [first, 2, high, low] = *input.first_chunk()? else {
            return None;
        };
        let id = u16::from_be_bytes([high, low]);
        let flags = if packet == kind::PUBREL { 2 } else { 0 };
        if !(kind::PUBACK..=kind::PUBCOMP).contains(&packet)
            || first & 15 != flags
            || id == 0
            || self.link.ours.packet < 4
            || !self.answer_fits(m)
        {
            return None;
        }
        (progress.view.kind, progress.view.id, progress.consumed) = (packet, id, 4);
        self.heard(m, progress.now);
        Some(self.answer_came(m, progress))
    }

    #[inline]
    fn fast_publish<'i>(
        &mut self,
        m: &mut Memory<'_>,
        progress: &mut Progress<'i>,
    ) -> Option<Result<(), Problem>> {
        let (v5, limit) = (self.is_v5(), self.link.ours.packet);
        let (block, consumed) = progress.view.read_publish(progress.input, v5, limit)?;
        if block.alias != 0
            || self.is_server() && block.has(PropertyId::SubscriptionIdentifier)
            || !self.answer_fits(m)
        {
            return None;
        }
        progress.consumed = consumed;
        self.heard(m, progress.now);
        Some(self.message(m, progress))
    }

    #[inline(never)]
    fn full_step<'i>(
        &mut self,
        m: &mut Memory<'_>,
        progress: &mut Progress<'i>,
    ) -> Result<(), Problem> {
        if self.has_ended()
            && let Some((token, how)) = self.next_ended(m)
        {
            (progress.found, progress.token, progress.how) = (Found::Ended, token, how);
            return Ok(());
        }
        let input = progress.input;
        if matches!(self.link.phase, Phase::Offline | Phase::Closing) {
            // Bytes that arrive without a connection are dropped.
            (progress.found, progress.consumed) = if input.is_empty() {
                (Found::Needs, 1)
            } else {
                (Found::Nothing, input.len())
            };
            return Ok(());
        }
        if self.link.pieces.is_some() {
            return self.piece(m, progress);
        }
        let frame = frame(input, self.is_v5(), self.link.ours.packet);
        progress.view.kind = frame.kind();
        if frame.fault.is_some() {
            progress.fault = frame.fault;
            return Err(Problem::Malformed);
        }
        let whole = frame.body(input);
        if whole.is_none() {
            if !progress.full {
                self.drained(progress.now);
                (progress.found, progress.consumed) = (Found::Needs, frame.needs());
                return Ok(());
            }
            if frame.head == 0 || !may_be_in_pieces(frame.kind()) {
                return Err(no_room(progress, frame));
            }
        }
        // 3.1.1 [MQTT-3.1.4-5], 5 [MQTT-3.1.4-6]: packets after CONNECT wait for the decision on it.
        if self.is_undecided() && frame.kind() != kind::AUTH {
            progress.found = Found::Blocked;
            return Ok(());
        }
        self.heard(m, progress.now);
        // No state changes before the answer to any packet has room.
        if !self.answer_fits(m) {
            progress.found = Found::Blocked;
            return Ok(());
        }
        if !self.expects(frame.kind()) {
            return Err(Problem::Unexpected);
        }
        self.packet(m, frame, whole.is_none(), progress)
    }

    /// Returns whether this side may receive this packet now.
    fn expects(&self, packet: u8) -> bool {
        let (to, first) = if self.is_server() {
            (Layout::TO_SERVER, kind::CONNECT)
        } else {
            (Layout::TO_CLIENT, kind::CONNACK)
        };
        let allowed = layout(packet, self.is_v5()).has(to);
        // 3.1.1 [MQTT-3.1.0-1], 5 [MQTT-3.1.0-1]: this packet is the first, and (3.1.1 [MQTT-3.1.0-2], 5 [MQTT-3.1.0-2]) comes
        // once.
        allowed
            && match self.link.phase {
                Phase::Connected => packet != first,
                _ => packet == first || V5 && packet == kind::AUTH,
            }
    }

    /// Reads a packet, or the head of a PUBLISH, and handles it.
    fn packet<'i>(
        &mut self,
        m: &mut Memory<'_>,
        frame: Frame,
        in_part: bool,
        progress: &mut Progress<'i>,
    ) -> Result<(), Problem> {
        let mut body = Reader::new(frame.front(progress.input));
        self.read(&mut progress.view, frame.first, &mut body);
        // 3.1.1 [MQTT-3.1.4-1] and [MQTT-3.2.2-6], 5 [MQTT-3.1.4-1]: a malformed CONNECT gets no answer either.
        if body.fault.is_some() {
            // The head of a PUBLISH must be complete.
            if in_part && body.fault == mqtt_proto::wire::Fault::TRUNCATED {
                return Err(no_room(progress, frame));
            }
            progress.fault = body.fault;
            (progress.left, progress.consumed) = (to_u32(body.left()), body.missing());
            return Err(Problem::Malformed);
        }
        progress.consumed = frame.needs().min(progress.input.len());
        if in_part {
            return self.head(m, frame.total, progress);
        }
        self.handle(m, progress)
    }

    /// Reads the body of a packet that this side may receive.
    pub(crate) fn read<'i>(&self, view: &mut View<'i>, first: u8, body: &mut Reader<'i>) {
        let v5 = self.is_v5();
        if self.is_server() {
            view.read(first, body, v5);
        } else {
            view.read_by_client(first, body, v5);
        }
    }

    fn handle<'i>(
        &mut self,
        m: &mut Memory<'_>,
        progress: &mut Progress<'i>,
    ) -> Result<(), Problem> {
        match progress.view.kind {
            kind::PUBLISH => {
                self.check_publish(progress)?;
                self.learn_alias(m, &progress.view)?;
                return self.message(m, progress);
            }
            kind::PUBACK..=kind::PUBCOMP | kind::SUBACK | kind::UNSUBACK => {
                return self.answer_came(m, progress);
            }
            kind::PINGRESP => {
                self.link.times.answered();
                progress.found = Found::Pong;
            }
            kind::CONNACK => return self.connack(m, progress),
            kind::AUTH if V5 => {
                // 5 [MQTT-4.12.0-6]
                if !self.link.authenticates {
                    return Err(Problem::AuthNotAgreed);
                }
                progress.found = Found::Auth;
            }
            kind::DISCONNECT => progress.found = Found::Disconnected,
            #[cfg(feature = "server")]
            kind::CONNECT => self.connect_came(progress),
            #[cfg(feature = "server")]
            kind::SUBSCRIBE => progress.found = Found::Subscribe,
            #[cfg(feature = "server")]
            kind::UNSUBSCRIBE => progress.found = Found::Unsubscribe,
            #[cfg(feature = "server")]
            kind::PINGREQ => {
                // 3.1.1 [MQTT-3.12.4-1], 5 [MQTT-3.12.4-1]; its room was checked before.
                self.send_short(m, PacketType::PingResp, None);
                progress.found = Found::Ping;
            }
            _ => {}
        }
        if progress.found == Found::Disconnected && !self.is_server() {
            self.link.phase = Phase::Closing;
        }
        Ok(())
    }

    /// Checks that only servers send subscription identifiers in PUBLISH (5 [MQTT-3.3.4-6]).
    fn check_publish(&self, progress: &Progress<'_>) -> Result<(), Problem> {
        let identifier = PropertyId::SubscriptionIdentifier;
        #[cfg(feature = "server")]
        if self.serves_server() {
            return Ok(());
        }
        if V5 && self.is_server() && progress.view.number(identifier).is_some() {
            return Err(Problem::Unexpected);
        }
        Ok(())
    }

    /// Handles a complete message.
    #[inline]
    fn message(&mut self, m: &mut Memory<'_>, progress: &mut Progress<'_>) -> Result<(), Problem> {
        progress.found = Found::Message;
        if progress.view.flags & 6 != 0 {
            match self.arrived(m, &progress.view)? {
                Arrival::New(serial) => progress.serial = serial,
                Arrival::Repeated => progress.found = Found::Nothing,
            }
        }
        Ok(())
    }

    /// Handles PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK or UNSUBACK.
    #[inline]
    fn answer_came(
        &mut self,
        m: &mut Memory<'_>,
        progress: &mut Progress<'_>,
    ) -> Result<(), Problem> {
        if progress.view.kind == kind::PUBREL {
            self.released(m, progress.view.id);
        } else if self.is_under_way(progress.view.id) {
            // The peer can be faster than the host, which tells what the transport took after it took it.
            (progress.found, progress.consumed) = (Found::Blocked, 0);
            // A peer that answers too early and takes nothing is silent nevertheless.
            self.link.times.unread = false;
        } else {
            self.answered(m, progress)?;
        }
        Ok(())
    }

    /// Handles CONNACK.
    fn connack(&mut self, m: &mut Memory<'_>, progress: &mut Progress<'_>) -> Result<(), Problem> {
        let view = &progress.view;
        if view.reason != 0 {
            self.link.phase = Phase::Closing;
            progress.found = Found::Refused;
            return Ok(());
        }
        let (present, clean_start) = (view.flags != 0, self.must_start_clean);
        let owner = self.session.owner;
        // 3.1.1 [MQTT-3.1.3-2], 5 [MQTT-3.1.3-2]: a session belongs to its client identifier.
        let ours = !clean_start && owner != 0 && owner == self.link.client;
        let refuses = JOURNAL && self.refuses_unknown_session();
        if refuses && clean_start {
            // Before MQTT 5 a clean session ends with its connection. The server has none now, and the next CONNECT begins one that
            // it keeps.
            self.must_start_clean = false;
            self.session.owner = self.link.client;
            self.record_connected(m, &progress.view, false);
            return Err(Problem::UnknownSession);
        }
        // 5 [MQTT-3.2.2-4]
        self.must_start_clean = present && !ours && (self.is_v5() || refuses);
        if self.must_start_clean {
            return Err(Problem::UnknownSession);
        }
        if self.is_v5()
            && let Some(keep_alive) = self.announced(false, view.properties)
        {
            // 5 [MQTT-3.2.2-21]
            self.link.times.pings_every(keep_alive);
        }
        progress.found = Found::Connected;
        progress.unasked_session = present && clean_start;
        self.link.times.accepted(progress.now);
        // MQTT 3.1 has no session present. The client continues as if the server had the session, because otherwise a QoS 2
        // message could be delivered twice.
        let goes_on = ours && (present || self.assumes_session());
        progress.resumed = (present && !clean_start) || goes_on;
        self.record_connected(m, &progress.view, goes_on);
        self.connected(m, goes_on);
        Ok(())
    }

    /// Returns whether this is a client of MQTT 3.1, whose server cannot report whether it has the session.
    pub(crate) fn assumes_session(&self) -> bool {
        self.link.version == mqtt_proto::Version::V31 && !self.is_server()
    }

    /// Handles CONNECT, on which the host decides.
    #[cfg(feature = "server")]
    fn connect_came(&mut self, progress: &mut Progress<'_>) {
        let view = &progress.view;
        let link = &mut self.link;
        // Bit 7 is that of a bridge.
        link.version = match view.level & 0x7F {
            3 => mqtt_proto::Version::V31,
            5 => mqtt_proto::Version::V5,
            _ => mqtt_proto::Version::V311,
        };
        link.client = fingerprint(view.topic);
        self.must_start_clean = view.flags & 2 != 0;
        link.undecided = true;
        if link.version.is_v5() {
            self.announced(false, view.properties);
        }
        progress.found = Found::Connect;
    }

    /// Returns how many bytes a step over this input needs; `None` if it can be done now.
    #[inline]
    pub(crate) fn needs(&self, input: &[u8]) -> Option<usize> {
        let open = matches!(self.link.phase, Phase::Connected | Phase::Connecting);
        if self.has_ended() {
            return None;
        }
        if !open || self.link.pieces.is_some() {
            return input.is_empty().then_some(1);
        }
        let frame = frame(input, self.is_v5(), self.link.ours.packet);
        let whole = frame.fault.is_some() || frame.body(input).is_some();
        (!whole).then(|| frame.needs())
    }
}

/// Returns the error of a packet that must be complete and is larger than the input buffer.
#[cold]
fn no_room(progress: &mut Progress<'_>, frame: Frame) -> Problem {
    progress.left = frame.total;
    if frame.head == 0 {
        // The fixed header is incomplete, so the packet type is not reported.
        progress.view.kind = 0;
        progress.left = to_u32(progress.input.len()).saturating_add(1);
    }
    Problem::NoRoom
}
