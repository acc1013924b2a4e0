//! Sizes of memory as people write them.

use gpu_autoscaler_model::Bytes;

use crate::lease::MemoryAsk;
use crate::quantity::{Ppm, QuantityError};

/// Units and their bytes. Source: IEC 80000-13 for the binary ones, SI for the others.
const UNITS: [(&str, u64); 13] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("B", 1),
];

/// Reads `20GiB`, `0.5 TB` or `512MiB`.
///
/// # Errors
/// [`QuantityError::Memory`] for anything else, for zero and for more than 64 bits hold.
pub fn parse(text: &str) -> Result<Bytes, QuantityError> {
    let refused = || QuantityError::Memory(text.to_owned());
    let unit = UNITS.iter().find(|(unit, _)| text.ends_with(unit)).ok_or_else(refused)?;
    let number = text[..text.len() - unit.0.len()].trim_end();
    if !number.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return Err(refused());
    }
    let value: f64 = number.parse().map_err(|_| refused())?;
    let bytes = value * unit.1 as f64;
    // Above 2^63 the conversion would saturate.
    if !(1.0..9.2e18).contains(&bytes) {
        return Err(refused());
    }
    Ok(Bytes::new(bytes as u64))
}

/// Reads a size, or a part of the GPU such as `50%` or `0.5`.
///
/// # Errors
/// [`QuantityError::Memory`] and [`QuantityError::Fraction`].
pub fn parse_ask(text: &str) -> Result<MemoryAsk, QuantityError> {
    if text.ends_with('%') || text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return Ppm::parse(text).map(MemoryAsk::Part);
    }
    parse(text).map(MemoryAsk::Size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_need_a_unit_and_a_number() {
        assert_eq!(parse("20GiB").unwrap(), Bytes::new(20 << 30));
        assert_eq!(parse("1.5 GB").unwrap(), Bytes::new(1_500_000_000));
        for bad in
            ["", "GiB", "-1GiB", "NaNGiB", "20", "1e9GiB", "99999999TiB", "0B", "20 giraffes"]
        {
            assert!(parse(bad).is_err(), "{bad} was accepted");
        }
        assert_eq!(parse_ask("50%").unwrap(), MemoryAsk::Part(Ppm::new(500_000).unwrap()));
        assert!(parse_ask("60").is_err());
    }
}
