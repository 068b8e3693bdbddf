use embedded_io::ErrorKind;
use mqtt_embedded::blocking::Connection;
use mqtt_embedded::proto::{QoS, Rule, Version};
use mqtt_embedded::session::{Client, Config, Event, Violation};
use mqtt_embedded::{Buffers, Error, Patient, SessionError};

use crate::far::{Far, Odd, Time, connect, message};

const VERSIONS: [Version; 2] = [Version::V311, Version::V5];
const ALL_QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

type Memory = Buffers<64, 192, 192, 4>;

/// Describes an event as text.
fn told(event: Option<Event<'_>>) -> Option<String> {
    Some(match event? {
        Event::Connected { resumed, .. } => format!("connected, resumed: {resumed}"),
        Event::Message(message) => {
            format!(
                "message {}",
                String::from_utf8_lossy(message.publish.payload)
            )
        }
        Event::Acknowledged { .. } => "acknowledged".into(),
        Event::Pong => "pong".into(),
        other => format!("{other:?}"),
    })
}

/// Takes steps until this event. Returns the texts of all events.
fn until(
    connection: &mut Connection<'_, '_, Far, Time>,
    last: &str,
) -> Result<Vec<String>, Error<ErrorKind>> {
    let mut all = Vec::new();
    while all.last().is_none_or(|told| told != last) {
        let (event, _) = connection.next()?;
        all.extend(told(event));
    }
    Ok(all)
}

