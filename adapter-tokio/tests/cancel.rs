//! Every future is dropped at every point where it waits, and nothing is lost or doubled.

use std::future::Future;
use std::pin::pin;
use std::task::Poll;

use adapter_tokio::proto::{
    ConnAck, Connect, QoS, Subscription as Filter, TopicFilter, TopicName, Version,
};
use adapter_tokio::session::{Client, Config, Event, Heap, Instant, Server, ServerEvent, Step};
use adapter_tokio::{Connection, Handle, Options, Outcome, Outgoing};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// Polls once; the future is dropped whether it is done or not.
async fn once<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    std::future::poll_fn(|cx| {
        Poll::Ready(match future.as_mut().poll(cx) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        })
    })
    .await
}

/// Makes a future, polls it once and drops it, again and again until one is done at once. What was dropped must have
/// moved on, or this never ends. A macro, since each future borrows anew.
macro_rules! insist {
    ($future:expr) => {
        loop {
            if let Some(output) = once($future).await {
                break output;
            }
            tokio::task::yield_now().await;
        }
    };
}

/// A server that accepts and sends back each message it gets, on its own task.
fn echo(mut transport: DuplexStream) {
    tokio::spawn(async move {
        let now = Instant::from_millis(0);
        let mut server = Server::new(Config::default(), Heap);
        server.opened(now);
        let (mut input, mut space) = (Vec::new(), [0; 64]);
        let mut back: Vec<(QoS, Vec<u8>)> = Vec::new();
        loop {
            while let Ok(Step::Packet { consumed, event }) = server.receive(&input, now) {
                match event {
                    Some(ServerEvent::Connect(_)) => {
                        server.accept(&ConnAck::default(), now).unwrap()
                    }
                    Some(ServerEvent::Message(message)) => {
                        back.push((message.publish.qos(), message.publish.payload.to_vec()));
                    }
                    Some(ServerEvent::Subscribe(subscribe)) => {
                        let codes = [adapter_tokio::proto::ReasonCode::GrantedQoS2];
                        let suback = adapter_tokio::proto::SubAck::new(subscribe.packet_id, &codes);
                        server.subscribed(&suback).unwrap();
                    }
                    _ => {}
                }
                input.drain(..consumed);
            }
            back.retain(|(qos, payload)| {
                let message = Outgoing::new(TopicName::from_static("echo"), *qos, payload);
                server.publish(&message).is_err()
            });
            while !server.outgoing().is_empty() {
                let Ok(n) = transport.write(server.outgoing()).await else {
                    return;
                };
                server.sent(n);
            }
            match transport.read(&mut space).await {
                Ok(n @ 1..) => input.extend_from_slice(&space[..n]),
                _ => return,
            }
        }
    });
}

/// The bare connection over a wire of seven bytes: each read and each write waits many times.
#[tokio::test]
async fn a_connection_whose_every_future_is_dropped_loses_nothing() {
    for version in [Version::V311, Version::V5] {
        let (near, far) = tokio::io::duplex(7);
        echo(far);
        let connect = Connect::new(version, "c");
        let mut connection =
            Connection::new(near, Client::new(Config::default(), Heap), &connect).unwrap();
        let (mut published, mut acknowledged, mut echoed) = (0_u32, 0, Vec::new());
        while echoed.len() < 60 || acknowledged < 40 {
            if connection.client().is_connected() && published < 60 {
                let now = connection.now();
                let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]
                    [usize::try_from(published % 3).unwrap()];
                let payload = published.to_string();
                let message =
                    Outgoing::new(TopicName::from_static("there"), qos, payload.as_bytes());
                if connection.client().publish(&message, now).is_ok() {
                    published += 1;
                }
            }
            // One drop for each wait; what is ready is used.
            match once(connection.next()).await {
                Some(Ok((Some(Event::Message(message)), _))) => {
                    echoed.push(String::from_utf8(message.publish.payload.to_vec()).unwrap());
                }
                Some(Ok((Some(Event::Acknowledged { .. }), _))) => acknowledged += 1,
                Some(Ok(_)) => {}
                Some(Err(error)) => panic!("{error}"),
                None => tokio::task::yield_now().await,
            }
        }
        echoed.sort_by_key(|payload| payload.parse::<u32>().unwrap());
        let expected: Vec<_> = (0..60).map(|n: u32| n.to_string()).collect();
        assert_eq!(echoed, expected);
        let _ = insist!(connection.flush());
    }
}

/// The handle: publish, tickets, the stream of a subscription, connected, close.
#[tokio::test]
async fn a_handle_whose_every_future_is_dropped_loses_nothing() {
    for version in [Version::V311, Version::V5] {
        let mut options = Options::new("nowhere", 0);
        options.version = version;
        options.config.window = 3;
        let handle = Handle::start_with(options, || async {
            let (near, far) = tokio::io::duplex(7);
            echo(far);
            Ok(near)
        });
        insist!(handle.connected()).unwrap();
        // A dropped `subscribe` gives its subscription up: this one is kept and polled until it is granted.
        let filter = Filter::new(TopicFilter::new("echo").unwrap(), QoS::ExactlyOnce);
        let (_, mut echoes) = handle.subscribe(&filter).await.unwrap();
        let mut heard = Vec::new();
        let mut tickets = Vec::new();
        for n in 0..60_u32 {
            let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]
                [usize::try_from(n % 3).unwrap()];
            let payload = n.to_string();
            let message = Outgoing::new(TopicName::from_static("there"), qos, payload.as_bytes());
            tickets.push(insist!(handle.publish(&message)).unwrap());
            while let Some(Some(message)) = once(echoes.next()).await {
                heard.push(String::from_utf8(message.payload.to_vec()).unwrap());
            }
        }
        for mut ticket in tickets {
            let outcome = insist!(&mut ticket);
            assert!(matches!(outcome, Outcome::Acknowledged(_)), "{outcome:?}");
        }
        while heard.len() < 60 {
            let message = insist!(echoes.next()).unwrap();
            heard.push(String::from_utf8(message.payload.to_vec()).unwrap());
        }
        heard.sort_by_key(|payload| payload.parse::<u32>().unwrap());
        let expected: Vec<_> = (0..60).map(|n: u32| n.to_string()).collect();
        assert_eq!(heard, expected);
        assert!(insist!(handle.close(std::time::Duration::from_secs(60))).is_empty());
        assert!(insist!(echoes.next()).is_none());
    }
}
