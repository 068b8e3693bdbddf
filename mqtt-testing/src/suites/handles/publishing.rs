//! Tests of published messages: back-pressure, limits, and outcomes.

use std::future::{Future as _, poll_fn};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::ops::Deref;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::Poll;
use std::time::Duration;

use futures_lite::future::yield_now;
use mqtt_adapter_core::proto::QoS;
use mqtt_adapter_core::{Error, Handle, Offline, Options, Outcome, Outgoing};
use mqtt_session::{Refused, ServerEvent};

use super::services::brokers;
use super::{accepting, connect, message, options};
use crate::peers::{CONNACK_3_1_1, RawServer};
use crate::peers::{Mosquitto, free_port};
use crate::peers::{Reaction, ScriptedServer};

/// The server reads nothing: publishers wait, and memory stays within the limits.
pub async fn publishing_faster_than_the_broker_takes_waits<H: Deref<Target = Handle>>(
    start: impl Fn(Options) -> H,
) {
    // The server stops reading with the first message.
    let broker = accepting(Reaction::Nothing, Reaction::Freeze);
    let handle = connect(&start, options(broker.port)).await.unwrap();
    let payload = vec![0; 16 << 10];
    // QoS 1 fills the window.
    let mut accepted = 0;
    while handle.try_publish(&message(QoS::AtLeastOnce, b"x")).is_ok() {
        accepted += 1;
        yield_now().await;
    }
    assert_eq!(accepted, 128);
    // QoS 0 fills the outgoing buffer and the buffers of the system.
    let (mut bytes, mut refusals) = (0, 0);
    while refusals < 1_000 {
        match handle.try_publish(&message(QoS::AtMostOnce, &payload)) {
            Ok(_) => (bytes, refusals) = (bytes + payload.len(), 0),
            Err(Error::Refused(Refused::Full)) => refusals += 1,
            Err(error) => panic!("{error}"),
        }
        assert!(bytes < 64 << 20, "memory grows without bound");
        yield_now().await;
    }
}

/// Messages without a connection are kept, refused or dropped according to [`mqtt_session::Offline`].
pub async fn messages_published_offline_follow_the_policy<H: Deref<Target = Handle>>(
    start: impl Fn(Options) -> H,
) {
    let port = free_port();
    let start = |offline| {
        let mut options = options(port);
        options.config.offline = offline;
        options.config.queue = 2;
        options.config.window = 1;
        start(options)
    };
    let reject = start(Offline::Reject);
    assert!(matches!(
        reject.try_publish(&message(QoS::AtLeastOnce, b"x")),
        Err(Error::Refused(Refused::Offline))
    ));
    let keep = start(Offline::Keep);
    let _kept = [b"1", b"2"].map(|payload| {
        keep.try_publish(&message(QoS::AtLeastOnce, payload))
            .unwrap()
    });
    assert!(matches!(
        keep.try_publish(&message(QoS::AtLeastOnce, b"3")),
        Err(Error::Refused(Refused::Full))
    ));
    let remained = keep.close(Duration::ZERO).await;
    let payloads: Vec<_> = remained.iter().map(|unsent| &unsent.payload[..]).collect();
    assert_eq!(payloads, [b"1", b"2"]);
    let drop_oldest = start(Offline::DropOldest);
    let mut tickets: Vec<_> = [b"1", b"2", b"3"]
        .map(|payload| {
            drop_oldest
                .try_publish(&message(QoS::AtLeastOnce, payload))
                .unwrap()
        })
        .into();
    assert_eq!(tickets.remove(0).await, Outcome::Dropped);
    let remained = drop_oldest.close(Duration::ZERO).await;
    let payloads: Vec<_> = remained.iter().map(|unsent| &unsent.payload[..]).collect();
    assert_eq!(payloads, [b"2", b"3"]);
    assert_eq!(tickets.remove(0).await, Outcome::Closed);
    assert!(matches!(
        drop_oldest.try_publish(&message(QoS::AtMostOnce, b"4")),
        Err(Error::Stopped)
    ));
}

/// The server gets DISCONNECT, and the call returns the messages without an acknowledgement.
pub async fn close_flushes_disconnects_and_returns_unacknowledged_messages<
    H: Deref<Target = Handle>,
>(
    start: impl Fn(Options) -> H,
) {
    let goodbyes = Arc::new(AtomicUsize::new(0));
    let heard = Arc::new(Mutex::new(Vec::new()));
    let (count, log) = (Arc::clone(&goodbyes), Arc::clone(&heard));
    let broker = ScriptedServer::start(move |event, _| {
        match event {
            ServerEvent::Disconnected(_) => {
                count.fetch_add(1, Ordering::Relaxed);
            }
            ServerEvent::Message(incoming) => {
                log.lock().unwrap().push(incoming.publish.payload.to_vec())
            }
            _ => {}
        }
        Reaction::Usual
    });
    let handle = connect(&start, options(broker.port)).await.unwrap();
    for n in 0..200_u8 {
        let _ = handle
            .publish_message(&message(QoS::ExactlyOnce, &[n]))
            .await
            .unwrap();
    }
    assert!(handle.close(Duration::from_secs(60)).await.is_empty());
    assert_eq!(heard.lock().unwrap().len(), 200);
    while goodbyes.load(Ordering::Relaxed) == 0 {
        yield_now().await;
    }
    let frozen = ScriptedServer::start(|event, _| {
        if matches!(event, ServerEvent::Message(_)) {
            Reaction::Freeze
        } else {
            Reaction::Usual
        }
    });
    let handle = connect(&start, options(frozen.port)).await.unwrap();
    for n in 0..3_u8 {
        let _ = handle
            .publish_message(&Outgoing {
                retain: true,
                ..message(QoS::AtLeastOnce, &[n])
            })
            .await
            .unwrap();
    }
    let remained = handle.close(Duration::from_millis(50)).await;
    assert_eq!(remained.len(), 3);
    assert_eq!(
        (
            remained[2].topic.as_str(),
            &remained[2].payload[..],
            remained[2].retain
        ),
        ("a", &[2][..], true)
    );
}

