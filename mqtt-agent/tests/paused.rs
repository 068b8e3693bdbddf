//! Checks that only messages of a stream that the program reads pause reading.

use bytes::BytesMut;
use mqtt_agent::session::Instant;
use mqtt_agent::{Agent, Error, Flow, NextDial, Options, QoS0Overflow};

const NOW: Instant = Instant::from_millis(0);

/// CONNACK.
const CONNACK: &[u8] = b"\x20\x02\x00\x00";
/// A message at QoS 0 with topic `a`.
const MESSAGE: &[u8] = b"\x30\x04\x00\x01ax";

/// Returns a connected client with room for two QoS 0 messages.
fn connected() -> Agent {
    let mut options = Options::new("broker", 1883);
    options.qos0_overflow = QoS0Overflow::PauseReading;
    options.qos0_queue = 2;
    let mut agent = Agent::new(options);
    assert_eq!(agent.next_dial(NOW), NextDial::Now);
    agent.opened(NOW).unwrap();
    agent.sent(usize::MAX);
    receive(&mut agent, CONNACK);
    agent
}

fn receive(agent: &mut Agent, bytes: &[u8]) -> Flow {
    agent.receive(&mut BytesMut::from(bytes), NOW).unwrap()
}

#[test]
fn messages_without_a_reader_do_not_pause_reading() {
    let mut agent = connected();
    assert!(matches!(
        receive(&mut agent, &MESSAGE.repeat(5)),
        Flow::Read(_)
    ));
    assert_eq!((agent.waiting(None), agent.dropped(None)), (2, 3));
}

#[test]
fn messages_with_a_reader_pause_reading_until_they_are_taken() {
    let mut agent = connected();
    assert!(agent.next_message(None).is_none());
    assert_eq!(receive(&mut agent, &MESSAGE.repeat(5)), Flow::Paused);
    assert!(agent.next_message(None).is_some());
    assert!(!agent.is_paused());
    assert_eq!(receive(&mut agent, &MESSAGE.repeat(5)), Flow::Paused);
    // The stream was dropped.
    agent.leave_others();
    assert!(!agent.is_paused());
    assert_eq!(agent.dropped(None), 0);
}

/// A client whose connection is lost while reading is paused connects again: CONNACK is no message.
#[test]
fn a_paused_client_connects_again() {
    let mut agent = connected();
    assert!(agent.next_message(None).is_none());
    assert_eq!(receive(&mut agent, &MESSAGE.repeat(5)), Flow::Paused);
    agent.lost(Error::EndOfStream, NOW, 0);
    agent.opened(NOW).unwrap();
    agent.sent(usize::MAX);
    assert_eq!(receive(&mut agent, CONNACK), Flow::Paused);
    assert!(agent.is_connected() && agent.is_paused());
}
