//! What a build has, and where speed and size want different code. `if` on one of these is decided by the compiler.

/// Speed goes before size: on the processors of hosts.
pub(crate) const FAST: bool = cfg!(target_pointer_width = "64");
/// There is MQTT 5.
pub(crate) const V5: bool = cfg!(feature = "v5");
/// There are topic aliases.
pub(crate) const ALIASES: bool = cfg!(feature = "aliases");
/// A message may come in pieces.
pub(crate) const PIECES: bool = cfg!(feature = "pieces");
/// A packet may go out from where it is kept. Firmware without a heap lends buffers for the packets that it sends.
pub(crate) const LARGE: bool = cfg!(feature = "alloc");
/// Memory may grow: there is a heap, or a table may begin elsewhere than at its front.
pub(crate) const GROWS: bool = FAST || LARGE;
/// A QoS 0 message may have a slot: while it waits for a connection, or because it is large.
pub(crate) const KEEPS_QOS_0: bool = POLICIES || LARGE;
/// What must outlive the process may be written as records.
pub(crate) const JOURNAL: bool = cfg!(feature = "journal");
/// There are servers.
pub(crate) const SERVER: bool = cfg!(feature = "server");
/// Messages may be acknowledged by hand.
pub(crate) const BY_HAND: bool = cfg!(feature = "by-hand");
/// Messages may wait while there is no connection, and end as the configuration says.
pub(crate) const POLICIES: bool = cfg!(feature = "policies");
