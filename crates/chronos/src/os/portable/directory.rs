//! The folders that hold state, and the files in them, by their paths.
//!
//! A folder is used only when it belongs to us and nobody else can write into it. It is looked at
//! when it is opened; what is in it is opened without following links where the system can do that.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::kernel;
use crate::os::fault::{Fault, Purpose};

/// Space kept for ending what was granted: about five hundred lines of the journal.
pub const RESERVE: u64 = 64 << 10;

/// A folder of ours.
#[derive(Debug)]
pub struct Directory {
    purpose: Purpose,
    path: PathBuf,
}

impl Directory {
    /// Opens a folder, and makes it with `mode` if it is not there; permission bits mean something
    /// under Unix only.
    ///
    /// # Errors
    /// [`Fault::NotOurs`] for a link, a folder of another user or one that others can write into,
    /// [`Fault::NetworkFileSystem`], [`Fault::Os`].
    pub fn open(purpose: Purpose, path: &Path, mode: u32) -> Result<Self, Fault> {
        let metadata = match std::fs::symlink_metadata(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let made = kernel::make_folder(path, mode);
                made.map_err(|e| Fault::os("make directory", path.display(), e))?;
                std::fs::symlink_metadata(path)
            }
            metadata => metadata,
        };
        let metadata = metadata.map_err(|e| Fault::os("examine", path.display(), e))?;
        let directory = Self { purpose, path: path.to_owned() };
        directory.refuse_foreign(&metadata, crate::os::users::effective_uid())?;
        let network = kernel::network(path).map_err(|e| Fault::os("examine", path.display(), e))?;
        match network {
            Some(kind) => Err(Fault::NetworkFileSystem { purpose, path: path.to_owned(), kind }),
            None => Ok(directory),
        }
    }

    /// Opens the runtime directory of `owner` to read from it.
    ///
    /// # Errors
    /// As [`Directory::open`]; a folder that is not there is [`Fault::Os`].
    pub fn open_to_read(path: &Path, owner: u32) -> Result<Self, Fault> {
        let metadata = std::fs::symlink_metadata(path)
            .map_err(|e| Fault::os("open directory", path.display(), e))?;
        let directory = Self { purpose: Purpose::Runtime, path: path.to_owned() };
        directory.refuse_foreign(&metadata, owner)?;
        Ok(directory)
    }

    fn refuse_foreign(&self, metadata: &Metadata, owner: u32) -> Result<(), Fault> {
        let why = if !metadata.is_dir() {
            Some("it is a symbolic link or no directory".to_owned())
        } else {
            kernel::foreign(metadata, owner)
        };
        let (purpose, path) = (self.purpose, self.path.clone());
        why.map_or(Ok(()), |why| Err(Fault::NotOurs { purpose, path, why }))
    }

    /// Whether somebody has removed it: nothing can be kept in it any more.
    pub fn is_removed(&self) -> bool {
        let found = std::fs::symlink_metadata(&self.path);
        found.is_err_and(|error| error.kind() == ErrorKind::NotFound)
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of a file in it.
    pub fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Opens a file of ours to write, and makes it with `mode` if it is not there.
    ///
    /// # Errors
    /// [`Fault::NotOurs`] for a link, [`Fault::Os`].
    pub fn file(&self, name: &str, mode: u32) -> Result<File, Fault> {
        self.open_file(name, mode, OpenOptions::new().read(true).write(true).create(true))
    }

    /// Opens a file to read; `None` when it is not there.
    ///
    /// # Errors
    /// [`Fault::NotOurs`] for a link, [`Fault::Os`].
    pub fn file_to_read(&self, name: &str) -> Result<Option<File>, Fault> {
        match self.open_file(name, 0, OpenOptions::new().read(true)) {
            Err(Fault::Os { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(None),
            file => file.map(Some),
        }
    }

    fn open_file(&self, name: &str, mode: u32, how: &mut OpenOptions) -> Result<File, Fault> {
        let path = self.path_of(name);
        let refused = |why: &str| {
            let (purpose, path) = (self.purpose, path.clone());
            Err(Fault::NotOurs { purpose, path, why: why.to_owned() })
        };
        // Looked at before, where the system follows links all the same.
        if std::fs::symlink_metadata(&path).is_ok_and(|found| found.is_symlink()) {
            return refused("it is a symbolic link");
        }
        let file = kernel::without_links(how, mode).open(&path);
        let file = file.map_err(|e| Fault::os("open", path.display(), e))?;
        let metadata = file.metadata().map_err(|e| Fault::os("examine", path.display(), e))?;
        if !metadata.is_file() || kernel::has_other_names(&metadata) {
            return refused("it is no plain file of its own");
        }
        Ok(file)
    }

    /// Removes a file; one that is not there is no error.
    ///
    /// # Errors
    /// [`Fault::Os`].
    pub fn remove(&self, name: &str) -> Result<(), Fault> {
        let path = self.path_of(name);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(Fault::os("remove", path.display(), error))
            }
            _ => Ok(()),
        }
    }

    /// Puts `bytes` in place of file `name`, whole or not at all.
    ///
    /// # Errors
    /// [`Fault::Os`], [`Fault::NotOurs`].
    pub fn replace(
        &self,
        name: &str,
        temporary: &str,
        bytes: &[u8],
        plan: Replacement,
    ) -> Result<(), Fault> {
        // What a dead writer left, or what someone planted, is not written into.
        self.remove(temporary)?;
        let mut how = OpenOptions::new();
        let mut file = self.open_file(temporary, plan.mode, how.write(true).create_new(true))?;
        let path = self.path_of(temporary);
        let write = |e: io::Error| Fault::os("write", path.display(), e);
        file.write_all(bytes).map_err(write)?;
        if plan.durable {
            file.sync_data().map_err(write)?;
        }
        drop(file);
        kernel::rename(&path, &self.path_of(name))
            .map_err(|e| Fault::os("rename", path.display(), e))
    }
}

/// How a file is put in place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Replacement {
    /// Permission bits.
    pub mode: u32,
    /// Space to keep behind the content, in bytes; this half keeps it in a file of its own.
    pub reserve: u64,
    /// Whether it has to survive a power cut.
    pub durable: bool,
}

/// Who holds the lock of a file: no system but Linux tells.
pub fn holder(_file: &File) -> Option<String> {
    None
}

/// Whether a folder belongs to a user, or would: one that is not there yet is made by whoever asks.
pub fn may_be_of(path: &Path, uid: u32) -> bool {
    let found = std::fs::symlink_metadata(path);
    found.map_or(true, |metadata| kernel::is_of(&metadata, uid))
}
