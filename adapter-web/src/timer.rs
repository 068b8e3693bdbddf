//! Implements the timer with `setTimeout` of the browser.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use js_sys::{Function, Reflect, global};
use mqtt_adapter_core::driver::Timer;
use wasm_bindgen::closure::Closure;
use wasm_bindgen::{JsCast, JsValue};
use web_time::Instant;

/// The longest time that `setTimeout` accepts, 2^31 - 1 ms. A longer wait is split into parts.
const LONGEST: u128 = i32::MAX as u128;

/// The clock and timer of the browser for [`mqtt_adapter_core::driver`]. It works in pages and in workers.
pub struct Clock {
    made: Instant,
    /// The deadline; `None` waits for ever.
    at: Option<Instant>,
    /// The running timer of the browser, and the time of its call.
    running: Option<(JsValue, Instant)>,
    waker: Rc<RefCell<Option<Waker>>>,
    /// Whether the browser has called.
    called: Rc<Cell<bool>>,
    call: Closure<dyn FnMut()>,
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clock")
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}

impl Timer for Clock {
    fn after(span: Duration) -> Self {
        let waker = Rc::new(RefCell::new(None::<Waker>));
        let called = Rc::new(Cell::new(false));
        let (woken, calls) = (Rc::clone(&waker), Rc::clone(&called));
        let call = Closure::new(move || {
            calls.set(true);
            // The waker may start the next timer during its call.
            let waker = woken.borrow_mut().take();
            if let Some(waker) = waker {
                waker.wake();
            }
        });
        let made = Instant::now();
        Self {
            made,
            at: made.checked_add(span),
            running: None,
            waker,
            called,
            call,
        }
    }

    fn reset(&mut self, span: Duration) {
        self.at = Instant::now().checked_add(span);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let now = Instant::now();
        let Some(at) = self.at else {
            return Poll::Pending;
        };
        if at <= now {
            return Poll::Ready(());
        }
        *self.waker.borrow_mut() = Some(cx.waker().clone());
        if self.called.take() {
            self.running = None;
        }
        // A timer that calls before the deadline causes another poll.
        let is_soon_enough = |(_, calls): &(_, Instant)| *calls <= at;
        if !self.running.as_ref().is_some_and(is_soon_enough) {
            self.stop();
            // The time is rounded up, because a browser may call at the beginning of a millisecond.
            let millis = (at - now).as_millis().saturating_add(1).min(LONGEST);
            let millis = i32::try_from(millis).unwrap_or(i32::MAX);
            let handler = self.call.as_ref().unchecked_ref();
            if let Some(timer) = global_function("setTimeout")
                .and_then(|set| set.call2(&JsValue::NULL, handler, &millis.into()).ok())
            {
                self.running = Some((timer, at));
            }
        }
        Poll::Pending
    }

    fn elapsed(&self) -> Duration {
        self.made.elapsed()
    }
}

impl Clock {
    fn stop(&mut self) {
        if let Some((timer, _)) = self.running.take()
            && let Some(clear) = global_function("clearTimeout")
        {
            let _ = clear.call1(&JsValue::NULL, &timer);
        }
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Returns a function that exists in both pages and workers.
fn global_function(name: &str) -> Option<Function> {
    Reflect::get(&global(), &name.into()).ok()?.dyn_into().ok()
}

/// Waits for `span`, for programs without a runtime.
pub async fn sleep(span: Duration) {
    let mut clock = Clock::after(span);
    poll_fn(|cx| clock.poll(cx)).await;
}
