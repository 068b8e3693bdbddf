//! Checks what the futures of a client with a store return beside its end.
#![cfg(feature = "store")]

use std::future::Future;
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake};
use std::thread::{self, Thread};
use std::time::Duration;

use mqtt_adapter_core::proto::{QoS, TopicName};
use mqtt_adapter_core::{Handle, Hub, Options, Outgoing};

/// Wakes a thread that sleeps in [`block_on`].
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<F: Future>(mut future: Pin<&mut F>) -> F::Output {
    let waker = Arc::new(Unpark(thread::current())).into();
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(done) => return done,
            Poll::Pending => thread::park(),
        }
    }
}

/// A client with an empty store, and the directory of the store.
fn client(name: &str) -> (Handle, PathBuf) {
    let dir = std::env::temp_dir().join(format!("mqtt-{name}-{}", std::process::id()));
    let mut options = Options::new("127.0.0.1", 1);
    options.client_id = name.to_owned();
    options.store(dir.to_str().unwrap());
    (Handle::new(&Hub::new(options)), dir)
}

/// The client is closed at once, and the store is closed after it has the message.
#[test]
fn a_message_that_is_stored_beside_the_close_is_reported_as_stored() {
    let (handle, dir) = client("storing");
    let message = Outgoing::new(TopicName::from_static("a"), QoS::AtLeastOnce, b"x");
    let ticket = handle.try_publish(&message).unwrap();
    let close = pin!(handle.close(Duration::ZERO));
    let mut early = pin!(ticket.stored());
    let mut waits = Context::from_waker(std::task::Waker::noop());
    if let Poll::Ready(stored) = early.as_mut().poll(&mut waits) {
        stored.unwrap();
        early.set(ticket.stored());
    }
    assert_eq!(block_on(close).len(), 1);
    block_on(early).unwrap();
    block_on(pin!(ticket.stored())).unwrap();
    drop(handle);
    std::fs::remove_dir_all(dir).unwrap();
}

/// The store has no more work, so nothing wakes what waits.
#[test]
fn a_publisher_that_is_dropped_leaves_no_waker_at_the_store() {
    let (handle, dir) = client("room");
    let message = Outgoing::new(TopicName::from_static("a"), QoS::AtLeastOnce, b"x");
    let mut last = None;
    while let Ok(ticket) = handle.try_publish(&message) {
        last = Some(ticket);
    }
    block_on(pin!(last.unwrap().stored())).unwrap();
    let unpark = Arc::new(Unpark(thread::current()));
    let waker = Arc::clone(&unpark).into();
    let waits = &mut Context::from_waker(&waker);
    let mut publisher = Box::pin(handle.publish_message(&message));
    assert!(publisher.as_mut().poll(waits).is_pending());
    assert!(Arc::strong_count(&unpark) > 2);
    drop(publisher);
    assert_eq!(Arc::strong_count(&unpark), 2);
    drop(handle.close(Duration::ZERO));
    drop(handle);
    std::fs::remove_dir_all(dir).unwrap();
}
