//! Checks a subscription that the server grants, and refuses when the client subscribes again. The test plays the server.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use mqtt_adapter_core::bytes::BytesMut;
use mqtt_adapter_core::proto::QoS;
use mqtt_adapter_core::{Error, Handle, Hub, Options, Output};

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

#[test]
fn to_unsubscribe_then_is_answered_at_once() {
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
