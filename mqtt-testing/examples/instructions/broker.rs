//! Passes messages through a broker without sockets: ten pairs of clients whose sessions stay, in MQTT 3.1.1.

use mqtt_broker::{Broker, Config, ConnectionId, Instant};
use mqtt_session::proto::QoS;
use mqtt_testing::laws::journal::AllowAll;

const NOW: Instant = Instant::from_millis(1_000);
const PAIRS: u8 = 10;
/// How many messages a publisher sends before it reads its acknowledgements.
const AT_ONCE: usize = 20;
const PAYLOAD: usize = 64;

/// The broker, and what its clients have sent but the broker has not consumed.
struct World {
    broker: Broker<AllowAll>,
    inputs: Vec<(ConnectionId, Vec<u8>)>,
}

/// Delivers `count` messages at this QoS, each to one receiver.
pub(crate) fn deliver(qos: QoS, has_journal: bool, count: usize) {
    let mut world = World::new(qos, has_journal);
    let mut left = count;
    while left > 0 {
        for pair in 0..PAIRS {
            let n = left.min(AT_ONCE);
            left -= n;
            world.publish(pair, qos, n);
        }
        world.run();
    }
    let sent = world.broker.statistics(NOW).publish_sent;
    assert_eq!(usize::try_from(sent), Ok(count));
}

impl World {
    fn new(qos: QoS, has_journal: bool) -> Self {
        let mut config = Config::default();
        config.statistics_interval = 0;
        let mut broker = Broker::new(config, AllowAll::default(), NOW);
        if has_journal {
            broker.start_journal();
            broker.restored(NOW).expect("nothing to restore");
        }
        let mut inputs = Vec::new();
        for client in 0..2 * PAIRS {
            let id = broker.open(NOW).expect("there is room");
            // CONNECT with a session that stays; its client identifier is one character.
            let mut input = b"\x10\x0d\0\x04MQTT\x04\0\0\0\0\x01".to_vec();
            input.push(b'A' + client);
            if client >= PAIRS {
                input.extend(b"\x82\x06\0\x01\0\x01");
                input.extend([b'a' + client - PAIRS, qos.get()]);
            }
            inputs.push((id, input));
        }
        let mut world = Self { broker, inputs };
        world.run();
        world
    }

    fn publish(&mut self, pair: u8, qos: QoS, count: usize) {
        let (_, input) = &mut self.inputs[usize::from(pair)];
        for id in 1_u8..=u8::try_from(count).expect("few") {
            let len = u8::try_from(5 + PAYLOAD).expect("short");
            input.extend([0x30 | qos.get() << 1, len, 0, 1, b'a' + pair, 0, id]);
            input.extend([b'.'; PAYLOAD]);
        }
    }

    /// Runs turns until the clients and the broker have nothing to say.
    fn run(&mut self) {
        loop {
            for (id, input) in &mut self.inputs {
                let received = self.broker.receive(*id, input, NOW);
                input.drain(..received.consumed);
            }
            while let Some(id) = self.broker.next_ready() {
                let outgoing = self.broker.outgoing(id);
                let own = self.inputs.iter_mut().find(|(own, _)| *own == id);
                let (_, input) = own.expect("a connection of this world");
                answer(outgoing, input);
                let n = outgoing.len();
                self.broker.sent(id, n, NOW);
            }
            let records = self.broker.journal().len();
            self.broker.stored(records);
            let idle = self.inputs.iter().all(|(_, input)| input.is_empty());
            if idle && records == 0 {
                return;
            }
        }
    }
}

/// Answers the packets of the broker, each of which has a length of one byte.
fn answer(mut packets: &[u8], answers: &mut Vec<u8>) {
    while let [first, len, rest @ ..] = packets {
        let (body, next) = rest.split_at(usize::from(*len));
        packets = next;
        let (answer, id) = match first & 0xF6 {
            0x32 => (0x40, &body[3..5]),
            0x34 => (0x50, &body[3..5]),
            0x50 => (0x62, &body[..2]),
            0x62 => (0x70, &body[..2]),
            _ => continue,
        };
        answers.extend([answer, 2, id[0], id[1]]);
    }
}
