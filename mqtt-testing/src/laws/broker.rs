//! The law of the broker: for any bytes of several connections, which open and close at any time, the broker never panics, writes
//! only valid packets, stays within its limits, never has a past deadline without work, and serves a pair of other clients
//! without being affected.

use std::time::Duration;

use mqtt_broker::{Broker, Config, ConnectionId, Hooks, Next, Verdict};
use mqtt_proto::{
    Connect, Decoded, MAX_PACKET, Packet, PacketId, Properties, Property, Publish, QoS, ReasonCode,
    Subscribe, Subscription, TopicFilter, TopicName, Version,
};
use mqtt_session::{Instant, Outgoing};

use crate::choices::Choices;
use crate::packets::encode;
use crate::packets::generated::{types, with_packet};

/// Hooks that return the given verdicts.
#[derive(Debug, Default)]
struct ScriptedHooks {
    assigned: u128,
    /// The next verdicts, in turn.
    verdicts: Vec<Verdict>,
}

impl Hooks for ScriptedHooks {
    fn unguessable(&mut self) -> u128 {
        self.assigned += 1;
        self.assigned
    }

    fn connect(&mut self, _: ConnectionId, connect: &Connect<'_>) -> Verdict {
        if connect.client_id.starts_with("fair") {
            return Verdict::Accept;
        }
        self.verdicts.pop().unwrap_or(Verdict::Accept)
    }

    fn authenticate(&mut self, _: ConnectionId, _: &str, _: Option<&[u8]>) -> Verdict {
        self.verdicts.pop().unwrap_or(Verdict::Accept)
    }
}

#[derive(Debug)]
struct HostileClient {
    id: ConnectionId,
    version: Version,
    input: Vec<u8>,
    /// Outgoing bytes of the broker that are not yet a complete packet.
    written: Vec<u8>,
}

const TOPIC: &str = "fair/only";

/// How long a publisher waits for a receiver that reads nothing, in milliseconds.
const PATIENCE: u32 = 1_000;

/// After this many turns all work of a few clients is done.
const TURNS: usize = 20_000;

/// The steps of work that is not done in portions: one packet and its answer.
const MOST: u64 = 4_000;

/// Runs a broker with several hostile clients and a fair pair.
///
/// # Panics
/// The law is broken.
pub fn withstands(choices: &[u8]) {
    let mut choices = Choices::new(choices);
    let mut config = Config::default();
    config.connections = 8;
    config.sessions = 6;
    config.packet_size = choices.pick(&[300, 5_000]);
    config.window = 1 + u16::from(choices.byte() % 8);
    config.outgoing_bytes = choices.pick(&[100, 10_000]);
    config.queued_messages = 1 + choices.below(20);
    config.queued_bytes = choices.pick(&[400, 10_000]);
    config.queued_bytes_total = choices.pick(&[1_000, 100_000]);
    config.queue_qos0 = choices.flag();
    config.subscriptions = 1 + choices.below(5);
    config.retained_messages = 1 + choices.below(5);
    config.retained_bytes = 10_000;
    config.receive_maximum = 1 + u16::from(choices.byte() % 8);
    config.topic_alias_maximum = u16::from(choices.byte() % 4);
    config.keep_alive_maximum = u16::from(choices.byte() % 3);
    config.session_expiry_maximum = choices.pick(&[0, 5, u32::MAX]);
    config.statistics_interval = u32::from(choices.byte() % 3);
    config.turn_steps = choices.pick(&[1, 20, 4_096]);
    config.slow_consumer_ms = choices.pick(&[0, PATIENCE]);
    let limits = config.clone();
    let mut now = Instant::from_millis(1_000);
    let broker = Broker::new(config, ScriptedHooks::default(), now);
    let mut trial = Trial {
        broker,
        limits,
        hostile: Vec::new(),
        count: 0,
    };
    let publisher = trial.connect_fair("fair-1", now);
    let subscriber = trial.connect_fair("fair-2", now);
    trial.subscribe(subscriber, now);
    while !choices.is_empty() {
        trial.attack(&mut choices, &mut now);
        trial.check(now);
        trial.message_passes(publisher, subscriber, &mut now);
    }
    for client in std::mem::take(&mut trial.hostile) {
        trial.broker.closed(client.id, now);
    }
    trial.check(now);
    trial.message_passes(publisher, subscriber, &mut now);
}

