//! Restores the machines from the journals in `mqtt-testing/formats`, and checks all that their peers get afterwards. The file
//! `mqtt-journal/tests/formats.rs` has the records of these journals.

use bytes::BytesMut;
use mqtt_agent::session::records::Records;
use mqtt_agent::{Agent, Options};
use mqtt_broker::{Broker, Config, ConnectionId, Hooks, Instant};
use mqtt_proto::{Connect, Decoded, MAX_PACKET, Packet, Version};
use mqtt_session::{Client, Heap};

const CLIENT: &[u8] = include_bytes!("../formats/1/client.journal");
const AGENT: &[u8] = include_bytes!("../formats/1/agent.journal");
const BROKER: &[u8] = include_bytes!("../formats/1/broker.journal");

const NOW: Instant = Instant::from_millis(1_000);

/// Returns a line for each packet.
fn lines(mut bytes: &[u8], version: Version) -> Vec<String> {
    let mut lines = Vec::new();
    while !bytes.is_empty() {
        let Ok(Decoded::Packet { packet, consumed }) = Packet::decode(bytes, version, MAX_PACKET)
        else {
            panic!("{bytes:x?}");
        };
        lines.push(line(&packet));
        bytes = &bytes[consumed..];
    }
    lines
}

fn line(packet: &Packet<'_>) -> String {
    match packet {
        Packet::Publish(publish) => format!(
            "{:?} {:?} {:?} dup {} retain {} {:?}",
            publish.topic,
            String::from_utf8_lossy(publish.payload),
            publish.delivery,
            publish.dup,
            publish.retain,
            publish.properties,
        ),
        other => format!("{other:?}"),
    }
}

/// What client and agent send in the session that the server has as well.
const RESUMED: [&str; 3] = [
    "PubRel(Ack { packet_id: PacketId(5), reason: Success, properties: [] })",
    "\"c\" \"y\" ExactlyOnce(PacketId(6)) dup true retain false []",
    "\"d\" \"z\" AtLeastOnce(PacketId(7)) dup true retain false []",
];

/// The messages that are not acknowledged go out again in their order, the note is there, and so is the identifier of a received message.
#[test]
fn a_client_continues_from_version_1() {
    let mut client = Client::new(mqtt_session::Config::default(), Heap);
    client.start_journal();
    for record in Records::new(CLIENT) {
        client.restore(&record.unwrap()).unwrap();
    }
    assert_eq!(client.restored(), Some("pump"));
    assert_eq!(client.note(), Some(&b"row 41"[..]));
    assert!(!client.must_start_clean());
    let connect = Connect {
        clean_start: false,
        ..Connect::new(Version::V5, "pump")
    };
    client.connect(&connect, NOW).unwrap();
    let sent = client.outgoing().len();
    client.sent(sent);
    // CONNACK with the session, and a repetition of a message that the client has.
    for input in [&b"\x20\x03\x01\0\0"[..], b"\x3c\x06\0\x01e\0\x09\0"] {
        client.receive(input, NOW).unwrap();
    }
    let stored = client.journal().len();
    client.stored(stored);
    let mut expected = RESUMED.to_vec();
    expected.push("PubRec(Ack { packet_id: PacketId(9), reason: Success, properties: [] })");
    assert_eq!(lines(client.outgoing(), Version::V5), expected);
}

/// Returns what an agent sends after CONNACK with or without the session.
fn agent_sends(session_present: u8) -> Vec<String> {
    let mut options = Options::new("broker", 1883);
    (options.version, options.clean_start) = (Version::V5, false);
    options.client_id = "pump".to_owned();
    let mut agent = Agent::with_journal(options);
    for record in Records::new(AGENT) {
        agent.restore(&record.unwrap()).unwrap();
    }
    agent.restored().unwrap();
    assert_eq!(agent.note(), Some(&b"row 41"[..]));
    agent.opened(NOW).unwrap();
    let sent = agent.outgoing().len();
    agent.sent(sent);
    let mut connack = BytesMut::from(&[0x20, 3, session_present, 0, 0][..]);
    agent.receive(&mut connack, NOW).unwrap();
    let stored = agent.journal().len();
    agent.stored(stored);
    lines(agent.outgoing(), Version::V5)
}

