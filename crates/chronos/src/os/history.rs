//! What outlives a reboot: one line for every lease that is over, and the calendar.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use gpu_autoscaler_model::Timestamp;

use super::directory::{Directory, Replacement};
use super::fault::{Fault, Purpose};
use super::lock::{lock, unlock};
use crate::book::Epitaph;
use crate::journal::crc32c;
use crate::lease::{LeaseId, Reservation};

/// Size at which the history is put aside and a new file begun; one older file is kept.
const ROTATE: u64 = 8 << 20;

/// Bytes at the end of the history in which a lease is looked for before it is written again.
const LOOK_BACK: u64 = 64 << 10;

/// The place of what outlives a reboot. The default is none: what is to be kept is lost, aloud.
#[derive(Debug, Default)]
pub struct Archive {
    directory: Option<Directory>,
    mode: u32,
}

impl Archive {
    /// Opens the folder, and makes it with permission bits `folder` if it is not there; files get
    /// `mode`. A machine that has no place for it leases all the same: `doctor` says what is missing.
    ///
    /// # Errors
    /// [`Fault::NotOurs`], [`Fault::NetworkFileSystem`].
    pub fn open(path: &Path, folder: u32, mode: u32) -> Result<Self, Fault> {
        let directory = match Directory::open(Purpose::State, path, folder) {
            Err(Fault::Os { .. }) => None,
            directory => Some(directory?),
        };
        Ok(Self { directory, mode })
    }

    /// Writes the line of a lease that is over. A line that cannot be kept is named and given up:
    /// an account is worth less than a GPU.
    pub fn bury(&self, epitaph: &Epitaph) {
        let Some(directory) = &self.directory else { return };
        if let Err(fault) = bury(directory, self.mode, epitaph) {
            eprintln!("chronos: partition `{}` has no line in the history: {fault}", epitaph.id);
        }
    }

    /// Keeps everybody from writing until it is dropped; `None` where nobody can write.
    ///
    /// # Errors
    /// [`Fault::LockBusy`], [`Fault::NotOurs`].
    pub fn hold(&self) -> Result<Option<Held>, Fault> {
        let Some(directory) = &self.directory else { return Ok(None) };
        match hold(directory, self.mode) {
            Err(Fault::Os { .. }) => Ok(None),
            held => held.map(Some),
        }
    }

    /// What leases that are over have used: user, GPU-seconds, and the date at which each ended.
    ///
    /// # Errors
    /// [`Fault::Os`] for a history that is there and cannot be read.
    pub fn used(&self) -> Result<Vec<(u32, f64, Timestamp)>, Fault> {
        let Some(directory) = &self.directory else { return Ok(Vec::new()) };
        // Damaged lines are somebody's usage that is forgotten: no reason to grant nothing.
        let (lines, _) = read(directory.path())?;
        Ok(lines.into_iter().map(|line| (line.uid, line.gpu_secs, line.ended)).collect())
    }

    /// The calendar as it was kept.
    ///
    /// # Errors
    /// [`Fault::Os`] for one that is there and cannot be read or understood.
    pub fn calendar(&self) -> Result<Vec<Reservation>, Fault> {
        self.directory.as_ref().map_or_else(|| Ok(Vec::new()), calendar)
    }

    /// Keeps the calendar; it is on the disk when this returns.
    ///
    /// # Errors
    /// [`Fault::Setting`] without a place for it, [`Fault::Os`], [`Fault::NotOurs`].
    pub fn keep_calendar(&self, reservations: &[Reservation]) -> Result<(), Fault> {
        let Some(directory) = &self.directory else {
            let why = "the calendar cannot be kept without a state directory".to_owned();
            return Err(Fault::Setting { origin: "state directory".to_owned(), why });
        };
        keep_calendar(directory, self.mode, reservations)
    }
}

/// The lock of the history, which ends with this.
#[derive(Debug)]
pub struct Held(File);

impl Drop for Held {
    fn drop(&mut self) {
        unlock(&self.0);
    }
}