struct Trial {
    broker: Broker<ScriptedHooks>,
    limits: Config,
    hostile: Vec<HostileClient>,
    count: u32,
}

impl Trial {
    /// Opens a connection of a client that keeps its window and stays.
    fn connect_fair(&mut self, client_id: &str, now: Instant) -> ConnectionId {
        let id = self.broker.open(now).expect("there is room");
        let connect = Connect {
            keep_alive: 0,
            ..Connect::new(Version::V311, client_id)
        };
        self.say(id, &Packet::Connect(connect), now);
        assert_eq!(self.hears(id, now), [0x20, 2, 0, 0]);
        id
    }

    fn say(&mut self, id: ConnectionId, packet: &Packet<'_>, now: Instant) {
        let bytes = encode(packet, Version::V311);
        let mut left = &bytes[..];
        for _ in 0..TURNS {
            let received = self.broker.receive(id, left, now);
            left = &left[received.consumed..];
            if left.is_empty() && matches!(received.next, Next::Needs(_)) {
                return self.finish(now);
            }
            if self.broker.deadline().is_some_and(|at| at <= now) {
                self.broker.tick(now);
            }
        }
        panic!("a friend waits");
    }

    /// Runs until no work remains, which must happen within the limit.
    fn finish(&mut self, now: Instant) {
        for _ in 0..TURNS {
            if self.broker.deadline().is_none_or(|at| at > now) {
                return;
            }
            let before = self.broker.steps();
            self.broker.tick(now);
            let steps = self.broker.steps() - before;
            let most = 10 * u64::from(self.limits.turn_steps) + MOST;
            assert!(steps <= most, "{steps} steps at once");
        }
        panic!("to be woken at once, again and again");
    }

    /// Takes all outgoing bytes of a connection.
    fn hears(&mut self, id: ConnectionId, now: Instant) -> Vec<u8> {
        let bytes = self.broker.outgoing(id).to_vec();
        self.broker.sent(id, bytes.len(), now);
        bytes
    }

    fn subscribe(&mut self, id: ConnectionId, now: Instant) {
        let filter = TopicFilter::new(TOPIC).expect("valid");
        let list = [Subscription::new(filter, QoS::AtLeastOnce)];
        let own = PacketId::new(1).expect("not zero");
        self.say(id, &Packet::Subscribe(Subscribe::new(own, &list[..])), now);
        assert_eq!(self.hears(id, now), [0x90, 3, 0, 1, 1]);
    }

    /// Passes a message between the fair clients. Its end may wait a short time for a hostile client that has the same
    /// subscription and reads nothing.
    fn message_passes(
        &mut self,
        publisher: ConnectionId,
        subscriber: ConnectionId,
        time: &mut Instant,
    ) {
        let now = *time;
        self.count += 1;
        let payload = self.count.to_string();
        let topic = TopicName::new(TOPIC).expect("valid");
        let publish = Publish {
            delivery: mqtt_proto::Delivery::AtLeastOnce(PacketId::new(7).expect("not zero")),
            ..Publish::new(topic, payload.as_bytes())
        };
        self.say(publisher, &Packet::Publish(publish), now);
        let mut puback = self.hears(publisher, now);
        if puback.is_empty() && self.limits.slow_consumer_ms > 0 {
            *time = now.after(Duration::from_millis(PATIENCE.into()));
            self.broker.tick(*time);
            self.finish(*time);
            puback = self.hears(publisher, *time);
        }
        assert_eq!(puback, [0x40, 2, 0, 7], "PUBACK");
        let bytes = self.hears(subscriber, now);
        let heard = Packet::decode(&bytes, Version::V311, MAX_PACKET);
        let Ok(Decoded::Packet {
            packet: Packet::Publish(heard),
            consumed,
        }) = heard
        else {
            panic!("{heard:?} instead of message {payload}");
        };
        assert_eq!((heard.payload, consumed), (payload.as_bytes(), bytes.len()));
        let own = heard.delivery.packet_id().expect("QoS 1");
        self.say(subscriber, &Packet::PubAck(mqtt_proto::Ack::new(own)), now);
    }

