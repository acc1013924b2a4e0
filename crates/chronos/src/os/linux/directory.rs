//! The folders that hold state, and the files in them.
//!
//! A folder is opened once, without following a link, and is used only when it belongs to us and
//! nobody else can write into it; its files are opened relative to it, without following links.
//! A link, a foreign file or a network file system where our state belongs is refused.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FallocateFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::os::fault::{Fault, Purpose};

/// Space kept in the journal for ending what was granted: about five hundred lines.
pub const RESERVE: u64 = 64 << 10;

/// File systems whose locks another machine may hold or lose. FUSE is among them because its number
/// is also that of sshfs, of object stores and of virtiofs, and nothing tells them apart.
///
/// Source: statfs(2), `linux/magic.h`; Ceph, Lustre, GPFS and OrangeFS from their sources.
const NETWORK: [(u64, &str); 15] = [
    (0x6573_5546, "FUSE"),
    (0x6969, "NFS"),
    (0x517b, "SMB"),
    (0xfe53_4d42, "SMB2"),
    (0xff53_4d42, "CIFS"),
    (0x5346_414f, "AFS"),
    (0x6b41_4653, "kAFS"),
    (0x7375_7245, "Coda"),
    (0x0102_1997, "9P"),
    (0x00c3_6400, "Ceph"),
    (0x0bd0_0bd0, "Lustre"),
    (0x4750_4653, "GPFS"),
    (0x2003_0528, "OrangeFS"),
    (0x1983_0326, "BeeGFS"),
    (0x564c, "NCP"),
];

/// A folder of ours.
#[derive(Debug)]
pub struct Directory {
    purpose: Purpose,
    path: PathBuf,
    fd: OwnedFd,
}

