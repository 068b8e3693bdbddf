//! What we receive until it is released. Knows no role.
//!
//! ```text
//!   QoS 1, by hand:     PUBLISH --> Application --acknowledge--> Acknowledged --PUBACK goes out--> done
//!   QoS 2, by hand:     PUBLISH --> Application --acknowledge--> Acknowledged --PUBREC goes out--> Release
//!   QoS 2, automatic:   PUBLISH --PUBREC goes out--> Release
//!   QoS 2:              Release --PUBREL, PUBCOMP goes out--> done
//! ```
//!
//! QoS 2 entries belong to the session: they survive a reconnect and end with it. QoS 1 entries end with the connection,
//! for the peer sends the message again.

use core::num::NonZeroU32;

use mqtt_proto::{AckKind, EncodeError, PacketId, QoS, ReasonCode, Version};

use crate::config::{Acknowledge, Config};
use crate::connection::Connection;
use crate::error::{Refused, Violation};
use crate::event::Receipt;
use crate::outbox::Outbox;
use crate::session::FAST;
use crate::storage::{Memory, Table};

/// A message that came and is not ended. Opaque; firmware lends an array of them.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    id: u16,
    serial: u16,
    reason: ReasonCode,
    state: State,
    qos: QoS,
    /// Counts against our receive maximum on this connection.
    counted: bool,
}

impl Received {
    /// A free one, to fill an array with.
    pub const EMPTY: Self = Self {
        id: 0,
        serial: 0,
        reason: ReasonCode::Success,
        state: State::Release,
        qos: QoS::AtMostOnce,
        counted: false,
    };
}

impl Default for Received {
    fn default() -> Self {
        Self::EMPTY
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// The application has it and did not acknowledge it.
    Application,
    /// The application acknowledged it, the packet waits for its turn or for the peer to send the message again.
    Acknowledged,
    /// PUBREC is out, PUBREL is awaited.
    Release,
}

/// What a PUBLISH is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Arrival {
    /// For the application.
    New(Option<Receipt>),
    /// The application has it already.
    Repeated,
}

pub(crate) struct Inbound<M> {
    table: Table<M>,
    serial: u16,
    /// Entries that are acknowledged and whose packet did not go out.
    acknowledged: u16,
    /// Whose session this is: a fingerprint of the client identifier, `None` while there is none. It is here because here it
    /// takes no room of its own.
    pub(crate) owner: Option<NonZeroU32>,
}

impl<M: Memory<Received>> Inbound<M> {
    pub(crate) const fn new(memory: M) -> Self {
        Self {
            table: Table::new(memory),
            serial: 0,
            acknowledged: 0,
            owner: None,
        }
    }

    /// A PUBLISH of QoS 1 or 2 came. Room for its acknowledgement was made sure of before.
    #[inline]
    pub(crate) fn publish<O: Memory<u8>>(
        &mut self,
        qos: QoS,
        id: PacketId,
        config: &Config,
        connection: &mut Connection,
        outbox: &mut Outbox<O>,
    ) -> Result<Arrival, Violation> {
        let by_hand = config.acknowledge == Acknowledge::ByHand;
        if qos == QoS::AtLeastOnce && !by_hand {
            // 3.1.1 [MQTT-4.3.2-2], 5 [MQTT-4.3.2-4]
            outbox.acknowledge(AckKind::PubAck, id.get(), ReasonCode::Success);
            return Ok(Arrival::New(None));
        }
        // What is known at QoS 1 ends when it is acknowledged: until then the peer has no reason to use its identifier again.
        if qos == QoS::ExactlyOnce && self.is_repeated(id, outbox) {
            return Ok(Arrival::Repeated);
        }
        // 5 [MQTT-3.3.4-7] and [MQTT-3.3.4-9]
        if self.table.len() >= usize::from(connection.receive_maximum)
            && !connection.exceeded
            && self.counted() >= usize::from(connection.receive_maximum)
        {
            if !config.receive_beyond_maximum {
                return Err(Violation::ReceiveMaximumExceeded);
            }
            connection.exceeded = true;
        }
        self.serial = self.serial.wrapping_add(1);
        let state = if by_hand {
            State::Application
        } else {
            State::Release
        };
        let entry = Received {
            id: id.get(),
            serial: self.serial,
            reason: ReasonCode::Success,
            state,
            qos,
            counted: true,
        };
        if !self.table.push(entry, usize::from(u16::MAX)) {
            return Err(Violation::ReceiveMaximumExceeded);
        }
        if !by_hand {
            // 3.1.1 [MQTT-4.3.3-2], 5 [MQTT-4.3.3-8]
            outbox.acknowledge(AckKind::PubRec, id.get(), ReasonCode::Success);
        }
        Ok(Arrival::New(by_hand.then_some(Receipt {
            id,
            serial: self.serial,
        })))
    }

    /// Whether a QoS 2 message is known already. Then its answer goes out, if there is one.
    #[inline]
    fn is_repeated<O: Memory<u8>>(&mut self, id: PacketId, outbox: &mut Outbox<O>) -> bool {
        let known = self
            .table
            .items_mut()
            .iter_mut()
            .find(|entry| entry.id == id.get() && entry.qos == QoS::ExactlyOnce);
        let Some(entry) = known else {
            return false;
        };
        // 3.1.1 [MQTT-4.3.3-2], 5 [MQTT-4.3.3-10]: until PUBREL the identifier means this message, whatever DUP says.
        match entry.state {
            State::Release => {
                outbox.acknowledge(AckKind::PubRec, id.get(), ReasonCode::Success);
            }
            State::Acknowledged | State::Application => {
                entry.counted = true;
                self.flush(outbox);
            }
        }
        true
    }

