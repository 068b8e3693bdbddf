//! Drives a client by hand, so that other calls come at chosen points within one poll of the driver.

use std::cell::{Cell, RefCell};
use std::future::{Future, pending};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake};
use std::time::Duration;

use mqtt_adapter_core::bytes::BytesMut;
use mqtt_adapter_core::driver::{Timer, Transport, client};
use mqtt_adapter_core::{Handle, Options};

/// Counts how often it is called.
#[derive(Default)]
struct Counter(AtomicUsize);

impl Wake for Counter {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

thread_local! {
    /// Runs when the driver makes a timer: it has read the state by then, and does not wait yet.
    static BEFORE_THE_WAIT: RefCell<Option<Box<dyn Fn()>>> = const { RefCell::new(None) };
}

/// A timer that never ends.
struct Never;

impl Timer for Never {
    fn after(_: Duration) -> Self {
        BEFORE_THE_WAIT.with_borrow(|call| call.iter().for_each(|call| call()));
        Self
    }

    fn reset(&mut self, _: Duration) {}

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }

    fn elapsed(&self) -> Duration {
        Duration::ZERO
    }
}

/// No dial of these tests opens a transport.
struct Nowhere;

impl Transport for Nowhere {
    fn poll_fill(&mut self, _: &mut Context<'_>, _: &mut BytesMut) -> Poll<io::Result<usize>> {
        unreachable!("there is no transport")
    }

    fn poll_write(&mut self, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        unreachable!("there is no transport")
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        unreachable!("there is no transport")
    }

    fn poll_close(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        unreachable!("there is no transport")
    }
}

fn close(handle: &mut Option<Handle>) {
    drop(handle.as_ref().map(|handle| handle.close(Duration::ZERO)));
}

/// Ends the client by `end` after the driver has read the state and before it waits: before the first dial if `dial_fails` is not
/// set, else before the next attempt. The driver must be woken, and end at its next poll.
fn ends(what: &str, dial_fails: bool, end: fn(&mut Option<Handle>)) {
    let has_failed = Rc::new(Cell::new(!dial_fails));
    let fails = Rc::clone(&has_failed);
    let (handle, driver) = client::<Never, _, _, Nowhere>(Options::new("a", 1883), move || {
        let fails = Rc::clone(&fails);
        async move {
            if dial_fails {
                fails.set(true);
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            pending().await
        }
    });
    let handle = RefCell::new(Some(handle));
    let has_ended = Cell::new(false);
    let call = move || {
        if has_failed.get() && !has_ended.replace(true) {
            end(&mut handle.borrow_mut());
        }
    };
    BEFORE_THE_WAIT.set(Some(Box::new(call)));
    let counter = Arc::new(Counter::default());
    let waker = Arc::clone(&counter).into();
    let cx = &mut Context::from_waker(&waker);
    let mut driver = pin!(driver);
    assert!(driver.as_mut().poll(cx).is_pending(), "{what}");
    assert!(counter.0.load(Ordering::Relaxed) > 0, "{what}: nobody woke");
    assert!(driver.as_mut().poll(cx).is_ready(), "{what}");
    BEFORE_THE_WAIT.set(None);
}

#[test]
fn a_driver_that_is_about_to_wait_sees_that_the_client_ends() {
    ends("close while it dials", false, close);
    ends("close before the next attempt", true, close);
    ends("drop while it dials", false, |handle| drop(handle.take()));
    ends("drop before the next attempt", true, |handle| {
        drop(handle.take());
    });
}