    /// Lets a hostile client connect, disconnect or send something, or the host of the broker act.
    fn attack(&mut self, choices: &mut Choices<'_>, now: &mut Instant) {
        if self.hostile.is_empty() || choices.below(8) == 0 {
            self.open(choices, *now);
            return;
        }
        let at = choices.below(self.hostile.len());
        match choices.below(16) {
            0 => {
                let client = self.hostile.swap_remove(at);
                self.broker.closed(client.id, *now);
                self.broker.closed(client.id, *now);
            }
            1 | 2 => {
                let millis = choices.pick(&[0, 1, 1_000, 2_000, 20_000]);
                *now = now.after(Duration::from_millis(millis));
                self.broker.tick(*now);
                if choices.flag() {
                    self.finish(*now);
                }
            }
            host @ 3..=6 => self.host(host, at, choices, *now),
            7 => {
                let bytes = choices.slice(60);
                self.hostile[at].input.extend_from_slice(bytes);
                self.feed(at, *now);
            }
            8 | 9 => self.read(at, choices, *now),
            _ => {
                let types: Vec<_> = types(self.hostile[at].version).collect();
                let packet_type = choices.pick(&types);
                let version = self.hostile[at].version;
                let bytes = with_packet(packet_type, version, choices, |packet| {
                    encode(packet, version)
                });
                self.hostile[at].input.extend_from_slice(&bytes);
                self.feed(at, *now);
            }
        }
    }

    /// Opens a connection of a hostile client, usually with a CONNECT.
    fn open(&mut self, choices: &mut Choices<'_>, now: Instant) {
        let version = choices.pick(&[Version::V311, Version::V5]);
        let Ok(id) = self.broker.open(now) else {
            assert_eq!(self.hostile.len() + 2, self.limits.connections);
            return;
        };
        let broker = &mut self.broker;
        self.hostile.retain(|client| {
            let closed_for_room = broker.was_closed_for_room(client.id);
            if closed_for_room {
                broker.closed(client.id, now);
            }
            !closed_for_room
        });
        self.hostile.push(HostileClient {
            id,
            version,
            input: Vec::new(),
            written: Vec::new(),
        });
        if choices.below(4) > 0 {
            self.connect(choices, now);
        }
    }

    /// Lets the host of the broker decide, publish or disconnect.
    fn host(&mut self, choice: usize, at: usize, choices: &mut Choices<'_>, now: Instant) {
        match choice {
            3 => {
                let id = self.hostile[at].id;
                self.broker.decide(id, verdict(choices), now);
            }
            4 => {
                let topic = TopicName::new(choices.pick(&["a", "a/b", "$SYS/x"])).expect("valid");
                let message = Outgoing {
                    retain: choices.flag(),
                    ..Outgoing::new(topic, QoS::ExactlyOnce, choices.slice(40))
                };
                self.broker.publish(&message, now);
            }
            5 => {
                let name = choices.pick(&["a", "b", "nobody"]);
                let reason = ReasonCode::AdministrativeAction;
                self.broker.disconnect(name, reason, now);
            }
            _ => {
                let verdict = verdict(choices);
                self.broker.hooks().verdicts.push(verdict);
            }
        }
    }

