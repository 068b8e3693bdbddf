//! A connection from its first packet to its end, and what begins and ends with it: the session that continues or is lost.

use mqtt_proto::num::{low_half, to_usize};
use mqtt_proto::wire::Reader;
use mqtt_proto::write::Body;
use mqtt_proto::{Auth, Connect, Disconnect, PacketType, PropertyId, ReasonCode, Version};

use crate::config::SessionLost;
use crate::engine::Engine;
use crate::error::Refused;
use crate::memory::Memory;
use crate::state::link::{Link, Phase};
use crate::state::session::fingerprint;
use crate::state::slot::Awaits;
use crate::tune::{POLICIES, V5};

/// The length of what is before the properties of CONNECT: protocol name, level, flags and keep-alive.
const BEFORE_PROPERTIES: usize = 10;

impl Engine {
    /// Starts a network connection. Nothing of the last one stays.
    pub(crate) fn open(&mut self, m: &mut Memory<'_>, version: Version, now: u32) {
        self.disconnected(m);
        (self.link.phase, self.link.version) = (Phase::Connecting, version);
        self.link.times.opened(now);
    }

    /// Ends the network connection. Messages wait for the next one, and requests end in doubt.
    pub(crate) fn disconnected(&mut self, m: &mut Memory<'_>) {
        // 3.1.1 [MQTT-4.1.0-1], 5 [MQTT-3.1.2-23]: the session stays.
        self.stop_large(m);
        if self.link.phase != Phase::Offline {
            self.park(m);
        }
        self.link = Link::new(self.link.version, &self.config);
        self.clear_barriers();
    }

    /// Makes everything in the session independent of this connection: messages are to be sent again, and requests end in
    /// doubt.
    pub(crate) fn park(&mut self, m: &mut Memory<'_>) {
        self.record_deferred(m);
        self.end_in_doubt(m, &|slot| {
            slot.disconnected();
            let ends = slot.awaits.is_request();
            if ends {
                slot.len = 0;
            }
            ends
        });
        let link = &mut self.link;
        (link.in_flight, link.in_flight_qos2, link.cursor) = (0, 0, 0);
        self.received_disconnected(m);
    }

    /// Starts a connection: writes CONNECT to the outgoing bytes.
    pub(crate) fn connect(
        &mut self,
        m: &mut Memory<'_>,
        connect: &Connect<'_>,
        now: u32,
    ) -> Result<(), Refused> {
        if connect.lacks_client_id() {
            return Err(Refused::NoClientIdentifier);
        }
        if self.must_start_clean && !connect.clean_start {
            return Err(Refused::MustStartClean);
        }
        self.check_connect_record(m, connect.client_id)?;
        self.open(m, connect.version, now);
        let link = &mut self.link;
        link.client = fingerprint(connect.client_id.as_bytes());
        link.times.pings_every(connect.keep_alive);
        let written = self.send(m, connect);
        if written.is_err() {
            self.disconnected(m);
            return written;
        }
        if self.is_v5() {
            let properties = written_properties(self.written(m), BEFORE_PROPERTIES);
            self.announced(true, properties);
        }
        self.set_version(m, connect.version);
        self.record_connect(m, connect.client_id, connect.clean_start);
        if connect.clean_start {
            // 3.1.1 [MQTT-3.1.2-6], 5 [MQTT-3.1.2-4]: until CONNACK arrives it is unknown whether the server has ended the
            // session.
            self.session_lost(m);
            self.record_messages_again(m);
            self.session.owner = 0;
            self.must_start_clean = true;
        }
        Ok(())
    }

    /// Sets the version of kept packets. Messages that are kept in another version cannot be sent any more and end in doubt; those whose
    /// PUBREC came have no packet, and go on with PUBREL, which fits every version. Acknowledgements that wait with a reason code
    /// of MQTT 5 lose it in an earlier version.
    pub(crate) fn set_version(&mut self, m: &mut Memory<'_>, version: Version) {
        if V5 && version.is_v5() != self.session.version.is_v5() {
            self.end_in_doubt(m, &|slot| {
                let ends = !slot.has_ended() && slot.awaits != Awaits::PUBCOMP;
                if ends {
                    slot.len = 0;
                }
                ends
            });
            if !version.is_v5() {
                self.forget_reasons(m);
            }
        }
        self.session.version = version;
    }

    /// Begins the use of a connection that both sides accepted, with the earlier session or a new one.
    pub(crate) fn connected(&mut self, m: &mut Memory<'_>, resumed: bool) {
        self.link.phase = Phase::Connected;
        self.session.owner = self.link.client;
        // 5 [MQTT-3.2.2-5]
        if !resumed {
            self.session_lost(m);
            self.record_messages_again(m);
        }
        self.pump(m);
    }

    /// Handles that the peer does not have this session. Messages that were sent before end in doubt or become new ones.
    /// Messages that were never sent stay.
    pub(crate) fn session_lost(&mut self, m: &mut Memory<'_>) {
        self.clear_received();
        let hand_back = POLICIES && self.config.session_lost() == SessionLost::HandBack;
        self.end_in_doubt(m, &|slot| {
            let was_dup = slot.is_dup();
            slot.is_new_again();
            slot.awaits == Awaits::PUBCOMP || hand_back && was_dup
        });
    }

