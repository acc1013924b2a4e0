//! The fence of a lease: a control group of version 2 of its own.
//!
//! What is inside cannot leave without root, is killed as a whole, and can be frozen. Processes
//! join by being written into `cgroup.procs`; their children are born inside.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::process;
use crate::lease::{LeaseId, ProcessId};
use crate::os::clock;
use crate::os::fault::Fault;
use crate::quantity::Span;

/// Folder of the machine's hierarchy that holds all fences.
const SLICE: &str = "chronos.slice";

/// How long a freeze may take: milliseconds, or seconds where every process waits for a processor.
/// The journal is locked meanwhile.
pub const FREEZE_WAIT: Span = Span::from_secs(3);

/// The place of all fences.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fences {
    slice: PathBuf,
}

impl Fences {
    /// The fences of the leases that live in `runtime`; `None` where this user may make none.
    ///
    /// `root` names the hierarchy; without it the first mounted one is taken. Each state directory
    /// has a folder of its own, so that none takes down the fences of another.
    pub fn find(root: Option<&Path>, runtime: &Path) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let root = root.map(Path::to_owned).or_else(mounted)?;
        let whose = crate::journal::crc32c(runtime.as_os_str().as_encoded_bytes());
        let slice = root.join(SLICE).join(format!("state-{whose:08x}"));
        // Only below a control group: a folder of this name elsewhere would be made for nothing.
        if !root.join("cgroup.procs").exists() || fs::create_dir_all(&slice).is_err() {
            return None;
        }
        // A folder without this file is no control group, whatever it is called.
        slice.join("cgroup.kill").exists().then_some(Self { slice })
    }

    /// The folder of one fence.
    pub fn path(&self, id: &LeaseId) -> PathBuf {
        self.slice.join(&id.0)
    }

    /// Makes a fence; one that is there already is kept.
    ///
    /// # Errors
    /// [`Fault::Os`].
    pub fn make(&self, id: &LeaseId) -> Result<PathBuf, Fault> {
        let path = self.path(id);
        match fs::create_dir(&path) {
            Ok(()) => Ok(path),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(path),
            Err(error) => Err(Fault::os("make control group", path.display(), error)),
        }
    }

    /// Names of all fences.
    ///
    /// # Errors
    /// [`Fault::Os`].
    pub fn all(&self) -> Result<Vec<LeaseId>, Fault> {
        let entries =
            fs::read_dir(&self.slice).map_err(|e| Fault::os("read", self.slice.display(), e))?;
        let folders = entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
        let names = folders.filter_map(|entry| entry.file_name().into_string().ok());
        Ok(names.filter(|name| LeaseId::plausible(name)).map(LeaseId).collect())
    }

    /// Puts a process inside.
    ///
    /// # Errors
    /// [`Fault::Os`].
    pub fn enclose(&self, id: &LeaseId, process: &ProcessId) -> Result<(), Fault> {
        let file = self.path(id).join("cgroup.procs");
        fs::write(&file, process.pid.to_string())
            .map_err(|e| Fault::os("move a process into", file.display(), e))
    }

    /// Every process inside, at any depth, but for this one.
    pub fn members(&self, id: &LeaseId) -> BTreeSet<ProcessId> {
        let own = std::process::id();
        let pids = folders(&self.path(id)).into_iter().flat_map(|folder| pids(&folder));
        pids.filter(|pid| *pid != own).filter_map(|pid| process::identify(pid).ok()).collect()
    }

    /// Moves this very process out of any fence.
    pub fn leave(&self) {
        if let Some(outside) = self.slice.parent().and_then(Path::parent) {
            // Where it fails the process was outside already or may not move: both are fine.
            let _ = fs::write(outside.join("cgroup.procs"), std::process::id().to_string());
        }
    }

    /// Whether this very process is inside.
    pub fn holds_self(&self, id: &LeaseId) -> bool {
        let own = std::process::id();
        folders(&self.path(id)).iter().any(|folder| pids(folder).contains(&own))
    }

    /// Kills everything inside at once.
    ///
    /// Source: cgroup v2 documentation, `cgroup.kill`, Linux 5.14.
    ///
    /// # Errors
    /// [`Fault::Os`]; a fence that is gone is no error.
    pub fn kill(&self, id: &LeaseId) -> Result<(), Fault> {
        write_if_there(&self.path(id).join("cgroup.kill"), "1")
    }

    /// Stops everything inside; returns whether the kernel reported it in time.
    ///
    /// # Errors
    /// [`Fault::Os`].
    pub fn freeze(&self, id: &LeaseId) -> Result<bool, Fault> {
        write_if_there(&self.path(id).join("cgroup.freeze"), "1")?;
        let events = self.path(id).join("cgroup.events");
        let until = clock::boottime().after(FREEZE_WAIT);
        loop {
            let text = fs::read_to_string(&events).unwrap_or_default();
            if text.lines().any(|line| line == "frozen 1") {
                return Ok(true);
            }
            if clock::boottime() >= until {
                return Ok(false);
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }

    /// Lets everything inside run again.
    ///
    /// # Errors
    /// [`Fault::Os`].
    pub fn thaw(&self, id: &LeaseId) -> Result<(), Fault> {
        write_if_there(&self.path(id).join("cgroup.freeze"), "0")
    }

    /// Takes a fence down; what is inside is moved out and runs on.
    ///
    /// # Errors
    /// [`Fault::Os`]; a fence that is gone is no error.
    pub fn remove(&self, id: &LeaseId) -> Result<(), Fault> {
        let path = self.path(id);
        self.thaw(id)?;
        let outside = self.slice.parent().unwrap_or(&self.slice).join("cgroup.procs");
        // Deepest first: a control group with children cannot be removed.
        for folder in folders(&path).into_iter().rev() {
            for pid in pids(&folder) {
                // One that has just exited cannot be moved and need not be.
                let _ = fs::write(&outside, pid.to_string());
            }
            match fs::remove_dir(&folder) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    return Err(Fault::os("remove control group", folder.display(), error));
                }
            }
        }
        Ok(())
    }
}

/// Where a hierarchy of version 2 is mounted.
///
/// Source: proc_pid_mountinfo(5): the mount point is field 5, the type follows ` - `.
pub fn mounted() -> Option<PathBuf> {
    let text = fs::read_to_string("/proc/self/mountinfo").ok()?;
    text.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mount = before.split(' ').nth(4)?;
        after.starts_with("cgroup2 ").then(|| PathBuf::from(mount))
    })
}

fn write_if_there(path: &Path, text: &str) -> Result<(), Fault> {
    let written = fs::OpenOptions::new().write(true).open(path).and_then(|mut file| {
        use std::io::Write;
        file.write_all(text.as_bytes())
    });
    match written {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Fault::os("write", path.display(), error))
        }
        _ => Ok(()),
    }
}

/// A folder and all below it, parents first.
fn folders(path: &Path) -> Vec<PathBuf> {
    let mut found = vec![path.to_owned()];
    let mut next = 0;
    while next < found.len() {
        let entries = fs::read_dir(&found[next]).into_iter().flatten().flatten();
        let below = entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path());
        found.extend(below.collect::<Vec<_>>());
        next += 1;
    }
    found
}

fn pids(folder: &Path) -> Vec<u32> {
    let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid != 0).collect()
}
