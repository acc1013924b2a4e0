//! What outlives a reboot: one line for every lease that is over, and the calendar.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::directory::{Directory, Replacement, lock, unlock};
use super::fault::Fault;
use crate::book::Epitaph;
use crate::journal::crc32c;
use crate::lease::{LeaseId, Reservation};

/// Size at which the history is put aside and a new file begun; one older file is kept.
const ROTATE: u64 = 8 << 20;

/// Bytes at the end of the history in which a lease is looked for before it is written again.
const LOOK_BACK: u64 = 64 << 10;

/// Appends the line of a lease that is over. It is on the disk when this returns; a lease that is
/// among the last lines already is not written twice.
///
/// # Errors
/// [`Fault::Os`] and [`Fault::NotOurs`].
pub fn bury(directory: &Directory, mode: u32, epitaph: &Epitaph) -> Result<(), Fault> {
    let path = directory.path_of(c"history");
    let file = directory.file(c"history", mode)?;
    lock(&file, &path)?;
    let done = append(directory, &file, epitaph, mode);
    unlock(&file);
    done.map_err(|error| Fault::os("write", path.display(), error))
}

fn append(directory: &Directory, file: &File, epitaph: &Epitaph, mode: u32) -> io::Result<()> {
    let length = file.metadata()?.len();
    let start = length.saturating_sub(LOOK_BACK);
    let mut tail = vec![0; usize::try_from(length - start).unwrap_or(0)];
    file.read_exact_at(&mut tail, start)?;
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
    file.write_all_at(line.as_bytes(), end)?;
    file.sync_data()?;
    if end + line.len() as u64 > ROTATE {
        let mut whole = Vec::new();
        (&*file).read_to_end(&mut whole)?;
        let plan = Replacement { mode, reserve: 0, durable: true };
        directory.replace(c"history.1", c"history.new", &whole, plan).map_err(io::Error::other)?;
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

/// Keeps the calendar; it is on the disk when this returns.
///
/// # Errors
/// [`Fault::Os`] and [`Fault::NotOurs`].
pub fn keep_calendar(
    directory: &Directory,
    mode: u32,
    reservations: &[Reservation],
) -> Result<(), Fault> {
    let path = directory.path_of(c"calendar");
    let json = serde_json::to_vec(reservations)
        .map_err(|e| Fault::os("write", path.display(), io::Error::other(e)))?;
    let plan = Replacement { mode, reserve: 0, durable: true };
    directory.replace(c"calendar", c"calendar.new", &json, plan).map(drop)
}

/// Reads the calendar.
///
/// # Errors
/// [`Fault::Os`] for a file that is there and cannot be read or understood.
pub fn calendar(directory: &Directory) -> Result<Vec<Reservation>, Fault> {
    let Some(mut file) = directory.file_to_read(c"calendar")? else { return Ok(Vec::new()) };
    let path = directory.path_of(c"calendar");
    let mut json = Vec::new();
    file.read_to_end(&mut json).map_err(|e| Fault::os("read", path.display(), e))?;
    serde_json::from_slice(&json)
        .map_err(|e| Fault::os("read", path.display(), io::Error::other(e)))
}