/// Publishes a message that is larger than the socket buffers of both sides, so that the client keeps writing while the peer
/// reads nothing. Returns its ticket.
async fn fill(handle: &Handle) -> mqtt_adapter_core::Ticket {
    let payload = vec![0; 64 << 20];
    let published = handle
        .publish("large", QoS::AtMostOnce, false, &payload)
        .await;
    published.unwrap()
}

/// Moves bytes in both directions until one side ends.
fn relay(near: &TcpStream, port: u16) {
    let far = TcpStream::connect(("127.0.0.1", port)).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _ = std::io::copy(&mut &*near, &mut &far);
            let _ = far.shutdown(Shutdown::Both);
        });
        let _ = std::io::copy(&mut &far, &mut &*near);
        let _ = near.shutdown(Shutdown::Both);
    });
}

/// The client has found a violation of the server and still writes earlier bytes: messages that are published meanwhile wait
/// for the next connection, and `disconnected` waits until the reason is known.
pub async fn publishing_while_a_connection_is_ended_is_accepted<H: Deref<Target = Handle>>(
    start: impl Fn(Options) -> H,
) {
    let broker = Mosquitto::start("");
    let port = broker.port;
    let (go_wrong, wrong) = mpsc::channel::<()>();
    let wrong = Mutex::new(wrong);
    let server = RawServer::start(move |mut stream, number| {
        if number > 0 {
            return relay(&stream, port);
        }
        let _ = stream.read(&mut [0; 1024]);
        let _ = stream.write_all(&CONNACK_3_1_1);
        let _ = wrong.lock().unwrap().recv();
        let _ = stream.write_all(&[0, 0]);
        // The peer reads nothing, so the client cannot end the connection at once.
        let _ = wrong.lock().unwrap().recv();
    });
    let handle = connect(&start, options(server.port)).await.unwrap();
    let _ticket = fill(&handle).await;
    // Polled once before, it tells also of an end that is over before this thread looks.
    let mut ended = pin!(handle.disconnected());
    let mut ended_early = poll_fn(|cx| Poll::Ready(ended.as_mut().poll(cx))).await;
    go_wrong.send(()).unwrap();
    while handle.is_connected() && ended_early.is_pending() {
        yield_now().await;
        ended_early = poll_fn(|cx| Poll::Ready(ended.as_mut().poll(cx))).await;
    }
    let mut tickets = Vec::new();
    for _ in 0..20 {
        let published = handle.publish("a", QoS::AtLeastOnce, false, b"x").await;
        tickets.push(published.unwrap());
    }
    drop(go_wrong);
    let why = match ended_early {
        Poll::Ready(why) => why,
        Poll::Pending => ended.await,
    };
    assert!(!matches!(why, Error::Stopped), "{why}");
    for ticket in tickets {
        assert!(ticket.await.is_success());
    }
}

/// The outcome is `Sent` when the transport has the bytes, `Lost` when the connection ended before.
pub async fn a_ticket_of_qos_0_ends_when_the_transport_took_its_bytes<H: Deref<Target = Handle>>(
    start: impl Fn(Options) -> H,
) {
    let (cut, until) = mpsc::channel::<()>();
    let until = Mutex::new(until);
    let server = RawServer::start(move |mut stream, _| {
        let _ = stream.read(&mut [0; 1024]);
        let _ = stream.write_all(&CONNACK_3_1_1);
        // A message of which nothing was sent would wait for the next connection.
        let _ = stream.read_exact(&mut [0; 4096]);
        let _ = until.lock().unwrap().recv();
    });
    let handle = connect(&start, options(server.port)).await.unwrap();
    let small = handle.publish("small", QoS::AtMostOnce, false, b"").await;
    assert_eq!(small.unwrap().await, Outcome::Sent);
    let large = fill(&handle).await;
    cut.send(()).unwrap();
    assert_eq!(large.await, Outcome::Lost);
}

/// Messages that are larger than all buffers, in both directions.
pub async fn large_messages_arrive<H: Deref<Target = Handle>>(start: impl Fn(Options) -> H) {
    for broker in brokers() {
        for version in super::VERSIONS {
            let mut options = options(broker.port());
            options.version = version;
            let handle = connect(&start, options).await.unwrap();
            let mut messages = handle.subscribe("large", QoS::ExactlyOnce).await.unwrap();
            for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
                for len in [300_000_u32, 3_000_000] {
                    let bytes = len.to_be_bytes().into_iter().cycle();
                    let payload: Vec<u8> = bytes.take(len.try_into().unwrap()).collect();
                    let ticket = handle.publish("large", qos, false, &payload).await;
                    let message = messages.next().await.unwrap();
                    assert!(message.payload == payload, "{qos:?}, {len}");
                    assert!(ticket.unwrap().await.is_success());
                }
            }
            assert!(handle.close(Duration::from_secs(60)).await.is_empty());
        }
    }
}