    /// Discards the session at once.
    pub(crate) fn forget_session(&mut self, m: &mut Memory<'_>) {
        self.stop_large(m);
        self.record_forgotten(m);
        self.clear_slots(m);
        self.clear_received();
        self.session.owner = 0;
        let link = &mut self.link;
        (link.in_flight, link.in_flight_qos2, link.cursor) = (0, 0, 0);
    }

    /// Assumes that this side has the session of `client_id`, with nothing unfinished.
    pub(crate) fn assume_session(&mut self, m: &mut Memory<'_>, client_id: &str) {
        self.forget_session(m);
        self.must_start_clean = false;
        self.session.owner = fingerprint(client_id.as_bytes());
        self.record_assumed(m, client_id);
    }

    /// Sends AUTH, to continue an authentication or to start one again (5, section 4.12).
    pub(crate) fn authenticate(
        &mut self,
        m: &mut Memory<'_>,
        auth: &Auth<'_>,
        now: u32,
    ) -> Result<(), Refused> {
        // 5 [MQTT-3.1.2-30]: AUTH is the only packet that may go out between CONNECT and CONNACK.
        let connecting =
            self.link.phase == Phase::Connecting && (self.is_undecided() || !self.is_server());
        if !(connecting || self.is_connected()) || !self.link.authenticates {
            return Err(Refused::WrongPhase);
        }
        self.send(m, auth)?;
        self.link.times.sent(now);
        Ok(())
    }

    /// Sends DISCONNECT and nothing after it. A server before MQTT 5 sends nothing.
    pub(crate) fn disconnect(
        &mut self,
        m: &mut Memory<'_>,
        disconnect: &Disconnect<'_>,
    ) -> Result<(), Refused> {
        if !self.is_connected() {
            return Err(Refused::WrongPhase);
        }
        if !self.is_server() || self.is_v5() {
            self.send(m, disconnect)?;
        }
        // 3.1.1 [MQTT-3.14.4-1], 5 [MQTT-3.14.4-1] and [MQTT-3.14.4-2]: no packet follows, and the caller closes the transport.
        self.link.phase = Phase::Closing;
        Ok(())
    }

    /// Sends the answer to a request of the peer.
    pub(crate) fn answer(&mut self, m: &mut Memory<'_>, packet: &dyn Body) -> Result<(), Refused> {
        if !self.is_connected() {
            return Err(Refused::WrongPhase);
        }
        self.send(m, packet)
    }

    /// Ends the connection because the peer broke a rule. MQTT 5 reports the reason to the peer. The session stays.
    #[cold]
    #[inline(never)]
    pub(crate) fn fail(&mut self, m: &mut Memory<'_>, reason: ReasonCode) {
        self.stop_large(m);
        // 5 [MQTT-4.13.1-1]; before CONNACK no DISCONNECT may be sent (5 [MQTT-3.14.0-1]).
        if self.is_v5() && self.is_connected() {
            // 5 [MQTT-3.14.2-1]
            let reason = if reason.belongs_in(PacketType::Disconnect) {
                reason
            } else {
                ReasonCode::ProtocolError
            };
            self.send_short(m, PacketType::Disconnect, Some(reason));
        }
        // 3.1.1 [MQTT-4.8.0-1], 5 [MQTT-4.13.2-1]
        self.link.phase = Phase::Closing;
    }

    /// Stores what one side announces in CONNECT or CONNACK. If it is `ours`, the peer has to keep to it, otherwise this side
    /// has to. Returns the keep-alive that a server demands.
    pub(crate) fn announced(&mut self, ours: bool, block: &[u8]) -> Option<u16> {
        let in_connect = ours != self.is_server();
        let link = &mut self.link;
        let limits = if ours {
            &mut link.ours
        } else {
            &mut link.peers
        };
        let mut keep_alive = None;
        let mut block = Reader::new(block);
        while let Some(property) = block.next_property() {
            let number = property.number;
            match property.id {
                // 5 [MQTT-3.2.2-15], [MQTT-3.2.2-17], [MQTT-3.1.2-24], [MQTT-3.1.2-26]
                PropertyId::ReceiveMaximum => limits.receive_maximum = low_half(number),
                PropertyId::TopicAliasMaximum => limits.aliases = low_half(number),
                PropertyId::MaximumPacketSize => limits.packet = number.min(limits.packet),
                // 5 [MQTT-3.1.2-21]
                PropertyId::ServerKeepAlive => keep_alive = Some(low_half(number)),
                PropertyId::AssignedClientIdentifier => link.client = fingerprint(property.bytes),
                PropertyId::AuthenticationMethod if in_connect => link.authenticates = true,
                id if !ours => link.unsupported.told(id, number),
                _ => {}
            }
        }
        link.peers.aliases = link.peers.aliases.min(self.config.most_aliases());
        keep_alive
    }
}

/// Returns the properties of an encoded packet of MQTT 5 that has `before` bytes before them in its body.
pub(crate) fn written_properties(packet: &[u8], before: usize) -> &[u8] {
    let mut body = Reader::new(packet);
    body.u8();
    body.varint();
    body.take(before);
    let len = body.varint();
    body.take(to_usize(len))
}
