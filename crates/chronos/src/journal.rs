//! The text form of the book: one framed event a line.
//!
//! A line is eight hexadecimal digits of CRC-32C, a space, the event as JSON, and a newline. The
//! file can be read with `cat`. A line is written by one call; when the writer dies within it, the
//! line is torn, [`read`] says where it starts, and the next writer cuts it off. A line that is
//! wrong anywhere but at the end was not torn by a crash: it is refused.

use std::fmt::Write;

use crate::book::{Book, Contradiction, Event};

/// What is wrong with a journal.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum JournalError {
    /// A line before the last is damaged.
    #[error("journal: the line at byte {offset} is damaged and others follow it")]
    Damaged {
        /// Where the line starts.
        offset: usize,
    },
    /// A whole line is no event of this version.
    #[error("journal: the line at byte {offset} is no event of format {}", Book::FORMAT)]
    Unknown {
        /// Where the line starts.
        offset: usize,
    },
    /// The events do not follow from each other.
    #[error(transparent)]
    Contradiction(#[from] Contradiction),
}

/// The lines of `events`.
pub fn lines(events: &[Event]) -> Vec<u8> {
    let mut text = String::with_capacity(events.len() * 256);
    for event in events {
        let json = serde_json::to_string(event).expect("events hold no map with other keys");
        let sum = crc32c(json.as_bytes());
        writeln!(text, "{sum:08x} {json}").expect("writing to a string does not fail");
    }
    text.into_bytes()
}

/// Applies every whole line of `bytes` to `book`; returns the length of the whole lines.
///
/// # Errors
/// [`JournalError::Damaged`] for a bad line that is not the last, [`JournalError::Unknown`] for
/// an event of another format, [`JournalError::Contradiction`] for events in an impossible order.
pub fn read(bytes: &[u8], book: &mut Book) -> Result<usize, JournalError> {
    let mut offset = 0;
    while offset < bytes.len() {
        let rest = &bytes[offset..];
        let end = rest.iter().position(|b| *b == b'\n');
        let Some(json) = end.and_then(|end| unframe(&rest[..end])) else {
            let last = end.is_none_or(|end| offset + end + 1 == bytes.len());
            return if last { Ok(offset) } else { Err(JournalError::Damaged { offset }) };
        };
        let event = serde_json::from_slice(json).map_err(|_| JournalError::Unknown { offset })?;
        book.apply(&event)?;
        offset += json.len() + FRAME;
    }
    Ok(offset)
}

/// Bytes of a line beside its JSON.
const FRAME: usize = 10;

fn unframe(line: &[u8]) -> Option<&[u8]> {
    let (sum, json) = line.split_at_checked(8)?;
    let json = json.strip_prefix(b" ")?;
    let sum = u32::from_str_radix(std::str::from_utf8(sum).ok()?, 16).ok()?;
    (sum == crc32c(json)).then_some(json)
}

/// CRC-32C (Castagnoli), reflected.
///
/// Source: RFC 3720 appendix B.4, whose test vectors are below; eight tables as in Intel's
/// "slicing-by-8" (Kounavis and Berry 2005), because a rewrite of a long queue sums megabytes.
pub fn crc32c(bytes: &[u8]) -> u32 {
    let mut sum = !0_u32;
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        let low = sum ^ u32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]);
        sum = TABLES[7][(low & 0xff) as usize]
            ^ TABLES[6][(low >> 8 & 0xff) as usize]
            ^ TABLES[5][(low >> 16 & 0xff) as usize]
            ^ TABLES[4][(low >> 24) as usize]
            ^ TABLES[3][chunk[4] as usize]
            ^ TABLES[2][chunk[5] as usize]
            ^ TABLES[1][chunk[6] as usize]
            ^ TABLES[0][chunk[7] as usize];
    }
    for byte in chunks.remainder() {
        sum = TABLES[0][((sum ^ u32::from(*byte)) & 0xff) as usize] ^ (sum >> 8);
    }
    !sum
}

static TABLES: [[u32; 256]; 8] = tables();

const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0_u32; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut sum = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            sum = if sum & 1 == 1 { (sum >> 1) ^ 0x82f6_3b78 } else { sum >> 1 };
            bit += 1;
        }
        tables[0][byte] = sum;
        byte += 1;
    }
    let mut slice = 1;
    while slice < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[slice - 1][byte];
            tables[slice][byte] = tables[0][(before & 0xff) as usize] ^ (before >> 8);
            byte += 1;
        }
        slice += 1;
    }
    tables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc_agrees_with_the_vectors_of_rfc_3720() {
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c(&(0..32).collect::<Vec<u8>>()), 0x46dd_794e);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    fn opened(serial: u64) -> Event {
        Event::Opened { boot: "b".into(), format: Book::FORMAT, serial }
    }

    #[test]
    fn every_torn_tail_is_cut_off() {
        let whole = lines(&[opened(1)]);
        let bytes = lines(&[opened(1), opened(2)]);
        for length in whole.len()..bytes.len() {
            let mut book = Book::default();
            assert_eq!(read(&bytes[..length], &mut book), Ok(whole.len()), "cut at {length}");
            assert_eq!(book.serial(), 1);
        }
        assert_eq!(read(&bytes, &mut Book::default()), Ok(bytes.len()));
    }

    #[test]
    fn damage_before_the_end_is_refused() {
        let mut bytes = lines(&[opened(1), opened(2)]);
        bytes[12] ^= 1;
        let read = read(&bytes, &mut Book::default());
        assert_eq!(read, Err(JournalError::Damaged { offset: 0 }));
    }

    #[test]
    fn a_newer_format_is_refused() {
        let newer = Event::Opened { boot: "b".into(), format: Book::FORMAT + 1, serial: 0 };
        let read = read(&lines(&[newer]), &mut Book::default());
        assert!(matches!(read, Err(JournalError::Contradiction(_))));
    }
}