fn hold(directory: &Directory, mode: u32) -> Result<Held, Fault> {
    // Not the file itself: where locks are mandatory it could not be read meanwhile.
    let file = directory.file("history.lock", mode)?;
    lock(&file, &directory.path_of("history.lock"))?;
    Ok(Held(file))
}

/// Appends the line of a lease that is over. It is on the disk when this returns; a lease that is
/// among the last lines already is not written twice.
fn bury(directory: &Directory, mode: u32, epitaph: &Epitaph) -> Result<(), Fault> {
    let _held = hold(directory, mode)?;
    let path = directory.path_of("history");
    let file = directory.file("history", mode)?;
    append(directory, &file, epitaph, mode).map_err(|e| Fault::os("write", path.display(), e))
}

fn append(directory: &Directory, file: &File, epitaph: &Epitaph, mode: u32) -> io::Result<()> {
    let length = file.metadata()?.len();
    let start = length.saturating_sub(LOOK_BACK);
    let mut tail = vec![0; usize::try_from(length - start).unwrap_or(0)];
    let mut place = file;
    place.seek(SeekFrom::Start(start))?;
    place.read_exact(&mut tail)?;
    let whole = tail.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
    let needle = format!("\"id\":\"{}\"", epitaph.id);
    if String::from_utf8_lossy(&tail[..whole]).contains(&needle) {
        return Ok(());
    }
    // A line that a dead writer tore is cut off.
    let end = if length == 0 { 0 } else { start + whole as u64 };
    let json = serde_json::to_string(epitaph).map_err(io::Error::other)?;
    let line = format!("{:08x} {json}\n", crc32c(json.as_bytes()));
    file.set_len(end)?;
    place.seek(SeekFrom::Start(end))?;
    place.write_all(line.as_bytes())?;
    file.sync_data()?;
    if end + line.len() as u64 > ROTATE {
        let mut whole = Vec::new();
        place.rewind()?;
        place.read_to_end(&mut whole)?;
        let plan = Replacement { mode, reserve: 0, durable: true };
        directory.replace("history.1", "history.new", &whole, plan).map_err(io::Error::other)?;
        file.set_len(0)?;
    }
    Ok(())
}

/// The lines of the history, oldest first; damaged lines are counted, not guessed at.
///
/// # Errors
/// [`Fault::Os`] for a file that is there and cannot be read.
pub fn read(directory: &Path) -> Result<(Vec<Epitaph>, usize), Fault> {
    let mut seen: BTreeSet<LeaseId> = BTreeSet::new();
    let (mut lines, mut damaged) = (Vec::new(), 0);
    for name in ["history.1", "history"] {
        let path = directory.join(name);
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            text => text.map_err(|e| Fault::os("read", path.display(), e))?,
        };
        for line in text.lines() {
            match parse(line) {
                Some(epitaph) if seen.insert(epitaph.id.clone()) => lines.push(epitaph),
                Some(_) => {}
                None => damaged += 1,
            }
        }
    }
    Ok((lines, damaged))
}

fn parse(line: &str) -> Option<Epitaph> {
    let (sum, json) = line.split_once(' ')?;
    let sum = u32::from_str_radix(sum, 16).ok()?;
    (crc32c(json.as_bytes()) == sum).then(|| serde_json::from_str(json).ok())?
}

fn keep_calendar(
    directory: &Directory,
    mode: u32,
    reservations: &[Reservation],
) -> Result<(), Fault> {
    let path = directory.path_of("calendar");
    let json = serde_json::to_vec(reservations)
        .map_err(|e| Fault::os("write", path.display(), io::Error::other(e)))?;
    let plan = Replacement { mode, reserve: 0, durable: true };
    directory.replace("calendar", "calendar.new", &json, plan).map(drop)
}

fn calendar(directory: &Directory) -> Result<Vec<Reservation>, Fault> {
    let Some(mut file) = directory.file_to_read("calendar")? else { return Ok(Vec::new()) };
    let path = directory.path_of("calendar");
    let mut json = Vec::new();
    file.read_to_end(&mut json).map_err(|e| Fault::os("read", path.display(), e))?;
    serde_json::from_slice(&json)
        .map_err(|e| Fault::os("read", path.display(), io::Error::other(e)))
}
