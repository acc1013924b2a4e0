//! What the benchmarks share: readers of the openb trace and the replay of arrivals.

pub mod replay;
pub mod trace;

/// A line of this process' status that is in kB, such as `VmRSS:`, in MiB.
pub fn resident_mib(line: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|text| text.strip_prefix(line));
    let kib = line.and_then(|rest| rest.trim().trim_end_matches(" kB").trim().parse::<f64>().ok());
    kib.map_or(f64::NAN, |kib| kib / 1024.0)
}
