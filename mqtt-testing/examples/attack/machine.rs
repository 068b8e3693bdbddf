//! Divides the processors of this machine between the broker and its clients, on Linux.

#[cfg(target_os = "linux")]
mod linux {
    use std::sync::OnceLock;

    use rustix::thread::{CpuSet, gettid, sched_getaffinity, sched_setaffinity};

    /// The processors that this process had at its start.
    static ALL: OnceLock<CpuSet> = OnceLock::new();

    fn own() -> CpuSet {
        let all = *ALL.get_or_init(|| sched_getaffinity(None).unwrap_or_else(|_| CpuSet::new()));
        let last = (0..CpuSet::MAX_CPU).rev().find(|cpu| all.is_set(*cpu));
        let mut own = CpuSet::new();
        last.into_iter().for_each(|cpu| own.set(cpu));
        own
    }

    /// Lets this thread, and the threads that it starts, run on one processor only.
    pub(crate) fn leave_a_processor() {
        // Without this the results are less exact.
        let _ = sched_setaffinity(None, &own());
    }

    /// Starts a process that may use all processors.
    pub(crate) fn on_all_processors<R>(start: impl FnOnce() -> R) -> R {
        if let Some(all) = ALL.get() {
            let _ = sched_setaffinity(None, all);
        }
        let started = start();
        leave_a_processor();
        started
    }

    /// Lets the system's table of descriptors have room for `count`, so that no thread waits while the system makes a larger one.
    pub(crate) fn reserve_descriptors(count: i32) {
        if let Ok(file) = std::fs::File::open("/dev/null") {
            let _ = rustix::io::fcntl_dupfd_cloexec(&file, count - 1);
        }
    }

    /// Lets all other threads run before this one.
    pub(crate) fn lower_priority() {
        let _ = rustix::process::setpriority_process(Some(gettid()), 19);
    }
}

#[cfg(not(target_os = "linux"))]
mod other {
    pub(crate) fn leave_a_processor() {}

    pub(crate) fn on_all_processors<R>(start: impl FnOnce() -> R) -> R {
        start()
    }

    pub(crate) fn reserve_descriptors(_: i32) {}

    pub(crate) fn lower_priority() {}
}

#[cfg(target_os = "linux")]
pub(crate) use linux::{leave_a_processor, lower_priority, on_all_processors, reserve_descriptors};
#[cfg(not(target_os = "linux"))]
pub(crate) use other::{leave_a_processor, lower_priority, on_all_processors, reserve_descriptors};
