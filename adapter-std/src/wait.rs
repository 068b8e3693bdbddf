//! Waits for futures without a runtime: the thread sleeps until it is woken.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use mqtt_adapter_core::dial::after;

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

thread_local! {
    static WAKER: Waker = unpark();
}

fn unpark() -> Waker {
    Arc::new(Unpark(thread::current())).into()
}

/// Returns the waker that unparks the calling thread. A thread has one waker, so that a list of wakers has it only once.
pub(crate) fn waker() -> Waker {
    // While the thread ends, its waker may be dropped already.
    WAKER.try_with(Waker::clone).unwrap_or_else(|_| unpark())
}

/// Waits until `future` is ready, and returns its result.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = waker();
    let mut cx = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return output;
        }
        thread::park();
    }
}

/// Waits until `future` is ready, for at most `span`.
pub(crate) fn block_on_for<F: Future>(future: F, span: Duration) -> Option<F::Output> {
    let until = after(span);
    let mut future = pin!(future);
    let waker = waker();
    let mut cx = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return Some(output);
        }
        match until.checked_duration_since(Instant::now()) {
            Some(left) if !left.is_zero() => thread::park_timeout(left),
            _ => return None,
        }
    }
}
