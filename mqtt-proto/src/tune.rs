//! Where speed and size want different code: each choice has its name, its target and the number that pays for it here.

/// Speed goes before size: on the processors of hosts.
pub(crate) const FAST: bool = cfg!(target_pointer_width = "64");
