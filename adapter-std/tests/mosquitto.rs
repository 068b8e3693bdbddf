//! Runs the blocking client against Mosquitto, also through a proxy that cuts the connection at random bytes.

use std::collections::HashMap;
use std::net::TcpStream;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use mqtt_session::ServerEvent;
use mqtt_std::proto::{Connect, QoS, Subscription, TopicFilter, TopicName, Version};
use mqtt_std::session::{Client, Event, Heap, Refused};
use mqtt_std::{Config, Connection, Error, Handle, Offline, Outcome, Outgoing};
use mqtt_testing::peers::FloodServer;
use mqtt_testing::peers::{Mosquitto, free_port};
use mqtt_testing::peers::{Reaction, ScriptedServer};
use mqtt_testing::suites::interop::{Wires, options};

fn numbers(qos: QoS) -> Subscription<'static> {
    Subscription::new(TopicFilter::new("numbers").unwrap(), qos)
}

/// Publishes the numbers below `count`, each after a permit of `may_go_on`, and waits for all acknowledgements.
fn publish_numbers(publisher: &Handle, qos: QoS, count: u32, may_go_on: &mpsc::Receiver<()>) {
    let mut tickets = Vec::new();
    for n in 0..count {
        may_go_on.recv().unwrap();
        let payload = n.to_string();
        tickets.push(publisher.publish("numbers", qos, false, payload).unwrap());
    }
    for ticket in tickets {
        let outcome = ticket.wait();
        assert!(matches!(outcome, Outcome::Acknowledged(_)), "{outcome:?}");
    }
}

fn survives(version: Version, qos: QoS, count: u32) {
    let broker = Mosquitto::start("");
    let seed = 100 + u32::from(qos.get()) + u32::from(version.level()) * 7;
    let wires = Wires::start(&broker, seed);
    let subscriber = Handle::start(options(wires.far.port, version, "subscriber"));
    let mut messages = subscriber.subscribe("numbers", qos).unwrap();
    let publisher = Handle::start(options(wires.near.port, version, "publisher"));
    // As in `mqtt_testing::suites::interop`, Mosquitto must not have more messages to send again than arrive between two cuts.
    let (heard_one, may_go_on) = mpsc::sync_channel(200);
    for _ in 0..200 {
        heard_one.send(()).unwrap();
    }
    let sender = publisher.clone();
    let publishing = thread::spawn(move || publish_numbers(&sender, qos, count, &may_go_on));
    let mut heard = HashMap::<u32, u32>::new();
    let mut order = Vec::new();
    let mut seen: Vec<(u32, bool, Option<u16>)> = Vec::new();
    while heard.len() < usize::try_from(count).unwrap() {
        let message = messages
            .next_within(Duration::from_secs(120))
            .expect("it stalls");
        let n = std::str::from_utf8(&message.payload)
            .unwrap()
            .parse()
            .unwrap();
        let times = heard.entry(n).or_default();
        *times += 1;
        if *times == 1 {
            // The receiver is gone when the publisher has ended.
            let _ = heard_one.try_send(());
        }
        seen.push((n, message.dup, message.packet_id.map(|id| id.get())));
        order.push(n);
    }
    publishing.join().unwrap();
    wires.were_cut(count);
    if qos == QoS::ExactlyOnce {
        wires.stop_cutting();
        let end = publisher.publish("numbers", qos, false, "4294967295");
        assert!(end.unwrap().wait().is_success());
        assert_eq!(
            &messages.next().unwrap().payload[..],
            b"4294967295",
            "a message came twice"
        );
        let doubled: Vec<_> = seen.iter().filter(|(n, ..)| heard[n] > 1).collect();
        assert!(doubled.is_empty(), "doubled: {doubled:?}");
        assert!(order.is_sorted(), "out of order");
    }
    assert!(publisher.close(Duration::from_secs(10)).is_empty());
    let _ = subscriber.close(Duration::from_secs(10));
}

#[test]
fn five_thousand_qos_2_messages_through_cuts_arrive_exactly_once_3_1_1() {
    survives(Version::V311, QoS::ExactlyOnce, 5_000);
}

#[test]
fn five_thousand_qos_2_messages_through_cuts_arrive_exactly_once_5() {
    survives(Version::V5, QoS::ExactlyOnce, 5_000);
}

#[test]
fn five_thousand_qos_1_messages_through_cuts_arrive_at_least_once_3_1_1() {
    survives(Version::V311, QoS::AtLeastOnce, 5_000);
}

#[test]
fn five_thousand_qos_1_messages_through_cuts_arrive_at_least_once_5() {
    survives(Version::V5, QoS::AtLeastOnce, 5_000);
}

/// The handle and the bare connection notice a broker that stops answering, within keep-alive plus the ping time-out.
#[test]
fn a_frozen_broker_is_noticed() {
    let broker = Mosquitto::start("");
    let mut options = options(broker.port, Version::V5, "watcher");
    options.keep_alive = 1;
    options.config.ping_timeout_ms = 500;
    options.back_off.attempts = Some(1);
    let handle = Handle::connect(options).unwrap();
    let mut messages = handle.subscribe("numbers", QoS::AtMostOnce).unwrap();
    let mut config = Config::default();
    config.ping_timeout_ms = 500;
    let connect = Connect {
        keep_alive: 1,
        ..Connect::new(Version::V311, "bare")
    };
    let mut bare = Connection::dial(
        ("127.0.0.1", broker.port),
        &connect,
        config,
        Duration::from_secs(10),
    )
    .unwrap();
    assert!(matches!(
        bare.next().unwrap().0,
        Some(Event::Connected { .. })
    ));
    broker.freeze(true);
    let why = loop {
        if let Err(error) = bare.next() {
            break error.to_string();
        }
    };
    let ended = messages.next();
    broker.freeze(false);
    assert_eq!(why, "no PINGRESP within the ping time-out");
    assert!(ended.is_none());
}

