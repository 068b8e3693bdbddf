//! Constants that tell what a build has. The compiler removes the branch of an `if` on one of them that is never taken.

pub(crate) use mqtt_proto::wire::FAST;

/// Whether the build has MQTT 5.
pub(crate) const V5: bool = cfg!(feature = "v5");
/// Whether the build has topic aliases.
pub(crate) const ALIASES: bool = cfg!(feature = "aliases");
/// Whether a message can arrive in pieces.
pub(crate) const PIECES: bool = cfg!(feature = "pieces");
/// Whether a packet can be sent from where it is kept. Firmware without a heap lends buffers for the packets that it sends.
pub(crate) const LARGE: bool = cfg!(feature = "alloc");
/// Whether memory can grow: there is a heap, or a table can start elsewhere than at the front of its memory.
pub(crate) const GROWS: bool = FAST || LARGE;
/// Whether a QoS 0 message can have a slot: while it waits for a connection, or because it is large.
pub(crate) const KEEPS_QOS_0: bool = POLICIES || LARGE;
/// Whether the build can write what must outlive the process as records.
pub(crate) const JOURNAL: bool = cfg!(feature = "journal");
/// Whether the build has servers.
pub(crate) const SERVER: bool = cfg!(feature = "server");
/// Whether messages can be acknowledged by hand.
pub(crate) const BY_HAND: bool = cfg!(feature = "by-hand");
/// Whether messages can wait while there is no connection, and end as the configuration says.
pub(crate) const POLICIES: bool = cfg!(feature = "policies");

/// Keeps one copy of a method on a device, where each caller would otherwise have its code again. On hosts the compiler decides.
/// Without this the flash of three images of `scripts/footprint.py` is larger by so many bytes:
///
/// ```text
///                              3.1.1   3.1.1 and 5   every feature
/// Engine::slot_room               36            32              20
/// Engine::add                     40            48               0
/// Engine::largest_in_buffer       28            64             -20
/// Slot::bytes                     28            24              76
/// Awaits::is_message               0             0               8
/// ```
macro_rules! not_inlined_on_devices {
    ($($method:tt)*) => {
        #[cfg_attr(not(target_pointer_width = "64"), inline(never))]
        $($method)*
    };
}

pub(crate) use not_inlined_on_devices;