#[test]
fn an_agent_continues_from_version_1() {
    let mut expected = RESUMED.to_vec();
    // The server has the other subscription.
    expected.push(
        "Unsubscribe(Unsubscribe { packet_id: PacketId(8), properties: [], filters: [\"left\"] })",
    );
    assert_eq!(agent_sends(1), expected);
    // Without the session the messages are new ones.
    let expected = [
        "\"c\" \"y\" ExactlyOnce(PacketId(6)) dup false retain false []",
        "\"d\" \"z\" AtLeastOnce(PacketId(7)) dup false retain false []",
        "Subscribe(Subscribe { packet_id: PacketId(8), properties: [], filters: [Subscription { filter: \"a/#\", \
         qos: ExactlyOnce, no_local: false, retain_as_published: false, retain_handling: Send }] })",
    ];
    assert_eq!(agent_sends(0), expected);
}

/// Hooks that allow everything.
struct Open;

impl Hooks for Open {
    fn unguessable(&mut self) -> u128 {
        1
    }
}

fn store(broker: &mut Broker<Open>) {
    for _ in 0..10 {
        broker.tick(NOW);
        let stored = broker.journal().len();
        broker.stored(stored);
    }
}

/// Connects a client and returns what it gets.
fn connected(broker: &mut Broker<Open>, connect: &[u8], version: Version) -> Vec<String> {
    let id: ConnectionId = broker.open(NOW).unwrap();
    broker.receive(id, connect, NOW);
    store(broker);
    let bytes = broker.outgoing(id).to_vec();
    broker.sent(id, bytes.len(), NOW);
    lines(&bytes, version)
}

#[test]
fn a_broker_continues_from_version_1() {
    let mut config = Config::default();
    config.statistics_interval = 0;
    // 100 seconds before the times in the records.
    config.wall_clock = 4_102_444_700_000 - 1_000;
    let mut broker = Broker::new(config, Open, NOW);
    broker.start_journal();
    for record in Records::new(BROKER) {
        broker.restore(&record.unwrap()).unwrap();
    }
    let restored = broker.restored(NOW).unwrap();
    let expected = "Restored { sessions: 2, subscriptions: 5, messages: 5, retained: 2 }";
    assert_eq!(format!("{restored:?}"), expected);
    store(&mut broker);
    let away = connected(
        &mut broker,
        b"\x10\x16\0\x04MQTT\x05\x80\0\0\0\0\x04away\0\x03ann",
        Version::V5,
    );
    let expected = [
        "ConnAck(ConnAck { session_present: true, reason: Success, properties: [ReceiveMaximum(1024), \
         MaximumPacketSize(2097152), TopicAliasMaximum(16)] })",
        "\"t\" \"A\" ExactlyOnce(PacketId(1)) dup true retain true [SubscriptionIdentifier(7), \
         SubscriptionIdentifier(268435455)]",
        "PubRel(Ack { packet_id: PacketId(2), reason: Success, properties: [] })",
        "\"s\" \"C\" AtLeastOnce(PacketId(3)) dup false retain false []",
        "\"t\" \"D\" AtLeastOnce(PacketId(4)) dup false retain false [PayloadFormatIndicator(true)]",
        "\"t\" \"F\" AtLeastOnce(PacketId(5)) dup false retain false [SubscriptionIdentifier(7)]",
        "\"kept/all\" \"1\" AtLeastOnce(PacketId(6)) dup false retain true []",
        "\"kept/little\" \"2\" AtMostOnce dup false retain true []",
    ];
    assert_eq!(away, expected);
    let here = connected(
        &mut broker,
        b"\x10\x10\0\x04MQTT\x04\0\0\0\0\x04here",
        Version::V311,
    );
    let expected = [
        "ConnAck(ConnAck { session_present: true, reason: Success, properties: [] })",
        "\"t\" \"A\" AtLeastOnce(PacketId(1)) dup true retain false []",
        "\"t\" \"F\" AtLeastOnce(PacketId(2)) dup false retain false []",
        "\"will\" \"!\" AtLeastOnce(PacketId(3)) dup false retain false []",
    ];
    assert_eq!(here, expected);
}
