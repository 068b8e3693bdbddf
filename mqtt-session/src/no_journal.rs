//! In place of `journal.rs` without the feature `journal`: nothing is written, and nothing waits.

use mqtt_proto::PacketType;
use mqtt_proto::wire::View;

use crate::engine::Engine;
use crate::memory::Memory;
use crate::slots::Slot;

impl Engine {
    #[inline]
    #[allow(clippy::unused_self, reason = "as with the feature")]
    pub(crate) const fn record_fits(&self, _: usize) -> bool {
        true
    }

    #[inline]
    #[allow(clippy::unused_self, reason = "as with the feature")]
    pub(crate) const fn may_go(&self) -> usize {
        usize::MAX
    }
}

/// Methods that do nothing.
macro_rules! nothing {
    ($($name:ident($($argument:ty),*);)*) => {
        impl Engine {
            $(
                #[inline]
                #[allow(clippy::unused_self, reason = "as with the feature")]
                pub(crate) const fn $name(&mut self $(, _: $argument)*) {}
            )*
        }
    };
}

nothing! {
    acknowledgement_waits(&Memory<'_>, PacketType);
    clear_barriers();
    count_sent(usize);
    hold_all();
    record_assumed(&str);
    record_connect(&str, bool);
    record_connected(&Memory<'_>, &View<'_>, bool);
    record_end(&Slot);
    record_forgotten(&Memory<'_>);
    record_freed(u16);
    record_message(&Memory<'_>, &Slot);
    record_messages_again(&Memory<'_>);
    record_received(u16);
    record_released(&Slot);
    wait_for_records(&Memory<'_>);
}