/// The handle notices a frozen broker even while the outgoing buffer is full.
#[test]
fn a_frozen_broker_is_noticed_behind_a_full_buffer() {
    let broker = ScriptedServer::start(|event, _| match event {
        ServerEvent::Message(_) => Reaction::Freeze,
        _ => Reaction::Usual,
    });
    let mut options = options(broker.port, Version::V311, "watcher");
    options.keep_alive = 1;
    options.config.ping_timeout_ms = 500;
    options.back_off.attempts = Some(1);
    let handle = Handle::connect(options).unwrap();
    let mut nothing = handle.other_messages();
    let payload = vec![0; 64 << 10];
    // The call waits for room until the connection is given up.
    while handle
        .publish("a", QoS::AtMostOnce, false, &payload)
        .is_ok()
    {}
    assert!(nothing.next().is_none());
}

/// A bare connection runs over a transport that is not TCP, and publishes while the program has a received message.
#[test]
fn a_bare_connection_runs_over_any_read_and_write() {
    let broker = Mosquitto::start("");
    let path = std::env::temp_dir().join(format!("adapter-std-{}", broker.port));
    let listener = UnixListener::bind(&path).unwrap();
    let port = broker.port;
    let relay = thread::spawn(move || {
        let (near, _) = listener.accept().unwrap();
        let far = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (mut near_in, mut far_out) = (near.try_clone().unwrap(), far.try_clone().unwrap());
        thread::spawn(move || std::io::copy(&mut near_in, &mut far_out));
        let _ = std::io::copy(&mut &far, &mut &near);
    });
    let transport = UnixStream::connect(&path).unwrap();
    let client = Client::new(Config::default(), Heap);
    let mut connection =
        Connection::new(transport, client, &Connect::new(Version::V311, "bare")).unwrap();
    let mut echoes = 0;
    let mut acknowledged = 0;
    while echoes < 3 || acknowledged < 3 {
        let now = connection.now();
        let (event, client) = connection.next().unwrap();
        match event {
            Some(Event::Connected { .. }) => {
                client
                    .subscribe(&[numbers(QoS::ExactlyOnce)], Default::default(), now)
                    .unwrap();
            }
            Some(Event::Subscribed { .. }) => {
                let message =
                    Outgoing::new(TopicName::from_static("numbers"), QoS::ExactlyOnce, b"0");
                client.publish(&message, now).unwrap();
            }
            Some(Event::Message(incoming)) => {
                echoes += 1;
                if echoes < 3 {
                    let message = Outgoing::new(
                        incoming.publish.topic,
                        QoS::ExactlyOnce,
                        incoming.publish.payload,
                    );
                    client.publish(&message, now).unwrap();
                }
            }
            Some(Event::Acknowledged { .. }) => acknowledged += 1,
            _ => {}
        }
    }
    assert_eq!(connection.disconnect().unwrap().pending(), 0);
    relay.join().unwrap();
    std::fs::remove_file(path).unwrap();
}

#[test]
fn policies_limits_and_outcomes_are_those_of_the_session() {
    // A client without a connection.
    let mut offline = options(free_port(), Version::V311, "c");
    offline.config.offline = Offline::Reject;
    let handle = Handle::start(offline);
    let message = Outgoing::new(TopicName::from_static("a"), QoS::AtLeastOnce, b"x");
    assert!(matches!(
        handle.try_publish(&message),
        Err(Error::Refused(Refused::Offline))
    ));
    assert!(handle.close(Duration::ZERO).is_empty());
    assert!(matches!(handle.try_publish(&message), Err(Error::Stopped)));
    // The server never answers, so the window stays full: `close` returns the accepted messages.
    let frozen = ScriptedServer::start(|event, _| {
        if matches!(event, ServerEvent::Message(_)) {
            Reaction::Freeze
        } else {
            Reaction::Usual
        }
    });
    let handle = Handle::connect(options(frozen.port, Version::V311, "c")).unwrap();
    let mut tickets = Vec::new();
    while let Ok(ticket) = handle.try_publish(&message) {
        tickets.push(ticket);
    }
    assert_eq!(tickets.len(), 128);
    assert_eq!(handle.close(Duration::from_millis(50)).len(), 128);
    assert_eq!(tickets.pop().unwrap().wait(), Outcome::Closed);
}

/// 3.1.1 [MQTT-3.1.2-23]: the client sends PINGREQ in time even while the server sends more than the client takes.
#[test]
fn a_client_pings_while_messages_come_without_end() {
    let flood = FloodServer::start();
    let address = format!("127.0.0.1:{}", flood.port);
    let options = Connect {
        keep_alive: 1,
        ..Connect::new(Version::V311, "busy")
    };
    let patience = Duration::from_secs(10);
    let mut connection = Connection::dial(address, &options, Config::default(), patience).unwrap();
    while connection.next().is_ok() {}
    assert!(flood.was_pinged());
}
