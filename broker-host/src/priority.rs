//! Threads that compute for long and let the thread of the broker have the processor first.

use std::io;
use std::thread::Builder;

/// Runs `work` on a thread of its own with a lower priority.
///
/// # Errors
/// The system has no thread for it.
pub(crate) fn spawn_lower(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let thread = Builder::new().name(name.to_owned());
    let spawned = thread.spawn(move || {
        lower();
        work();
    });
    spawned.map(drop)
}

/// Lets other threads have the processor first. On Linux the priority belongs to the calling thread.
#[cfg(target_os = "linux")]
fn lower() {
    const NICE: i32 = 10;
    // Without a lower priority the thread works as well.
    let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE);
}

#[cfg(not(target_os = "linux"))]
const fn lower() {}
