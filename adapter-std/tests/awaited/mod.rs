//! The blocking handle as the suites of asynchronous handles expect it.

use std::ops::Deref;

use mqtt_std::asynch;

pub(crate) struct Handle(pub(crate) mqtt_std::Handle);

impl Deref for Handle {
    type Target = asynch::Handle;

    fn deref(&self) -> &asynch::Handle {
        self.0.as_async()
    }
}
