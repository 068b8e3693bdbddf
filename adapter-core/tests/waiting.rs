//! Checks what the futures of a client leave behind and what ends them, without a driver: no event comes that would free them.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake};
use std::time::Duration;

use mqtt_adapter_core::proto::{QoS, TopicFilter, TopicName, Version};
use mqtt_adapter_core::{Driving, Error, Handle, Hub, Options, Outcome, Outgoing, Refused};

/// Counts how often it is called.
#[derive(Default)]
struct Counter(AtomicUsize);

impl Wake for Counter {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Polls a future once, drops it, and checks that nothing stores the waker.
fn leaves_nothing<F: Future>(what: &str, future: F) {
    let counter = Arc::new(Counter::default());
    let waker = Arc::clone(&counter).into();
    {
        let mut future = pin!(future);
        let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
        assert!(polled.is_pending(), "{what}");
    }
    drop(waker);
    assert_eq!(Arc::strong_count(&counter), 1, "{what}");
}

fn handle() -> Handle {
    Handle::new(&v5())
}

#[test]
fn a_future_that_is_dropped_leaves_no_waker() {
    let handle = handle();
    let filter = TopicFilter::new("a/#").unwrap();
    leaves_nothing("connected", handle.connected());
    leaves_nothing("first_attempt", handle.first_attempt());
    leaves_nothing("subscribe", handle.subscribe("a/#", QoS::AtLeastOnce));
    leaves_nothing("unsubscribe", handle.unsubscribe(&[filter]));
    let mut events = handle.events();
    leaves_nothing("events", async move { events.next().await.is_some() });
    let mut others = handle.other_messages();
    leaves_nothing(
        "other_messages",
        async move { others.next().await.is_some() },
    );
    leaves_nothing("close", {
        let topic = TopicName::from_static("a");
        let message = Outgoing::new(topic, QoS::AtLeastOnce, b"x");
        let _ticket = handle.try_publish(&message).unwrap();
        handle.close(Duration::from_secs(60))
    });
}

/// Publishes until the window is full.
fn fill(handle: &Handle) {
    let message = Outgoing::new(TopicName::from_static("a"), QoS::AtLeastOnce, b"x");
    let refused = loop {
        if let Err(refused) = handle.try_publish(&message) {
            break refused;
        }
    };
    assert!(matches!(refused, Error::Refused(Refused::Full)));
}

/// Connects with a CONNACK without properties.
fn accept(hub: &Hub) {
    hub.opened().unwrap();
    let connack: &[u8] = &[0x20, 3, 0, 0, 0];
    hub.input(&mut connack.into()).unwrap();
}

fn v5() -> Arc<Hub> {
    let mut options = Options::new("127.0.0.1", 1883);
    options.version = Version::V5;
    Hub::new(options)
}

#[test]
fn a_publisher_that_is_dropped_leaves_no_waker() {
    let handle = handle();
    fill(&handle);
    leaves_nothing("publish", handle.publish("a", QoS::AtLeastOnce, false, "x"));
    let request = Outgoing::new(TopicName::from_static("a"), QoS::AtLeastOnce, b"x");
    leaves_nothing("request", handle.await_response(request));
    let hub = v5();
    let handle = Handle::new(&hub);
    accept(&hub);
    let message = Outgoing::new(TopicName::from_static("a"), QoS::AtMostOnce, b"x");
    leaves_nothing("ticket at QoS 0", handle.try_publish(&message).unwrap());
}

/// Asks the handle when it is called. A waker under the lock would wait for ever, so another thread asks.
struct Asks {
    handle: Mutex<Handle>,
    answers: AtomicUsize,
}

impl Wake for Asks {
    fn wake(self: Arc<Self>) {
        let handle = self.handle.lock().unwrap().clone();
        let (answer, answered) = std::sync::mpsc::channel();
        let ask = move || answer.send(handle.is_connected());
        std::thread::spawn(ask);
        let is_answered = answered.recv_timeout(Duration::from_secs(20)).is_ok();
        self.answers
            .fetch_add(usize::from(is_answered), Ordering::Relaxed);
    }
}

#[test]
fn a_waker_may_use_the_handle() {
    let hub = v5();
    let handle = Handle::new(&hub);
    let asks = Arc::new(Asks {
        handle: Mutex::new(handle.clone()),
        answers: AtomicUsize::new(0),
    });
    let waker = Arc::clone(&asks).into();
    let cx = &mut Context::from_waker(&waker);
    let message = Outgoing::new(TopicName::from_static("a"), QoS::AtLeastOnce, b"x");
    let mut ticket = pin!(handle.try_publish(&message).unwrap());
    fill(&handle);
    let mut publisher = pin!(handle.publish_message(&message));
    let mut watcher = pin!(handle.disconnected());
    let mut subscriber = pin!(handle.subscribe("a", QoS::AtLeastOnce));
    accept(&hub);
    assert!(ticket.as_mut().poll(cx).is_pending());
    assert!(publisher.as_mut().poll(cx).is_pending());
    assert!(watcher.as_mut().poll(cx).is_pending());
    assert!(subscriber.as_mut().poll(cx).is_pending());
    drop(handle.close(Duration::ZERO));
    hub.lost(Error::EndOfStream);
    assert_eq!(asks.answers.load(Ordering::Relaxed), 4);
}

/// A stream that many tasks poll in turn stores the waker of the last one.
#[test]
fn a_stream_stores_one_waker() {
    let handle = handle();
    let (mut events, mut others) = (handle.events(), handle.other_messages());
    let counter = Arc::new(Counter::default());
    for _ in 0..100 {
        let waker = Arc::clone(&counter).into();
        let cx = Context::from_waker(&waker);
        assert!(events.poll_event(&cx).is_pending());
        assert!(others.poll_message(&cx).is_pending());
    }
    assert_eq!(Arc::strong_count(&counter), 3);
}

/// Two futures of one task have the same waker; the end of one does not take it from the other one.
#[test]
fn a_future_that_is_dropped_takes_the_waker_of_no_other() {
    let handle = handle();
    let counter = Arc::new(Counter::default());
    let waker = Arc::clone(&counter).into();
    let cx = &mut Context::from_waker(&waker);
    let mut stays = Box::pin(handle.connected());
    assert!(stays.as_mut().poll(cx).is_pending());
    let mut goes = Box::pin(handle.connected());
    assert!(goes.as_mut().poll(cx).is_pending());
    drop(goes);
    drop(handle.close(Duration::ZERO));
    assert_eq!(counter.0.load(Ordering::Relaxed), 1);
    assert!(matches!(stays.as_mut().poll(cx), Poll::Ready(Err(_))));
}

/// A driver that is dropped, as by a runtime that ends, ends the futures of the client.
#[test]
fn a_driver_that_is_dropped_ends_what_waits() {
    let hub = Hub::new(Options::new("127.0.0.1", 1883));
    let handle = Handle::new(&hub);
    let counter = Arc::new(Counter::default());
    let waker = Arc::clone(&counter).into();
    let cx = &mut Context::from_waker(&waker);
    let message = Outgoing::new(TopicName::from_static("a"), QoS::AtLeastOnce, b"x");
    let mut ticket = pin!(handle.try_publish(&message).unwrap());
    let mut connected = pin!(handle.connected());
    assert!(ticket.as_mut().poll(cx).is_pending());
    assert!(connected.as_mut().poll(cx).is_pending());
    drop(Driving::new(hub));
    assert_eq!(counter.0.load(Ordering::Relaxed), 2);
    assert_eq!(ticket.poll(cx), Poll::Ready(Outcome::Closed));
    let connected = connected.poll(cx);
    assert!(
        matches!(connected, Poll::Ready(Err(Error::Stopped))),
        "{connected:?}"
    );
}

/// The server supports no QoS 2. A message whose ticket was dropped is counted, one with a ticket is not.
#[test]
fn a_message_that_nobody_awaits_is_counted_if_it_is_not_delivered() {
    let mut options = Options::new("127.0.0.1", 1883);
    options.version = Version::V5;
    let hub = Hub::new(options);
    let handle = Handle::new(&hub);
    let message = Outgoing::new(TopicName::from_static("a"), QoS::ExactlyOnce, b"x");
    let mut ticket = pin!(handle.try_publish(&message).unwrap());
    drop(handle.try_publish(&message).unwrap());
    assert_eq!(handle.undelivered(), 0);
    hub.opened().unwrap();
    // The property 0x24 is Maximum QoS.
    let connack: &[u8] = &[0x20, 5, 0, 0, 2, 0x24, 1];
    hub.input(&mut connack.into()).unwrap();
    let cx = &mut Context::from_waker(std::task::Waker::noop());
    assert_eq!(ticket.as_mut().poll(cx), Poll::Ready(Outcome::NotSupported));
    assert_eq!(handle.undelivered(), 1);
}

/// Drops the task of the driver when it is woken, as an executor that has ended.
struct Ended(Mutex<Option<Driving>>);

impl Wake for Ended {
    fn wake(self: Arc<Self>) {
        drop(self.0.lock().unwrap().take());
    }
}

#[test]
fn a_driver_that_is_dropped_when_it_is_woken_ends_the_client() {
    let hub = Hub::new(Options::new("127.0.0.1", 1883));
    let handle = Handle::new(&hub);
    let driving = Driving::new(Arc::clone(&hub));
    hub.set_driver(&Arc::new(Ended(Mutex::new(Some(driving)))).into());
    let message = Outgoing::new(TopicName::from_static("a"), QoS::AtLeastOnce, b"x");
    let mut ticket = pin!(handle.try_publish(&message).unwrap());
    let cx = &mut Context::from_waker(std::task::Waker::noop());
    assert_eq!(ticket.as_mut().poll(cx), Poll::Ready(Outcome::Closed));
}
