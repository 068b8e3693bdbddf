//! Ends a host after a panic in one of its tasks, which is a defect of this library or of the hooks. The state of the broker is not
//! known then: no task continues, and clients of MQTT 5 get a DISCONNECT that needs little of that state.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use mqtt_broker::Hooks;
use tokio::sync::Notify;
use tokio::task::spawn_local;

use crate::shared::Shared;

/// DISCONNECT with the reason code 0x83, implementation specific error.
const GOODBYE: [u8; 3] = [0xE0, 1, 0x83];

/// The panics of the tasks of one host.
#[derive(Debug, Default)]
pub(crate) struct Panics {
    happened: Cell<bool>,
    /// The message of the first panic, until it is passed on.
    payload: RefCell<Option<Box<dyn Any + Send>>>,
    told: Notify,
}

impl Panics {
    /// Spawns a task. It does nothing more after one of the tasks has panicked.
    pub(crate) fn spawn(self: &Rc<Self>, task: impl Future<Output = ()> + 'static) {
        let panics = Rc::clone(self);
        spawn_local(async move {
            let mut task = pin!(task);
            poll_fn(|cx| {
                if panics.happened.get() {
                    return Poll::Pending;
                }
                // Nothing but the goodbye uses what the panic may have left half done.
                let polled = catch_unwind(AssertUnwindSafe(|| task.as_mut().poll(cx)));
                polled.unwrap_or_else(|payload| {
                    panics.happened.set(true);
                    panics.payload.replace(Some(payload));
                    panics.told.notify_one();
                    Poll::Pending
                })
            })
            .await;
        });
    }

    /// Returns whether a task has panicked.
    pub(crate) const fn has_happened(&self) -> bool {
        self.happened.get()
    }

    /// Waits for a panic, and returns its message.
    pub(crate) async fn first(&self) -> Box<dyn Any + Send> {
        self.told.notified().await;
        let payload = self.payload.take();
        payload.unwrap_or_else(|| Box::new("a task of the host panicked"))
    }
}

impl<H: Hooks> Shared<H> {
    /// Writes DISCONNECT to the connections of listeners as far as that is possible at once, without changes of the broker.
    pub(crate) fn say_goodbye(&mut self) {
        let Self {
            broker,
            sockets,
            peers,
            ..
        } = self;
        sockets.write_last(&GOODBYE, peers, |id| broker.takes_disconnect(id));
    }
}