impl Directory {
    /// Opens a folder, and makes it with `mode` if it is not there.
    ///
    /// # Errors
    /// [`Fault::NotOurs`] for a link, a folder of another user or one that others can write into,
    /// [`Fault::NetworkFileSystem`], [`Fault::Os`].
    pub fn open(purpose: Purpose, path: &Path, mode: u32) -> Result<Self, Fault> {
        let directory = match Self::open_there(purpose, path) {
            Err(Fault::Os { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                let made = std::fs::DirBuilder::new().mode(mode).recursive(true).create(path);
                made.map_err(|e| Fault::os("make directory", path.display(), e))?;
                Self::open_there(purpose, path)?
            }
            opened => opened?,
        };
        directory.refuse_foreign(rustix::process::geteuid().as_raw())?;
        directory.refuse_network()?;
        Ok(directory)
    }

    /// Opens the runtime directory of `owner` to read from it.
    ///
    /// # Errors
    /// As [`Directory::open`]; a folder that is not there is [`Fault::Os`].
    pub fn open_to_read(path: &Path, owner: u32) -> Result<Self, Fault> {
        let directory = Self::open_there(Purpose::Runtime, path)?;
        directory.refuse_foreign(owner)?;
        Ok(directory)
    }

    fn open_there(purpose: Purpose, path: &Path) -> Result<Self, Fault> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
        match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(fd) => Ok(Self { purpose, path: path.to_owned(), fd }),
            Err(Errno::LOOP | Errno::NOTDIR) => {
                let why = "it is a symbolic link or no directory".to_owned();
                Err(Fault::NotOurs { purpose, path: path.to_owned(), why })
            }
            Err(error) => Err(Fault::os("open directory", path.display(), error)),
        }
    }

    fn refuse_foreign(&self, owner: u32) -> Result<(), Fault> {
        let stat = rustix::fs::fstat(&self.fd)
            .map_err(|e| Fault::os("examine", self.path.display(), e))?;
        let why = if stat.st_uid != owner {
            format!("it belongs to user {}, not to user {owner}", stat.st_uid)
        } else if stat.st_mode & 0o022 != 0 {
            format!("others can write into it (mode {:o})", stat.st_mode & 0o7777)
        } else {
            return Ok(());
        };
        Err(Fault::NotOurs { purpose: self.purpose, path: self.path.clone(), why })
    }

    fn refuse_network(&self) -> Result<(), Fault> {
        let stat = rustix::fs::fstatfs(&self.fd)
            .map_err(|e| Fault::os("examine", self.path.display(), e))?;
        // The width of the field differs between machines; the numbers have 32 bits.
        let magic = stat.f_type as u64 & 0xffff_ffff;
        match NETWORK.iter().find(|(number, _)| *number == magic) {
            Some((_, kind)) => {
                let (purpose, path) = (self.purpose, self.path.clone());
                Err(Fault::NetworkFileSystem { purpose, path, kind })
            }
            None => Ok(()),
        }
    }

    /// Whether somebody has removed it: nothing can be kept in it any more.
    pub fn is_removed(&self) -> bool {
        rustix::fs::fstat(&self.fd).is_ok_and(|stat| stat.st_nlink == 0)
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of a file in it, for messages.
    pub fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Opens a file of ours to write, and makes it with `mode` if it is not there.
    ///
    /// # Errors
    /// [`Fault::NotOurs`] for a link or another user's file, [`Fault::Os`].
    pub fn file(&self, name: &str, mode: u32) -> Result<File, Fault> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.open_file(name, flags, mode)
    }

    /// Opens a file to read; `None` when it is not there.
    ///
    /// # Errors
    /// [`Fault::NotOurs`] for a link, [`Fault::Os`].
    pub fn file_to_read(&self, name: &str) -> Result<Option<File>, Fault> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match self.open_file(name, flags, 0) {
            Err(Fault::Os { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            file => file.map(Some),
        }
    }

    fn open_file(&self, name: &str, flags: OFlags, mode: u32) -> Result<File, Fault> {
        let path = self.path_of(name);
        let fd = match rustix::fs::openat(&self.fd, name, flags, Mode::from_raw_mode(mode)) {
            Ok(fd) => fd,
            Err(Errno::LOOP) => {
                let (purpose, why) = (self.purpose, "it is a symbolic link".to_owned());
                return Err(Fault::NotOurs { purpose, path, why });
            }
            Err(error) => return Err(Fault::os("open", path.display(), error)),
        };
        let file = File::from(fd);
        let metadata = file.metadata().map_err(|e| Fault::os("examine", path.display(), e))?;
        if !metadata.is_file() || metadata.nlink() > 1 {
            let why = "it is no plain file of its own".to_owned();
            return Err(Fault::NotOurs { purpose: self.purpose, path, why });
        }
        Ok(file)
    }

    /// The inode that `name` leads to now; `None` when there is none.
    ///
    /// # Errors
    /// [`Fault::Os`].
    pub fn inode(&self, name: &str) -> Result<Option<u64>, Fault> {
        match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat.st_ino)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(Fault::os("examine", self.path_of(name).display(), error)),
        }
    }

    /// Removes a file; one that is not there is no error.
    ///
    /// # Errors
    /// [`Fault::Os`].
    pub fn remove(&self, name: &str) -> Result<(), Fault> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(Fault::os("remove", self.path_of(name).display(), error)),
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
    ) -> Result<File, Fault> {
        // What a dead writer left, or what someone planted, is not written into.
        self.remove(temporary)?;
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = self.open_file(temporary, flags, plan.mode)?;
        let path = self.path_of(temporary);
        let write = |e: io::Error| Fault::os("write", path.display(), e);
        if plan.reserve > 0 {
            keep_room(&file, 0, bytes.len() as u64 + plan.reserve).map_err(write)?;
        }
        file.write_all_at(bytes, 0).map_err(write)?;
        if plan.durable {
            file.sync_data().map_err(write)?;
        }
        rustix::fs::renameat(&self.fd, temporary, &self.fd, name)
            .map_err(|e| Fault::os("rename", path.display(), e))?;
        if plan.durable {
            rustix::fs::fsync(&self.fd).map_err(|e| Fault::os("sync", self.path.display(), e))?;
        }
        Ok(file)
    }
}

/// How a file is put in place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Replacement {
    /// Permission bits.
    pub mode: u32,
    /// Space to keep behind the content, in bytes.
    pub reserve: u64,
    /// Whether it has to survive a power cut.
    pub durable: bool,
}

/// Makes sure that `length` bytes from `offset` on can be written; on file systems that cannot
/// promise it, nothing is kept.
///
/// # Errors
/// The kernel's, most of all `ENOSPC`.
pub fn keep_room(file: &File, offset: u64, length: u64) -> io::Result<()> {
    match rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, offset, length) {
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Who holds the lock of a file, for a message.
///
/// Source: proc_locks(5): the fifth field is the process, the sixth `MAJOR:MINOR:INODE`.
pub fn holder(file: &File) -> Option<String> {
    let inode = format!(":{}", file.metadata().ok()?.ino());
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    let line = locks.lines().find(|line| {
        line.split_ascii_whitespace().nth(5).is_some_and(|place| place.ends_with(&inode))
    })?;
    line.split_ascii_whitespace().nth(4).map(str::to_owned)
}

/// Whether a folder belongs to a user, or would: one that is not there yet is made by whoever asks.
pub fn may_be_of(path: &Path, uid: u32) -> bool {
    std::fs::symlink_metadata(path).map_or(true, |metadata| metadata.uid() == uid)
}
