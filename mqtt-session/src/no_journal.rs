//! In place of `journal.rs` without the feature `journal`: nothing is written, and nothing waits.

use mqtt_proto::PacketType;
use mqtt_proto::wire::View;

use crate::engine::Engine;
use crate::error::Refused;
use crate::event::Outgoing;
use crate::memory::Memory;
use crate::state::slot::{Awaits, Slot};

impl Engine {
    #[allow(clippy::unused_self, reason = "as with the feature")]
    pub(crate) const fn record_fits(&self, _: &Memory<'_>, _: usize) -> bool {
        true
    }

    #[allow(clippy::unused_self, reason = "as with the feature")]
    pub(crate) const fn refuses_unknown_session(&self) -> bool {
        false
    }

    #[allow(clippy::unused_self, reason = "as with the feature")]
    pub(crate) const fn check_record(
        &self,
        _: &Memory<'_>,
        _: &Outgoing<'_>,
    ) -> Result<(), Refused> {
        Ok(())
    }

    #[allow(clippy::unused_self, reason = "as with the feature")]
    pub(crate) const fn check_deferred(
        &self,
        _: &Memory<'_>,
        _: &Outgoing<'_>,
        _: u32,
    ) -> Result<(), Refused> {
        Ok(())
    }

    #[allow(clippy::unused_self, reason = "as with the feature")]
    pub(crate) const fn deferred_due_in(&self, _: u32) -> u32 {
        u32::MAX
    }

    #[allow(clippy::unused_self, reason = "as with the feature")]
    pub(crate) const fn lent_record_fits(&self, _: &Memory<'_>, _: usize) -> bool {
        true
    }

    #[allow(clippy::unused_self, reason = "as with the feature")]
    pub(crate) const fn check_connect_record(
        &self,
        _: &Memory<'_>,
        _: &str,
    ) -> Result<(), Refused> {
        Ok(())
    }

    #[allow(clippy::unused_self, reason = "as with the feature")]
    pub(crate) const fn record_again(&mut self, _: &mut Memory<'_>, _: &mut Slot) -> bool {
        true
    }

    #[allow(clippy::unused_self, reason = "as with the feature")]
    pub(crate) const fn message_waits(&self, _: Awaits) -> bool {
        false
    }

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
    record_assumed(&mut Memory<'_>, &str);
    record_deferred(&Memory<'_>);
    record_connect(&mut Memory<'_>, &str, bool);
    record_connected(&mut Memory<'_>, &View<'_>, bool);
    record_end(&mut Memory<'_>, &Slot);
    record_forgotten(&mut Memory<'_>);
    record_freed(&mut Memory<'_>, u16);
    record_message(&mut Memory<'_>, &Slot);
    record_messages_again(&mut Memory<'_>);
    record_received(&mut Memory<'_>, u16);
    record_released(&mut Memory<'_>, &Slot);
    tick_deferred(&Memory<'_>, u32);
    wait_for_records(&Memory<'_>);
}