fn run(
    far: &Far,
    time: &Time,
    memory: &mut (Client<'_>, &mut [u8]),
    version: Version,
    each: impl FnOnce(&mut Connection<'_, '_, Far, Time>) -> Result<(), Error<ErrorKind>>,
) -> Result<(), Error<ErrorKind>> {
    let (client, input) = memory;
    let mut connection =
        Connection::new(far.clone(), client, input, time.clone(), &connect(version))?;
    connection.next()?;
    each(&mut connection)?;
    connection.disconnect()
}

#[test]
fn messages_go_both_ways_however_few_bytes_the_transport_takes() {
    for (version, most) in VERSIONS
        .into_iter()
        .flat_map(|v| [1, 2, 7, 1_000].map(|m| (v, m)))
    {
        let time = Time::default();
        let far = Far::new(&time, most);
        let mut buffers = Memory::new();
        let mut memory = buffers.client(Config::default());
        run(&far, &time, &mut memory, version, |connection| {
            for qos in ALL_QOS {
                let now = connection.now();
                connection.client().publish(&message(qos, b"hello"), now)?;
                if qos > QoS::AtMostOnce {
                    assert_eq!(until(connection, "acknowledged")?, ["acknowledged"]);
                }
                far.publish(qos, b"to you");
                assert_eq!(until(connection, "message to you")?, ["message to you"]);
            }
            connection.flush()
        })
        .unwrap();
        assert_eq!(far.heard(), ["hello"; 3]);
        assert_eq!(far.0.borrow().unflushed, 0);
    }
}

/// The transport is flushed once after all writes, not after each write.
#[test]
fn a_burst_is_flushed_once() {
    let time = Time::default();
    let far = Far::new(&time, 3);
    let mut buffers = Memory::new();
    let mut memory = buffers.client(Config::default());
    run(&far, &time, &mut memory, Version::V311, |connection| {
        let (now, before) = (connection.now(), far.0.borrow().flushes);
        for _ in 0..3 {
            connection
                .client()
                .publish(&message(QoS::AtMostOnce, b"hello"), now)?;
        }
        connection.flush()?;
        assert_eq!(far.0.borrow().flushes, before + 1);
        connection.flush()?;
        assert_eq!(
            far.0.borrow().flushes,
            before + 1,
            "nothing was written since"
        );
        Ok(())
    })
    .unwrap();
}

#[test]
fn each_end_of_the_transport_has_its_own_error() {
    let over = |odd_reads: &[Odd], odd_writes: &[Odd]| {
        let time = Time::default();
        let far = Far::new(&time, 100);
        let mut buffers = Memory::new();
        let mut memory = buffers.client(Config::default());
        run(&far, &time, &mut memory, Version::V311, |connection| {
            far.0.borrow_mut().reads.extend(odd_reads);
            far.0.borrow_mut().writes.extend(odd_writes);
            let now = connection.now();
            connection
                .client()
                .publish(&message(QoS::AtLeastOnce, b"hello"), now)?;
            until(connection, "acknowledged").map(|_| ())
        })
    };
    use Odd::{Fails, Nothing};
    assert_eq!(
        over(&[Nothing], &[]),
        Err(Error::Session(SessionError::EndOfFile))
    );
    assert_eq!(
        over(&[], &[Nothing]),
        Err(Error::Session(SessionError::WriteZero))
    );
    let broken = Fails(ErrorKind::ConnectionReset);
    assert_eq!(
        over(&[broken], &[]),
        Err(Error::Io(ErrorKind::ConnectionReset))
    );
    assert_eq!(
        over(&[], &[broken]),
        Err(Error::Io(ErrorKind::ConnectionReset))
    );
    let passing = [Fails(ErrorKind::Interrupted), Fails(ErrorKind::TimedOut)];
    assert_eq!(over(&passing, &passing[..1]), Ok(()));
}

/// Text of a modem is no packet: the connection ends with the reason, and the message goes out again on the next one.
#[test]
fn noise_ends_the_connection_but_not_the_session() {
    for version in VERSIONS {
        let time = Time::default();
        let far = Far::new(&time, 100);
        let mut buffers = Memory::new();
        let mut memory = buffers.client(Config::default());
        let why = run(&far, &time, &mut memory, version, |connection| {
            let now = connection.now();
            connection
                .client()
                .publish(&message(QoS::ExactlyOnce, b"once"), now)?;
            far.say(b"\r\nNO CARRIER\r\n");
            until(connection, "acknowledged").map(|_| ())
        });
        let Err(Error::Session(SessionError::Violation(Violation::Malformed(why)))) = why else {
            panic!("{why:?}");
        };
        assert_eq!(why.rule, Rule::ReservedPacketType { found: 0 });
        assert_eq!(memory.0.pending(), 1);
        far.reopen();
        run(&far, &time, &mut memory, version, |connection| {
            assert_eq!(until(connection, "acknowledged")?, ["acknowledged"]);
            Ok(())
        })
        .unwrap();
        assert_eq!(far.heard(), ["once"]);
    }
}

/// Returns the sum of the pieces of a message, and their number.
fn pieces(
    connection: &mut Connection<'_, '_, Far, Time>,
) -> Result<(u32, Vec<u8>, usize), Error<ErrorKind>> {
    let (mut announced, mut payload, mut count) = (0, Vec::new(), 0);
    loop {
        match connection.next()?.0 {
            Some(Event::MessageHead { payload_len, .. }) => {
                (announced, count) = (payload_len, 0);
                payload.clear();
            }
            Some(Event::Payload { bytes, left, .. }) => {
                payload.extend_from_slice(bytes);
                count += 1;
                if left == 0 {
                    return Ok((announced, payload, count));
                }
            }
            _ => {}
        }
    }
}

/// Takes steps until all messages of the server are acknowledged.
fn finish(
    connection: &mut Connection<'_, '_, Far, Time>,
    far: &Far,
) -> Result<(), Error<ErrorKind>> {
    let patience = core::time::Duration::from_millis(10);
    for _ in 0..10 {
        connection.next_within(patience)?;
    }
    assert_eq!(far.0.borrow().server.pending(), 0, "all is acknowledged");
    Ok(())
}

#[test]
fn a_payload_larger_than_the_buffer_comes_in_pieces() {
    let large: Vec<u8> = (0..5_000_u16).map(|n| n.to_le_bytes()[0]).collect();
    for (version, qos) in VERSIONS
        .into_iter()
        .flat_map(|v| ALL_QOS.map(|qos| (v, qos)))
    {
        let time = Time::default();
        let far = Far::new(&time, 50);
        let mut buffers = Memory::new();
        let mut memory = buffers.client(Config::default());
        run(&far, &time, &mut memory, version, |connection| {
            far.publish(qos, &large);
            let (announced, payload, count) = pieces(connection)?;
            assert_eq!((announced, &payload), (5_000, &large));
            assert!(count >= 5_000 / 64, "{count} pieces");
            // The bytes after it are a packet again.
            far.publish(qos, b"small");
            until(connection, "message small")?;
            finish(connection, &far)
        })
        .unwrap();
    }
}

/// A message that did not arrive whole is not acknowledged, and comes again on the next connection. A message that did is
/// reported once.
#[test]
fn a_cut_inside_a_large_payload_loses_nothing() {
    let large = vec![7; 1_000];
    for (version, qos) in VERSIONS
        .into_iter()
        .flat_map(|v| [QoS::AtLeastOnce, QoS::ExactlyOnce].map(|qos| (v, qos)))
    {
        let time = Time::default();
        let far = Far::new(&time, 50);
        let mut buffers = Memory::new();
        let mut memory = buffers.client(Config::default());
        let cut = run(&far, &time, &mut memory, version, |connection| {
            far.publish(qos, &large);
            far.0.borrow_mut().to_device.truncate(500);
            loop {
                if let Some(Event::Payload { left: ..600, .. }) = connection.next()?.0 {
                    far.0.borrow_mut().reads.push_back(Odd::Nothing);
                }
            }
        });
        assert_eq!(cut, Err(Error::Session(SessionError::EndOfFile)));
        far.reopen();
        run(&far, &time, &mut memory, version, |connection| {
            assert_eq!(pieces(connection)?.1, large);
            if qos == QoS::ExactlyOnce {
                // PUBREC is written, but the server does not get it, and sends the message again.
                return Err(Error::Io(ErrorKind::Other));
            }
            finish(connection, &far)
        })
        .unwrap_or(());
        if qos == QoS::ExactlyOnce {
            far.reopen();
            run(&far, &time, &mut memory, version, |connection| {
                far.publish(QoS::AtMostOnce, b"behind it");
                let told = until(connection, "message behind it")?;
                assert_eq!(told, ["message behind it"], "the large one is known");
                finish(connection, &far)
            })
            .unwrap();
        }
    }
}

/// Returns why a connection ends when the server sends these bytes first, with an input buffer of this size.
fn ends(buffer: usize, said: &[u8]) -> Rule {
    let time = Time::default();
    let far = Far::new(&time, 100);
    far.0.borrow_mut().deaf = true;
    far.say(said);
    let mut buffers = Memory::new();
    let (mut client, input) = buffers.client(Config::default());
    let connect = connect(Version::V5);
    let input = &mut input[..buffer];
    let mut connection = Connection::new(far, &mut client, input, time, &connect).unwrap();
    let why = connection.next().map(|_| ()).unwrap_err();
    let Error::Session(SessionError::Violation(Violation::Malformed(why))) = why else {
        panic!("{why:?}");
    };
    why.rule
}

#[test]
fn any_other_packet_must_fit_the_buffer() {
    // CONNACK of 80 bytes: a reason string of 72.
    let connack = [&[0x20, 78, 0, 0, 75, 0x1F, 0, 72][..], &[b'x'; 72]].concat();
    assert_eq!(ends(64, &connack), Rule::TooLarge { len: 80, max: 64 });
    // Also without any buffer the connection ends with a reason.
    assert_eq!(ends(1, &connack), Rule::TooLarge { len: 2, max: 1 });
    assert_eq!(ends(0, &connack), Rule::TooLarge { len: 1, max: 0 });
}

#[test]
fn a_silent_connection_is_pinged_and_ended_without_an_answer() {
    let time = Time::default();
    let far = Far::new(&time, 100);
    let mut buffers = Memory::new();
    let mut memory = buffers.client(Config::default());
    let silent = run(&far, &time, &mut memory, Version::V311, |connection| {
        assert_eq!(until(connection, "pong")?, ["pong"]);
        assert_eq!(far.0.borrow().pings, 1);
        assert!(time.get().as_millis() < 10_000, "within the keep-alive");
        far.0.borrow_mut().deaf = true;
        until(connection, "pong").map(|_| ())
    });
    let timeout = Violation::PingTimeout;
    assert_eq!(
        silent,
        Err(Error::Session(SessionError::Violation(timeout)))
    );
}

/// The client must ping while the server sends without a pause, since packets of the server do not keep the client alive.
#[test]
fn pings_go_out_while_messages_come_one_after_the_other() {
    let time = Time::default();
    let far = Far::new(&time, 1_000);
    let mut buffers = Memory::new();
    let mut memory = buffers.client(Config::default());
    run(&far, &time, &mut memory, Version::V311, |connection| {
        for _ in 0..200 {
            time.pass(100);
            far.publish(QoS::AtMostOnce, b"news");
            connection.next()?;
        }
        Ok(())
    })
    .unwrap();
    assert!(far.0.borrow().pings >= 2, "{} pings", far.0.borrow().pings);
}

#[test]
fn patience_ends_without_an_event() {
    let time = Time::default();
    let far = Far::new(&time, 100);
    let mut buffers = Memory::new();
    let mut memory = buffers.client(Config::default());
    run(&far, &time, &mut memory, Version::V311, |connection| {
        let before = connection.now();
        let patience = core::time::Duration::from_millis(1_500);
        assert!(connection.next_within(patience)?.0.is_none());
        assert_eq!(connection.now().since(before), patience);
        Ok(())
    })
    .unwrap();
}

/// A transport whose reads end by themselves works without `ReadReady`.
#[test]
fn a_patient_transport_is_read_until_its_time_is_up() {
    let time = Time::default();
    let far = Far::new(&time, 100);
    far.0
        .borrow_mut()
        .reads
        .extend([Odd::Fails(ErrorKind::TimedOut); 3]);
    let mut buffers = Memory::new();
    let (mut client, input) = buffers.client(Config::default());
    let connect = connect(Version::V5);
    let mut connection = Connection::new(Patient(far), &mut client, input, time, &connect).unwrap();
    let (event, _) = connection.next().unwrap();
    assert!(matches!(event, Some(Event::Connected { .. })), "{event:?}");
}
