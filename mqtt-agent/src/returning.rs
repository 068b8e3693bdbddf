//! Decides which messages the server sends again after the connection on which they arrived has ended.

use mqtt_proto::{Message, QoS};
use mqtt_session::{Incoming, Instant};

use crate::agent::Agent;
use crate::held::MessageId;

impl Agent {
    /// Recognises a QoS 1 message that is still held and that the server sends again. Returns `true` for it: the program does not
    /// get it twice.
    pub(crate) fn recognise_resent(
        &mut self,
        message: &Message,
        incoming: &Incoming<'_>,
        now: Instant,
    ) -> bool {
        if self.to_be_resent.is_empty() {
            return false;
        }
        let Some(packet_id) = message.packet_id else {
            return false;
        };
        let Some(id) = self.to_be_resent.remove(&packet_id.get()) else {
            return false;
        };
        let Some(held) = self.held.get_mut(id) else {
            return false;
        };
        let same = message.dup
            && held.message.payload == message.payload
            && held.message.topic() == message.topic();
        if !same {
            // The server uses the identifier for another message, so it will not send the old one again.
            held.may_return = false;
            if held.pending_receivers == 0 {
                self.drop_held(id);
            }
            return false;
        }
        held.receipt = incoming.receipt;
        match held.reason {
            Some(reason) if held.pending_receivers == 0 => self.finish(id, reason, now),
            // The program has acknowledged the message by hand, and another inbox has not given it out yet.
            Some(reason) if held.by_hand => self.send_acknowledgement(id, reason, now),
            _ => {}
        }
        true
    }

    /// Marks messages after a lost connection. If the session continues, the server sends QoS 1 messages again under the same
    /// identifiers. Messages that the server should have sent again on this connection and did not, will not come. With
    /// acknowledgements by hand, the agent forgets messages that the program has and did not acknowledge, so that the program
    /// gets them again.
    pub(crate) fn messages_may_return(&mut self, was_connected: bool) {
        for id in self.held.ids() {
            let connection = self.connection;
            let Some(held) = self.held.get_mut(id) else {
                continue;
            };
            if held.message.qos != QoS::AtLeastOnce {
                continue;
            }
            let packet_id = held.message.packet_id.map(|id| id.get());
            if held.by_hand && held.streams() == 0 && held.reason.is_none() {
                self.drop_held(id);
            } else if held.receipt.take().is_some() {
                held.since = connection;
                held.may_return = true;
                if let Some(packet_id) = packet_id {
                    self.to_be_resent.insert(packet_id, id);
                }
            } else if was_connected && held.pending_receivers == 0 && held.since != connection {
                self.drop_held(id);
                if let Some(packet_id) = packet_id {
                    self.to_be_resent.remove(&packet_id);
                }
            }
        }
        self.resume_reading();
    }

    /// Marks messages when the server has no session: the server does not send them again, and the agent does not acknowledge
    /// them.
    pub(crate) fn messages_will_not_return(&mut self) {
        self.to_be_resent.clear();
        for id in self.held.ids() {
            let Some(held) = self.held.get_mut(id) else {
                continue;
            };
            (held.receipt, held.may_return) = (None, false);
            if held.pending_receivers == 0 {
                self.drop_held(id);
            }
        }
        self.resume_reading();
    }

    /// Forgets a message that the server does not send again.
    fn drop_held(&mut self, id: MessageId) {
        #[cfg(feature = "journal")]
        self.keep_note(id);
        self.held.remove(id);
    }
}
