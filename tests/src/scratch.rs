//! Folders of one run, removed with it; those of killed runs are removed by the next run.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use std::{env, io, process, thread};

const PREFIX: &str = "gpu-autoscaler-test-";
/// Locked by the owner as long as it lives, however it ends.
const OWNER: &str = "owner.lock";
/// Marks a folder whose owner failed: its logs are wanted.
const KEPT: &str = "kept";
const KEPT_FOR: Duration = Duration::from_hours(24);

/// A folder of mode 0700 in the machine's temporary folder, removed when dropped.
///
/// A folder dropped by a panicking thread is kept for a day, because it holds the logs.
#[derive(Debug)]
pub struct ScratchDir {
    path: PathBuf,
    _owner: File,
}

impl ScratchDir {
    /// Creates a folder named after `purpose`, first removing those that killed runs left.
    ///
    /// # Errors
    /// What the file system answers; the message names the path.
    pub fn create(purpose: &str) -> io::Result<Self> {
        Self::create_in(&env::temp_dir(), purpose)
    }

    fn create_in(parent: &Path, purpose: &str) -> io::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        sweep(parent);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{purpose}-{}-{number}", process::id());
        let path = parent.join(format!("{PREFIX}{name}"));
        // Made under another name and locked there: a sweep never sees it without its lock.
        let hidden = parent.join(format!(".{PREFIX}{name}"));
        let named = |error: io::Error| {
            io::Error::new(error.kind(), format!("create `{}`: {error}", path.display()))
        };
        DirBuilder::new().mode(0o700).create(&hidden).map_err(named)?;
        let owner = File::create(hidden.join(OWNER)).map_err(named)?;
        owner.lock().map_err(named)?;
        fs::rename(&hidden, &path).map_err(named)?;
        Ok(Self { path, _owner: owner })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path inside the folder.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// Writes a file into the folder, which is private, and returns its path.
    ///
    /// # Errors
    /// What the file system answers; the message names the path.
    pub fn write(&self, name: &str, text: &str) -> io::Result<PathBuf> {
        let path = self.join(name);
        fs::write(&path, text).map_err(|error| {
            io::Error::new(error.kind(), format!("write `{}`: {error}", path.display()))
        })?;
        Ok(path)
    }
}

impl Drop for ScratchDir {
    fn drop(&mut self) {
        if thread::panicking() {
            // Without the mark the next run removes the folder; the failure itself is reported.
            let _ = File::create(self.join(KEPT));
        } else {
            // What cannot be removed now is removed by the sweep of a later run.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Removes the folders in `parent` whose owner is gone.
///
/// Errors are passed over: a folder may belong to another user, or go away meanwhile.
fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        let path = entry.path();
        let Ok(owner) = File::open(path.join(OWNER)) else { continue };
        if matches!(owner.try_lock(), Err(TryLockError::WouldBlock)) || is_kept(&path) {
            continue;
        }
        let _ = fs::remove_dir_all(&path);
    }
}

fn is_kept(path: &Path) -> bool {
    fs::metadata(path.join(KEPT))
        .and_then(|kept| kept.modified())
        .is_ok_and(|when| when.elapsed().is_ok_and(|age| age < KEPT_FOR))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_private_and_goes_with_its_owner() {
        use std::os::unix::fs::PermissionsExt as _;
        let scratch = ScratchDir::create("unit").expect("create");
        let path = scratch.path().to_owned();
        let mode = fs::metadata(&path).expect("exists").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        drop(scratch);
        assert!(!path.exists());
    }

    #[test]
    fn a_sweep_spares_the_living_and_removes_the_dead() {
        let parent = ScratchDir::create("sweep").expect("create");
        let living = ScratchDir::create_in(parent.path(), "living").expect("create");
        let dead = parent.join(format!("{PREFIX}dead"));
        fs::create_dir(&dead).expect("create");
        File::create(dead.join(OWNER)).expect("create");
        let foreign = parent.join("foreign");
        fs::create_dir(&foreign).expect("create");

        sweep(parent.path());

        assert!(living.path().exists());
        assert!(!dead.exists());
        assert!(foreign.exists());
    }

    #[test]
    fn the_folder_of_a_failed_test_is_kept_for_a_day() {
        let parent = ScratchDir::create("kept").expect("create");
        let inside = parent.path().to_owned();
        let failed = thread::spawn(move || {
            let _scratch = ScratchDir::create_in(&inside, "failing").expect("create");
            panic!("the failure that keeps the folder");
        });
        assert!(failed.join().is_err());

        sweep(parent.path());

        let kept: Vec<_> = fs::read_dir(parent.path())
            .expect("list")
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().contains("failing"))
            .collect();
        assert_eq!(kept.len(), 1);

        let day_ago = std::time::SystemTime::now() - KEPT_FOR;
        let mark = File::open(kept[0].path().join(KEPT)).expect("the mark");
        mark.set_modified(day_ago).expect("age the mark");
        sweep(parent.path());
        assert!(!kept[0].path().exists());
    }
}
