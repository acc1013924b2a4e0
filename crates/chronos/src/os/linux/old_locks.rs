//! Lock files of the implementation before this one, read as memory that is taken.
//!
//! They lie in a folder that everyone can write into, so they are believed only so far: the
//! process they name has to live and to belong to the user who owns the file, what they reserve
//! is counted as foreign memory, and no process is ever signalled because of them.

use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use gpu_autoscaler_model::Bytes;

use crate::lease::{GPUS_MAX, Gpu, Lease, LeaseId};
use crate::os::fault::Fault;
use crate::os::process;
use crate::quantity::Ppm;

/// Files that are looked at; a folder with more is somebody's mistake or attack.
const FILES_MAX: usize = 1_000;

/// Bytes of a file that are read.
const LENGTH_MAX: u64 = 4_096;

/// Mark of the files that we wrote ourselves.
const OURS: &str = "chronos: lease";

/// What one file reserves.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Reserved {
    device: u32,
    fraction: Ppm,
}

/// Adds what the lock files reserve to the foreign memory of each GPU.
pub fn add_foreign(folder: &Path, gpus: &mut [Gpu]) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten().take(FILES_MAX) {
        let Some(reserved) = read(&entry.path()) else { continue };
        if let Some(gpu) = gpus.iter_mut().find(|gpu| gpu.index == reserved.device) {
            let held = gpu.foreign.unwrap_or_default().as_u64();
            let more = reserved.fraction.of(gpu.memory.as_u64());
            gpu.foreign = Some(Bytes::new(held.saturating_add(more)));
        }
    }
}

fn read(path: &Path) -> Option<Reserved> {
    // Without following links and without waiting for a pipe that someone planted.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path).ok()?;
    let metadata = file.metadata().ok()?;
    if !metadata.is_file() || path.extension()? != "lock" {
        return None;
    }
    let mut text = String::new();
    file.take(LENGTH_MAX).read_to_string(&mut text).ok()?;
    parse(&text, |pid| {
        process::identify(pid).is_ok() && process::user_of(pid).is_ok_and(|u| u == metadata.uid())
    })
}

fn parse(text: &str, lives: impl Fn(u32) -> bool) -> Option<Reserved> {
    let field = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        line[name.len()..].strip_prefix(':').map(str::trim)
    };
    if text.lines().any(|line| line.starts_with(OURS)) {
        return None;
    }
    let pid = field("pid")?.parse().ok()?;
    let device = field("device")?.parse().ok()?;
    let fraction = Ppm::parse(field("fraction")?).ok()?;
    lives(pid).then_some(Reserved { device, fraction })
}

/// Writes the lock files of a lease in the old form, one for each GPU.
///
/// # Errors
/// [`Fault::Os`].
pub fn write(folder: &Path, lease: &Lease) -> Result<(), Fault> {
    std::fs::create_dir_all(folder)
        .map_err(|e| Fault::os("make directory", folder.display(), e))?;
    for (number, part) in lease.parts.iter().enumerate() {
        let path = folder.join(name(&lease.id, number));
        let text = format!(
            "pid: {}\nuser: {}\nhost: localhost\ntime: {}\ndevice: {}\nfraction: {}\n\
             partition: {}\n{OURS}\n",
            lease.creator.pid,
            lease.owner.user,
            lease.granted_wall,
            part.index,
            part.fraction.as_f64(),
            lease.id,
        );
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true).mode(0o644).custom_flags(libc::O_NOFOLLOW);
        let write = |mut file: std::fs::File| std::io::Write::write_all(&mut file, text.as_bytes());
        options
            .open(&path)
            .and_then(write)
            .map_err(|e| Fault::os("write lock file", path.display(), e))?;
    }
    Ok(())
}

/// Removes the lock files of a lease.
pub fn remove(folder: &Path, id: &LeaseId) {
    for number in 0..GPUS_MAX {
        if std::fs::remove_file(folder.join(name(id, number))).is_err() {
            return;
        }
    }
}

fn name(id: &LeaseId, number: usize) -> String {
    if number == 0 { format!("{id}.lock") } else { format!("{id}_{number}.lock") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "pid: 7\nuser: ann\nhost: lab\ntime: 2025-10-01 10:00:00\ndevice: 1\n\
                       fraction: 0.500\npartition: partition_7_1_0001\n";

    #[test]
    fn a_lock_file_counts_while_its_process_lives() {
        let half = Reserved { device: 1, fraction: Ppm::new(500_000).unwrap() };
        assert_eq!(parse(OLD, |pid| pid == 7), Some(half));
        assert_eq!(parse(OLD, |_| false), None);
        assert_eq!(parse(&OLD.replace("0.500", "nan"), |_| true), None);
        assert_eq!(parse(&format!("{OLD}{OURS}\n"), |_| true), None, "our own are no foreigners");
    }
}
