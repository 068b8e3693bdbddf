//! The system's table of this process's descriptors.

/// How many descriptors are not those of clients: listeners, files of the store and of settings, the runtime.
#[cfg(target_os = "linux")]
const OWN: u64 = 64;
/// The most descriptors that the table gets at once. The system keeps eight bytes for each.
#[cfg(target_os = "linux")]
const MOST: u64 = 1 << 20;

/// Lets the system's table of descriptors have room for this number of connections, as far as the limit of the process allows.
///
/// Linux doubles a full table. In a process with several threads the call that needs the new descriptor, such as `accept`, waits
/// until every processor has left the old table, which took 5 to 16 ms beside busy threads. During that time the broker served nobody.
#[cfg(target_os = "linux")]
pub(crate) fn reserve(connections: usize) {
    use mqtt_proto::num::to_u64;
    use rustix::process::{Resource, getrlimit};

    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let wanted = to_u64(connections);
    let last = wanted
        .saturating_add(OWN)
        .min(limit)
        .min(MOST)
        .saturating_sub(1);
    let (Ok(last), Ok(file)) = (i32::try_from(last), std::fs::File::open("/dev/null")) else {
        return;
    };
    // The table keeps its size after the descriptor with the highest number is closed. Without it the table grows later.
    let _ = rustix::io::fcntl_dupfd_cloexec(&file, last);
}

#[cfg(not(target_os = "linux"))]
pub(crate) const fn reserve(_: usize) {}
