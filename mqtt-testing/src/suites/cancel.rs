//! Drops every future of a client at every await point, under any async runtime. No message or byte may be lost or doubled.

use std::future::Future;
use std::io;
use std::ops::Deref;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use futures_io::{AsyncRead, AsyncWrite};
use futures_lite::future::{block_on, yield_now};
use futures_lite::{AsyncReadExt, AsyncWriteExt};
use mqtt_adapter_core::driver::{Timer, Transport};
use mqtt_adapter_core::proto::{ConnAck, Connect, QoS, ReasonCode, SubAck, TopicName, Version};
use mqtt_adapter_core::{Config, Connection, Handle, Options, Outgoing};
use mqtt_session::{Client, Event, Heap, Instant, Server, ServerEvent, Step};
use piper::{Reader, Writer, pipe};

/// One end of a wire in memory.
#[allow(missing_debug_implementations, reason = "its pipes have none")]
pub struct Wire {
    reader: Reader,
    writer: Writer,
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.reader).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.writer).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_close(cx)
    }
}

/// Makes a wire of seven bytes, so that each read and each write waits many times, to a server that sends back each message.
#[must_use]
pub fn echo() -> Wire {
    let ((near_reader, far_writer), (far_reader, near_writer)) = (pipe(7), pipe(7));
    let far = Wire {
        reader: far_reader,
        writer: far_writer,
    };
    thread::spawn(move || block_on(serve(far)));
    Wire {
        reader: near_reader,
        writer: near_writer,
    }
}

async fn serve(mut wire: Wire) {
    let now = Instant::from_millis(0);
    let mut server = Server::new(Config::default(), Heap);
    server.opened(now);
    let (mut input, mut space) = (Vec::new(), [0; 64]);
    let mut back: Vec<(QoS, Vec<u8>)> = Vec::new();
    loop {
        while let Ok(Step::Packet { consumed, event }) = server.receive(&input, now) {
            match event {
                Some(ServerEvent::Connect(_)) => {
                    server
                        .accept(&ConnAck::default(), now)
                        .expect("it asked for that");
                }
                Some(ServerEvent::Message(message)) => {
                    back.push((message.publish.qos(), message.publish.payload.to_vec()));
                }
                Some(ServerEvent::Subscribe(subscribe)) => {
                    let codes = [ReasonCode::GrantedQoS2];
                    let suback = SubAck::new(subscribe.packet_id, &codes);
                    server.subscribed(&suback).expect("it asked for that");
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
            let Ok(n) = wire.write(server.outgoing()).await else {
                return;
            };
            server.sent(n);
        }
        match wire.read(&mut space).await {
            Ok(n @ 1..) => input.extend_from_slice(&space[..n]),
            _ => return,
        }
    }
}

/// Polls a future once, then drops it even if it is ready.
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

/// Makes a future, polls it once and drops it, until one is ready at once. A dropped future must make progress; otherwise this
/// never ends. It is a macro because each future borrows again.
macro_rules! insist {
    ($future:expr) => {
        loop {
            if let Some(output) = once($future).await {
                break output;
            }
            yield_now().await;
        }
    };
}

const ALL_QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

fn numbered() -> impl Iterator<Item = (QoS, String)> {
    let qos = ALL_QOS.into_iter().cycle();
    qos.zip(0..60).map(|(qos, n)| (qos, n.to_string()))
}

fn assert_all(mut heard: Vec<String>) {
    heard.sort_by_key(|payload| payload.parse::<u32>().expect("a number"));
    let expected: Vec<_> = numbered().map(|(_, payload)| payload).collect();
    assert_eq!(heard, expected);
}

/// Tests the bare connection.
///
/// # Panics
/// Something is lost or doubled.
pub async fn a_connection<W: Transport, T: Timer>(open: impl Fn(Wire) -> W) {
    for version in [Version::V311, Version::V5] {
        let connect = Connect::new(version, "c");
        let client = Client::new(Config::default(), Heap);
        let mut connection =
            Connection::<W, T>::new(open(echo()), client, &connect).expect("it can be written");
        let mut to_publish = numbered().peekable();
        let (mut acknowledged, mut echoed) = (0, Vec::new());
        while echoed.len() < 60 || acknowledged < 40 {
            if let (true, Some((qos, payload))) =
                (connection.client().is_connected(), to_publish.peek())
            {
                let now = connection.now();
                let topic = TopicName::from_static("there");
                let message = Outgoing::new(topic, *qos, payload.as_bytes());
                if connection.client().publish(&message, now).is_ok() {
                    to_publish.next();
                }
            }
            // Drops the future once for each wait; a ready one is used.
            match once(connection.next()).await {
                Some(Ok((Some(Event::Message(message)), _))) => {
                    echoed.push(String::from_utf8_lossy(message.publish.payload).into_owned());
                }
                Some(Ok((Some(Event::Acknowledged { .. }), _))) => acknowledged += 1,
                Some(Ok(_)) => {}
                Some(Err(error)) => panic!("{error}"),
                None => yield_now().await,
            }
        }
        assert_all(echoed);
        let _ = insist!(connection.flush());
    }
}

/// Tests the handle on transports of [`echo`]: publish, tickets, the stream of a subscription, connected, close.
///
/// # Panics
/// Something is lost or doubled.
pub async fn a_handle<H: Deref<Target = Handle>>(start: impl Fn(Options) -> H) {
    for version in [Version::V311, Version::V5] {
        let mut options = Options::new("nowhere", 0);
        options.version = version;
        options.config.window = 3;
        let handle = start(options);
        insist!(handle.connected()).expect("it connects");
        // A dropped `subscribe` ends its subscription. This one is kept and polled until it is granted.
        let mut echoes = handle
            .subscribe("echo", QoS::ExactlyOnce)
            .await
            .expect("it is granted");
        let text = |payload: &[u8]| String::from_utf8_lossy(payload).into_owned();
        let (mut heard, mut tickets) = (Vec::new(), Vec::new());
        for (qos, payload) in numbered() {
            let topic = TopicName::from_static("there");
            let message = Outgoing::new(topic, qos, payload.as_bytes());
            tickets.push(insist!(handle.publish_message(&message)).expect("it is open"));
            while let Some(Some(message)) = once(echoes.next()).await {
                heard.push(text(&message.payload));
            }
        }
        for mut ticket in tickets {
            let outcome = insist!(&mut ticket);
            assert!(outcome.is_success(), "{outcome:?}");
        }
        while heard.len() < 60 {
            heard.push(text(
                &insist!(echoes.next()).expect("there are more").payload,
            ));
        }
        assert_all(heard);
        assert!(insist!(handle.close(Duration::from_secs(60))).is_empty());
        assert!(insist!(echoes.next()).is_none());
    }
}
