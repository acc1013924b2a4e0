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

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Objects of a cluster.
    Dump,
    /// Exposition text of an exporter.
    Metrics,
    /// An answer of Prometheus.
    Answer,
}

/// Tells by its beginning what a text holds; what is neither metrics nor an answer is taken for a
/// dump, whose reader says best what is wrong with it.
pub fn kind_of(text: &[u8]) -> Kind {
    let mut lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let Some(first) = lines.find(|line| !line.is_empty()) else { return Kind::Dump };
    if first.starts_with(b"{") {
        let head = &text[..text.len().min(256)];
        let head: String =
            String::from_utf8_lossy(head).chars().filter(|c| !c.is_whitespace()).collect();
        let answer =
            head.starts_with(r#"{"status":"success""#) || head.contains(r#""resultType":"#);
        return if answer { Kind::Answer } else { Kind::Dump };
    }
    if first.starts_with(b"# HELP") || first.starts_with(b"# TYPE") || is_series(first) {
        return Kind::Metrics;
    }
    Kind::Dump
}

/// Whether a line is a name, labels in braces or none, and a number.
fn is_series(line: &[u8]) -> bool {
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"_:".contains(byte);
    let end = line.iter().position(|byte| !is_name(byte)).unwrap_or(line.len());
    match line.get(end) {
        Some(b'{') => end > 0,
        Some(byte) if byte.is_ascii_whitespace() => {
            let rest = String::from_utf8_lossy(&line[end..]);
            let value = rest.split_whitespace().next().unwrap_or_default();
            end > 0 && value.parse::<f64>().is_ok()
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_apart_by_their_beginning() {
        let kinds = [
            ("# HELP DCGM_FI_DEV_GPU_UTIL GPU utilization", Kind::Metrics),
            ("\nDCGM_FI_DEV_GPU_UTIL{gpu=\"0\"} 5", Kind::Metrics),
            ("up 1", Kind::Metrics),
            ("apiVersion: v1\nitems: []", Kind::Dump),
            ("---\nkind: Pod", Kind::Dump),
            ("{\"kind\": \"List\"}", Kind::Dump),
            ("{ \"status\": \"success\", \"data\": {}}", Kind::Answer),
            ("just words", Kind::Dump),
            ("", Kind::Dump),
        ];
        for (text, kind) in kinds {
            assert_eq!(kind_of(text.as_bytes()), kind, "{text}");
        }
    }
}
