//! How much memory this process takes.

use mqtt_broker::Memory;

/// Returns the resident memory of this process and the most it was, where the system tells it: on Linux.
#[cfg(target_os = "linux")]
pub(crate) fn memory() -> Option<Memory> {
    of_status(&std::fs::read_to_string("/proc/self/status").ok()?)
}

#[cfg(not(target_os = "linux"))]
pub(crate) const fn memory() -> Option<Memory> {
    None
}

/// Reads the text that Linux tells of a process: lines of a name, a colon and a number of kB.
#[cfg(any(target_os = "linux", test))]
fn of_status(text: &str) -> Option<Memory> {
    let bytes = |name| {
        let mut lines = text.lines();
        let line = lines.find_map(|line| line.strip_prefix(name))?;
        let number = line.trim().strip_suffix("kB")?.trim();
        number.parse::<u64>().ok()?.checked_mul(1024)
    };
    Some(Memory {
        current: bytes("VmRSS:")?,
        maximum: bytes("VmHWM:")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_bytes() {
        let text = "Name:\tmqtt\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\nThreads:\t3\n";
        let (current, maximum) = (1 << 20, 2 << 20);
        assert_eq!(of_status(text), Some(Memory { current, maximum }));
        assert_eq!(of_status("VmRSS:\t1 kB\n"), None);
        assert_eq!(of_status("VmHWM:\tx kB\nVmRSS:\t1 kB\n"), None);
    }
}
