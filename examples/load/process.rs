//! What a process has cost, from `/proc`.

use std::fs;

/// The kernel's clock ticks a second, as `/proc` shows them; fixed at 100 on Linux.
const TICKS: f64 = 100.0;

/// What a process has used so far, or in between.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// User and system time.
    pub(crate) cpu_seconds: f64,
    /// The most memory that was resident since the process began, in KiB.
    pub(crate) peak_rss_kib: u64,
    /// What is resident now, in KiB.
    pub(crate) rss_kib: u64,
    /// Bytes that were sent to disks; 0 where the kernel does not tell.
    pub(crate) write_bytes: u64,
}

impl Usage {
    pub(crate) fn own() -> Result<Self, String> {
        Self::of(std::process::id())
    }

    pub(crate) fn of(pid: u32) -> Result<Self, String> {
        let stat = read(pid, "stat")?;
        // The name in brackets may hold anything; utime and stime are the 12th and 13th field after it.
        let after = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let mut ticks = after.split_whitespace().skip(11);
        let mut tick = || ticks.next().and_then(|field| field.parse::<u32>().ok());
        let (Some(user), Some(system)) = (tick(), tick()) else {
            return Err(format!("/proc/{pid}/stat cannot be understood"));
        };
        let status = read(pid, "status")?;
        let io = read(pid, "io").unwrap_or_default();
        Ok(Self {
            cpu_seconds: (f64::from(user) + f64::from(system)) / TICKS,
            peak_rss_kib: field(&status, "VmHWM:"),
            rss_kib: field(&status, "VmRSS:"),
            write_bytes: field(&io, "write_bytes:"),
        })
    }

    /// What was used since `before`; memory as it is now.
    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            cpu_seconds: self.cpu_seconds - before.cpu_seconds,
            write_bytes: self.write_bytes.saturating_sub(before.write_bytes),
            ..*self
        }
    }
}

fn read(pid: u32, file: &str) -> Result<String, String> {
    let path = format!("/proc/{pid}/{file}");
    fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))
}

fn field(text: &str, name: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}
