//! What a run costs this machine: processor time and bytes written, of this process and of the
//! processes of a cluster, as the system counts them.

use std::collections::BTreeMap;

/// Counters of several processes at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    by_process: BTreeMap<u32, Counters>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counters {
    cpu_nanos: u64,
    written_bytes: u64,
}

/// What was used between two moments.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Used {
    /// Processor time of all cores.
    pub cpu_seconds: f64,
    /// Bytes that went to disks; zero where the system does not count them.
    pub written_bytes: u64,
}

impl Usage {
    /// Reads the counters of this process and of these others. One that is gone is left out.
    #[must_use]
    pub fn now(others: &[u32]) -> Self {
        let own = std::process::id();
        let all = others.iter().copied().chain([own]);
        Self { by_process: all.filter_map(|pid| Some((pid, counters(pid)?))).collect() }
    }

    /// What was used since an earlier moment by processes that are in both.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Used {
        let mut used = Used::default();
        for (pid, now) in &self.by_process {
            if let Some(then) = earlier.by_process.get(pid) {
                used.cpu_seconds += now.cpu_nanos.saturating_sub(then.cpu_nanos) as f64 / 1e9;
                used.written_bytes += now.written_bytes.saturating_sub(then.written_bytes);
            }
        }
        used
    }
}

fn counters(pid: u32) -> Option<Counters> {
    let cpu_nanos = if pid == std::process::id() { own_cpu_nanos() } else { cpu_nanos(&read(pid, "stat")?)? };
    let written_bytes = read(pid, "io").and_then(|io| written_bytes(&io)).unwrap_or(0);
    Some(Counters { cpu_nanos, written_bytes })
}

fn read(pid: u32, file: &str) -> Option<String> {
    std::fs::read_to_string(format!("/proc/{pid}/{file}")).ok()
}

/// Finer than `/proc/self/stat`, which counts in hundredths.
fn own_cpu_nanos() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// User and system time of `/proc/PID/stat`. Its unit is fixed at 1/100 s for user space.
fn cpu_nanos(stat: &str) -> Option<u64> {
    // The name in parentheses may hold anything, so counting starts behind it.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((user + system) * 10_000_000)
}

fn written_bytes(io: &str) -> Option<u64> {
    io.lines().find_map(|line| line.strip_prefix("write_bytes: "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_texts_are_read() {
        let stat = "12 (a) b) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0";
        assert_eq!(cpu_nanos(stat), Some(2_000_000_000));
        assert_eq!(cpu_nanos("12 (x"), None);
        assert_eq!(written_bytes("rchar: 1\nwrite_bytes: 4096\ncancelled_write_bytes: 0\n"), Some(4096));
        assert_eq!(written_bytes("rchar: 1\n"), None);
    }

    #[test]
    fn this_process_uses_time() {
        let before = Usage::now(&[]);
        let mut sum = 0u64;
        while Usage::now(&[]).since(&before).cpu_seconds == 0.0 {
            sum = sum.wrapping_add(1);
        }
        assert!(Usage::now(&[u32::MAX]).since(&before).cpu_seconds > 0.0, "{sum}");
    }
}