    /// How many messages count against our receive maximum. Each is looked at: this is asked only near the maximum.
    #[cold]
    fn counted(&self) -> usize {
        let entries = self.table.items().iter();
        entries.filter(|entry| entry.counted).count()
    }

    /// Whether the identifier means a QoS 2 message that came before.
    pub(crate) fn holds(&self, id: PacketId) -> bool {
        self.table
            .items()
            .iter()
            .any(|entry| entry.id == id.get() && entry.qos == QoS::ExactlyOnce)
    }

    /// PUBREL came: exactly one PUBCOMP goes out, also where nothing is known of the identifier.
    #[inline]
    pub(crate) fn release<O: Memory<u8>>(
        &mut self,
        id: PacketId,
        outbox: &mut Outbox<O>,
        version: Version,
    ) {
        let known = self
            .table
            .items()
            .iter()
            .position(|e| e.id == id.get() && e.qos == QoS::ExactlyOnce);
        let reason = match known {
            Some(index) => {
                self.remove(index);
                ReasonCode::Success
            }
            None if version.is_v5() => ReasonCode::PacketIdentifierNotFound,
            None => ReasonCode::Success,
        };
        // 3.1.1 [MQTT-4.3.3-2], 5 [MQTT-4.3.3-11]
        outbox.acknowledge(AckKind::PubComp, id.get(), reason);
        self.flush(outbox);
    }

    /// The application acknowledges a message.
    pub(crate) fn acknowledge<O: Memory<u8>>(
        &mut self,
        receipt: Receipt,
        reason: ReasonCode,
        outbox: &mut Outbox<O>,
        version: Version,
        online: bool,
    ) -> Result<(), Refused> {
        let wanted = |entry: &Received| {
            entry.id == receipt.id.get()
                && entry.serial == receipt.serial
                && entry.state == State::Application
        };
        let entries = self.table.items_mut();
        // Serial numbers rise by one from the front, but for those that are gone.
        let guess = match entries.first() {
            Some(first) if FAST => usize::from(receipt.serial.wrapping_sub(first.serial)),
            _ => usize::MAX,
        };
        let index = match entries.get(guess) {
            Some(entry) if wanted(entry) => Some(guess),
            _ => entries.iter().position(wanted),
        };
        let Some(entry) = index.and_then(|index| entries.get_mut(index)) else {
            return Err(Refused::NothingToAcknowledge);
        };
        let packet = match entry.qos {
            QoS::ExactlyOnce => AckKind::PubRec.packet_type(),
            _ => AckKind::PubAck.packet_type(),
        };
        if !reason.belongs_in(packet) {
            return Err(EncodeError::ReasonCode(reason).into());
        }
        entry.state = State::Acknowledged;
        self.acknowledged = self.acknowledged.wrapping_add(1);
        entry.reason = if version.is_v5() {
            reason
        } else {
            ReasonCode::Success
        };
        if online {
            self.flush(outbox);
        }
        Ok(())
    }

    /// Sends what is acknowledged, each quality of service in the order of its messages
    /// (3.1.1 \[MQTT-4.6.0-2\] and \[MQTT-4.6.0-3\], 5 the same).
    #[inline]
    pub(crate) fn flush<O: Memory<u8>>(&mut self, outbox: &mut Outbox<O>) {
        if self.acknowledged > 0 {
            self.flush_acknowledged(outbox);
        }
    }

    fn flush_acknowledged<O: Memory<u8>>(&mut self, outbox: &mut Outbox<O>) {
        let mut blocked = [false; 2];
        let (mut index, mut left) = (0_usize, self.acknowledged);
        while left > 0
            && blocked != [true; 2]
            && let Some(entry) = self.table.items_mut().get_mut(index)
        {
            let [qos1, qos2] = &mut blocked;
            let (blocked, kind) = match entry.qos {
                QoS::ExactlyOnce => (qos2, AckKind::PubRec),
                _ => (qos1, AckKind::PubAck),
            };
            index = index.wrapping_add(1);
            match entry.state {
                State::Application => *blocked = true,
                State::Acknowledged => {
                    left = left.wrapping_sub(1);
                    // An entry from before a reconnect waits until the peer has sent the message again.
                    if *blocked || !entry.counted {
                        continue;
                    }
                    if !outbox.acknowledge(kind, entry.id, entry.reason) {
                        return;
                    }
                    self.acknowledged = self.acknowledged.wrapping_sub(1);
                    entry.state = State::Release;
                    // 5 [MQTT-4.3.3-9]: a PUBREC that refuses ends it.
                    if kind == AckKind::PubAck || entry.reason.is_error() {
                        index = index.wrapping_sub(1);
                        self.remove(index);
                    }
                }
                State::Release => {}
            }
        }
    }

    fn remove(&mut self, index: usize) {
        let entry = self.table.items().get(index);
        if entry.is_some_and(|entry| entry.state == State::Acknowledged) {
            self.acknowledged = self.acknowledged.wrapping_sub(1);
        }
        self.table.remove(index);
    }

    /// The connection is gone.
    pub(crate) fn disconnected(&mut self) {
        while let Some(index) = self
            .table
            .items()
            .iter()
            .position(|entry| entry.qos == QoS::AtLeastOnce)
        {
            self.remove(index);
        }
        for entry in self.table.items_mut() {
            entry.counted = false;
        }
    }

    /// What was to be refused with a reason code that the new connection's version cannot say is acknowledged without one.
    pub(crate) fn set_version(&mut self, version: Version) {
        if !version.is_v5() {
            for entry in self.table.items_mut() {
                entry.reason = ReasonCode::Success;
            }
        }
    }

    /// The session is gone: an identifier means a new message from now on.
    pub(crate) fn clear(&mut self) {
        self.table.clear();
        self.acknowledged = 0;
    }
}
