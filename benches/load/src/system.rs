//! What this machine says: processes, CPU time, its name for itself.

use std::collections::BTreeSet;
use std::path::Path;

use crate::report::Machine;

/// CPU time of this process, in seconds.
#[must_use]
pub fn own_cpu() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// CPU time of this thread, in seconds.
#[must_use]
pub fn thread_cpu() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// CPU time of a process, threads that ended included, in seconds; to 10 ms.
/// `None` where the system does not say.
#[must_use]
pub fn cpu_of(pid: u32) -> Option<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = text.rsplit(") ").next()?.split(' ').collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok());
    Some((ticks(11)? + ticks(12)?) / 100.0)
}

/// The cores that this thread may use; none where the system does not say.
#[must_use]
pub fn cores() -> Vec<usize> {
    #[cfg(target_os = "linux")]
    {
        use rustix::thread::{CpuSet, sched_getaffinity};
        let allowed = sched_getaffinity(None).ok();
        allowed.map_or_else(Vec::new, |set| (0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect())
    }
    #[cfg(not(target_os = "linux"))]
    Vec::new()
}

/// Keeps every thread of this process to some cores, and with them whatever
/// threads and processes they start from now on.
///
/// # Errors
/// When the system refuses, or has no such thing.
pub fn keep_to(cores: &[usize]) -> std::io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use rustix::thread::{CpuSet, Pid, sched_setaffinity};
        let mut set = CpuSet::new();
        cores.iter().filter(|core| **core < CpuSet::MAX_CPU).for_each(|core| set.set(*core));
        for thread in std::fs::read_dir("/proc/self/task")? {
            let thread = thread?.file_name().to_str().and_then(|id| Pid::from_raw(id.parse().ok()?));
            match sched_setaffinity(thread, &set) {
                // It ended in the meantime.
                Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                Err(why) => return Err(why.into()),
            }
        }
        Ok(())
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _nothing = cores;
        Err(std::io::ErrorKind::Unsupported.into())
    }
}

/// The process of this machine that listens on a TCP port, where the system
/// says so and it is ours to see.
#[must_use]
pub fn listens(port: u16) -> Option<u32> {
    let mut inodes = BTreeSet::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        for line in std::fs::read_to_string(table).unwrap_or_default().lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [_, local, _, "0A", _, _, _, _, _, inode, ..] = fields[..] else { continue };
            let ends = local.rsplit(':').next().and_then(|hex| u16::from_str_radix(hex, 16).ok());
            if ends == Some(port) {
                inodes.insert(format!("socket:[{inode}]"));
            }
        }
    }
    if inodes.is_empty() {
        return None;
    }
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).find(|pid| {
        let files = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        files
            .filter_map(|file| std::fs::read_link(file.path()).ok())
            .any(|link| inodes.contains(&*link.to_string_lossy()))
    })
}

/// This machine, as far as it says.
#[must_use]
pub fn machine(version: &str) -> Machine {
    let read = |path: &str| std::fs::read_to_string(Path::new(path)).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let processor = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    Machine {
        windrow: version.to_owned(),
        system: format!("{} {}", std::env::consts::OS, read("/proc/sys/kernel/osrelease").trim()),
        processor: processor.map_or(std::env::consts::ARCH, |(_, name)| name.trim()).to_owned(),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn threads_are_kept_to_cores_with_those_they_start() {
        let all = cores();
        assert_eq!(all.len(), std::thread::available_parallelism().unwrap().get());
        // The other tests of this process do not mind.
        keep_to(&all[..1]).unwrap();
        assert_eq!(cores(), all[..1]);
        assert_eq!(std::thread::spawn(cores).join().unwrap(), all[..1]);
        keep_to(&all).unwrap();
        assert_eq!(cores(), all);
        assert!(keep_to(&[]).is_err());
    }

    #[test]
    fn a_listener_is_found_and_its_cpu_time_grows() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(listens(port), Some(std::process::id()));
        drop(listener);
        assert_eq!(listens(port), None);
        let (before, begun) = (own_cpu(), cpu_of(std::process::id()).unwrap());
        while cpu_of(std::process::id()).unwrap() < begun + 0.03 {}
        assert!(own_cpu() > before);
    }
}