    fn connect(&mut self, choices: &mut Choices<'_>, now: Instant) {
        let Some(client) = self.hostile.last_mut() else {
            return;
        };
        let properties = [
            Property::SessionExpiryInterval(choices.pick(&[0, 1, u32::MAX])),
            Property::ReceiveMaximum(1 + u16::from(choices.byte() % 4)),
            Property::MaximumPacketSize(choices.pick(&[30, 1_000])),
        ];
        let v5 = client.version.is_v5();
        let connect = Connect {
            clean_start: choices.flag(),
            keep_alive: choices.u16() % 4,
            bridge: choices.flag(),
            properties: if v5 {
                Properties::from(&properties)
            } else {
                Properties::EMPTY
            },
            ..Connect::new(client.version, choices.pick(&["a", "b", "c"]))
        };
        let bytes = encode(&Packet::Connect(connect), client.version);
        client.input.extend(bytes);
        let last = self.hostile.len() - 1;
        self.feed(last, now);
    }

    fn feed(&mut self, at: usize, now: Instant) {
        let client = &mut self.hostile[at];
        let received = self.broker.receive(client.id, &client.input, now);
        assert!(received.consumed <= client.input.len());
        client.input.drain(..received.consumed);
        match received.next {
            Next::Needs(needed) => assert!(needed > client.input.len(), "it has what it needs"),
            Next::Blocked | Next::Yields => {}
            Next::Closing => assert!(self.broker.is_closing(client.id)),
        }
    }

    /// Lets a client read some of its bytes.
    fn read(&mut self, at: usize, choices: &mut Choices<'_>, now: Instant) {
        let client = &mut self.hostile[at];
        let outgoing = self.broker.outgoing(client.id);
        let n = choices.pick(&[1, 40, usize::MAX]).min(outgoing.len());
        client.written.extend_from_slice(&outgoing[..n]);
        self.broker.sent(client.id, n, now);
        // The version may differ from that of CONNECT, so the packets may not decode; a client without CONNECT gets none.
        while let Ok(Decoded::Packet { consumed, .. }) =
            Packet::decode(&client.written, client.version, MAX_PACKET)
        {
            client.written.drain(..consumed);
        }
        let ready: Vec<_> = std::iter::from_fn(|| self.broker.next_ready()).collect();
        for id in ready {
            if let Some(at) = self.hostile.iter().position(|client| client.id == id) {
                self.feed(at, now);
            }
        }
    }

    fn check(&self, now: Instant) {
        let statistics = self.broker.statistics(now);
        let limits = &self.limits;
        let narrow = |count: u64| usize::try_from(count).expect("small");
        assert!(narrow(statistics.sessions) <= limits.sessions);
        assert!(narrow(statistics.subscriptions) <= limits.subscriptions * limits.sessions);
        assert!(narrow(statistics.retained_bytes) <= limits.retained_bytes);
        assert!(narrow(statistics.retained) <= limits.retained_messages);
        // Messages for which publishers wait are queued beyond the limits of one queue.
        let waits = limits.slow_consumer_ms > 0;
        assert!(waits || narrow(statistics.queued) <= limits.queued_messages * limits.sessions);
        // Each client may have its share beyond the total.
        assert!(narrow(statistics.queued_bytes) <= limits.queued_bytes_total * 2);
        let most = usize::try_from(limits.packet_size).expect("small") + (8 << 10);
        let most = most.max(usize::try_from(limits.outgoing_bytes).expect("small"));
        for client in &self.hostile {
            // The reason of the end of a connection is written beyond the limit.
            let waiting = self.broker.outgoing(client.id).len();
            assert!(waiting <= most + 64, "{waiting} bytes wait");
        }
    }
}

fn verdict(choices: &mut Choices<'_>) -> Verdict {
    match choices.below(5) {
        0 => Verdict::Accept,
        1 => Verdict::AcceptWith(choices.slice(20).to_vec()),
        2 => Verdict::Refuse(choices.pick(&[ReasonCode::NotAuthorized, ReasonCode::Banned])),
        3 => Verdict::Continue(choices.slice(20).to_vec()),
        _ => Verdict::Later,
    }
}
