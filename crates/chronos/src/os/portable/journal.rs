//! The files of the journal: `journal-BOOT-NUMBER`, of which the greatest number counts.
//!
//! A name that is never used again does what an open file does under Linux: a reader knows without
//! a handle whether the journal was rewritten, and a file that is open can be replaced under
//! Windows. The boot in the name voids what an earlier one left, however the power went.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};

use super::directory::{Directory, RESERVE, Replacement};
use crate::os::fault::Fault;
use crate::world::{Mark, Room, Tail};

/// The file that is given up for ending leases on a full disk.
const SPARE: &str = "spare";

/// Times that a journal is looked for again which was rewritten while it was opened.
const TRIES: usize = 100;

/// The journal of one boot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Journal {
    boot: String,
    mode: u32,
}

impl Journal {
    /// The journal of a boot, whose files get `mode`.
    pub fn of(boot: &str, mode: u32) -> Self {
        // A boot's id is printed by a kernel; nothing in it may lead out of the folder.
        let boot = boot.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        Self { boot, mode }
    }

    /// The name of its index.
    pub fn index(&self) -> String {
        format!("index-{}", self.boot)
    }

    fn name(&self, number: u64) -> String {
        format!("journal-{}-{number}", self.boot)
    }

    /// The numbers of its files.
    fn numbers(&self, directory: &Directory) -> Result<Vec<u64>, Fault> {
        let fail = |e: io::Error| Fault::os("read", directory.path().display(), e);
        let prefix = format!("journal-{}-", self.boot);
        let mut numbers = Vec::new();
        for entry in std::fs::read_dir(directory.path()).map_err(fail)? {
            let name = entry.map_err(fail)?.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix(&prefix));
            numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
        }
        Ok(numbers)
    }

    /// The number that counts; 0 when there is none yet.
    ///
    /// # Errors
    /// [`Fault::Os`].
    pub fn current(&self, directory: &Directory) -> Result<u64, Fault> {
        Ok(self.numbers(directory)?.into_iter().max().unwrap_or(0))
    }

    /// What it holds beyond a mark.
    ///
    /// # Errors
    /// [`Fault::Os`], [`Fault::NotOurs`].
    pub fn read(&self, directory: &Directory, from: Mark) -> Result<Tail, Fault> {
        for _ in 0..TRIES {
            let number = self.current(directory)?;
            if number == 0 {
                return Ok(Tail { file: 0, bytes: Vec::new() });
            }
            // Rewritten since the folder was read: the next look finds the new one.
            let Some(file) = directory.file_to_read(&self.name(number))? else { continue };
            let start = if number == from.file { from.length } else { 0 };
            let bytes = tail(file, start);
            let path = directory.path_of(&self.name(number));
            let bytes = bytes.map_err(|e| Fault::os("read", path.display(), e))?;
            return Ok(Tail { file: number, bytes });
        }
        let error = io::Error::other("it was rewritten each time it was opened");
        Err(Fault::os("read", directory.path().display(), error))
    }

    /// Cuts it to `at` and writes `bytes` behind it.
    ///
    /// # Errors
    /// [`Fault::Os`], [`Fault::NotOurs`].
    pub fn append(
        &self,
        directory: &Directory,
        at: Mark,
        bytes: &[u8],
        room: Room,
    ) -> Result<(), Fault> {
        let name = self.name(self.current(directory)?.max(1));
        let mut file = directory.file(&name, self.mode)?;
        if room == Room::Keep {
            self.keep_spare(directory)?;
        }
        let path = directory.path_of(&name);
        let fail = |e: io::Error| Fault::os("write", path.display(), e);
        match write_at(&mut file, at.length, bytes) {
            Err(error) if error.kind() == ErrorKind::StorageFull && room == Room::Use => {
                directory.remove(SPARE)?;
                write_at(&mut file, at.length, bytes).map_err(fail)
            }
            written => written.map_err(fail),
        }
    }

    /// Puts a new file in place of the old one.
    ///
    /// # Errors
    /// [`Fault::Os`], [`Fault::NotOurs`].
    pub fn replace(&self, directory: &Directory, bytes: &[u8]) -> Result<Mark, Fault> {
        let old = self.numbers(directory)?;
        let file = old.iter().max().map_or(1, |number| number + 1);
        let plan = Replacement { mode: self.mode, reserve: 0, durable: false };
        directory.replace(&self.name(file), "journal.new", bytes, plan)?;
        for number in old {
            directory.remove(&self.name(number))?;
        }
        Ok(Mark { file, length: bytes.len() as u64 })
    }

    /// Removes the files of other boots. What cannot be removed now goes the next time.
    pub fn remove_others(&self, directory: &Directory) {
        let ours = [format!("journal-{}-", self.boot), self.index()];
        for entry in std::fs::read_dir(directory.path()).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let of_a_boot = name.starts_with("journal-") || name.starts_with("index-");
            if of_a_boot && !ours.iter().any(|ours| name.starts_with(ours)) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }

    /// Sees that the space is there that ends what is granted.
    fn keep_spare(&self, directory: &Directory) -> Result<(), Fault> {
        let mut file = directory.file(SPARE, self.mode)?;
        let path = directory.path_of(SPARE);
        let fail = |e: io::Error| Fault::os("write", path.display(), e);
        if file.metadata().map_err(fail)?.len() == RESERVE {
            return Ok(());
        }
        write_at(&mut file, 0, &incompressible()).map_err(fail)
    }
}

fn tail(mut file: File, start: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(start))?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn write_at(file: &mut File, at: u64, bytes: &[u8]) -> io::Result<()> {
    if file.metadata()?.len() > at {
        file.set_len(at)?;
    }
    file.seek(SeekFrom::Start(at))?;
    file.write_all(bytes)
}

/// Bytes that a file system which compresses cannot make smaller.
///
/// Source: Marsaglia, "Xorshift RNGs", Journal of Statistical Software 8(14), 2003.
fn incompressible() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(RESERVE as usize);
    while bytes.len() < RESERVE as usize {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}

/// What changes whenever a journal in the folder does: names and lengths.
///
/// # Errors
/// The system's.
pub fn fingerprint(directory: &std::path::Path) -> io::Result<u64> {
    let mut sum = 0_u64;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.as_encoded_bytes();
        if !name.starts_with(b"journal-") {
            continue;
        }
        // Gone between the two looks: its successor counts.
        let Ok(metadata) = std::fs::metadata(entry.path()) else { continue };
        let word = u64::from(crate::journal::crc32c(name)) << 32;
        sum = sum.wrapping_add(word.wrapping_add(metadata.len()));
    }
    Ok(sum)
}
