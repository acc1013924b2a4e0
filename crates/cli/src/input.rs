//! Files and standard input, bounded.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, Result, bail};

/// Largest text that is read whole: 256 MiB.
const BYTES_MAX: u64 = 256 << 20;

/// How a file is called in messages.
pub fn shown(file: &Path) -> String {
    if file == Path::new("-") { "standard input".into() } else { format!("`{}`", file.display()) }
}

/// Opens a file; `-` is standard input.
pub fn open(file: &Path) -> Result<Box<dyn Read>> {
    if file == Path::new("-") {
        return Ok(Box::new(io::stdin().lock()));
    }
    let opened = File::open(file).with_context(|| format!("open {}", shown(file)))?;
    Ok(Box::new(opened))
}

/// Reads a file whole.
pub fn read_bytes(file: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = open(file)?.take(BYTES_MAX + 1).read_to_end(&mut bytes);
    read.with_context(|| format!("read {}", shown(file)))?;
    if bytes.len() as u64 > BYTES_MAX {
        bail!("{} is larger than {BYTES_MAX} bytes", shown(file));
    }
    Ok(bytes)
}

/// Reads a file whole, as text.
pub fn read_utf8(file: &Path) -> Result<String> {
    String::from_utf8(read_bytes(file)?).with_context(|| format!("read {}", shown(file)))
}
