//! Checks the streams of a client packet by packet. The test plays the server.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use mqtt_adapter_core::bytes::BytesMut;
use mqtt_adapter_core::proto::QoS;
use mqtt_adapter_core::{AcknowledgeWhen, Error, Handle, Hub, Options, Output, ReceivedMessage};

fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// Opens a connection, accepts it, and answers the SUBSCRIBE on it with this code.
fn answer(hub: &Hub, subscribe: impl FnOnce(), code: u8) {
    hub.opened().unwrap();
    sent(hub);
    hub.input(&mut BytesMut::from(&b"\x20\x02\0\0"[..]))
        .unwrap();
    subscribe();
    let packet = sent(hub);
    let suback = [0x90, 3, packet[2], packet[3], code];
    hub.input(&mut BytesMut::from(&suback[..])).unwrap();
}

/// Takes the outgoing bytes.
fn sent(hub: &Hub) -> Vec<u8> {
    let mut output = Output::default();
    hub.refill(&mut output);
    let bytes = output.rest().to_vec();
    output.wrote(bytes.len());
    hub.refill(&mut output);
    bytes
}

/// The server grants a subscription, and refuses it when the client subscribes again.
#[test]
fn to_unsubscribe_from_what_is_over_is_answered_at_once() {
    let hub: Arc<Hub> = Hub::new(Options::new("127.0.0.1", 1883));
    let handle = Handle::new(&hub);
    let mut subscribing = None;
    let subscribe = || subscribing = Some(handle.subscribe("a", QoS::AtMostOnce));
    answer(&hub, subscribe, 0);
    let Poll::Ready(Ok(mut messages)) = poll(subscribing.as_mut().unwrap()) else {
        panic!("it is granted");
    };
    hub.lost(Error::EndOfStream);
    answer(&hub, || (), 0x80);
    assert!(matches!(
        poll(&mut Box::pin(messages.next())),
        Poll::Ready(None)
    ));
    let unsubscribed = poll(&mut messages.unsubscribe());
    assert!(
        matches!(&unsubscribed, Poll::Ready(Ok(codes)) if codes.is_empty()),
        "{unsubscribed:?}"
    );
}

/// A stream that is dropped has taken no message at QoS 1 from the client that it did not give out.
#[test]
fn a_dropped_stream_leaves_what_it_did_not_give_out() {
    for acknowledge in [
        AcknowledgeWhen::Taken,
        AcknowledgeWhen::ByHand,
        AcknowledgeWhen::Arrived,
    ] {
        let mut options = Options::new("127.0.0.1", 1883);
        options.acknowledge = acknowledge;
        let hub: Arc<Hub> = Hub::new(options);
        let handle = Handle::new(&hub);
        let mut subscribing = None;
        let subscribe = || subscribing = Some(handle.subscribe("a", QoS::AtLeastOnce));
        answer(&hub, subscribe, 1);
        let Poll::Ready(Ok(mut messages)) = poll(subscribing.as_mut().unwrap()) else {
            panic!("it is granted");
        };
        let publishes = b"\x30\x04\0\x01a0\x32\x06\0\x01a\0\x011\x32\x06\0\x01a\0\x022";
        hub.input(&mut BytesMut::from(&publishes[..])).unwrap();
        let payload = |next: Poll<Option<ReceivedMessage>>| match next {
            Poll::Ready(Some(message)) => message.payload.to_vec(),
            _ => Vec::new(),
        };
        assert_eq!(payload(poll(&mut Box::pin(messages.next()))), b"0");
        drop(messages);
        let mut others = handle.other_messages();
        for expected in [b"1", b"2"] {
            assert_eq!(
                payload(poll(&mut Box::pin(others.next()))),
                expected,
                "{acknowledge:?}"
            );
        }
    }
}
