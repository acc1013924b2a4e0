//! Kubernetes quantities: `500m`, `1.5Gi`, `2e3`.

use std::fmt;
use std::str::FromStr;

use gpu_autoscaler_model::{Bytes, MilliCpu};
use serde::de::{self, Deserialize, Deserializer, Visitor};

/// Nano-units in one unit.
const NANO: i128 = 1_000_000_000;

/// Longest text that is read. The API server writes canonical forms below 40 characters.
const TEXT_MAX: usize = 128;

/// An exact amount in nano-units, which is the finest that Kubernetes keeps.
///
/// Digits beyond a nano-unit round away from zero, as the API server does, so that a request
/// never becomes nothing.
///
/// Source: `k8s.io/apimachinery/pkg/api/resource`, 0.36.2. Two differences: text without a digit
/// (`.`, `e3`), which that parser takes for zero, is refused, and so is what 128 bits of
/// nano-units do not hold, over which that parser spends minutes (`1e2147483647`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quantity(i128);

impl Quantity {
    /// In nano-units, exactly.
    pub const fn as_nanos(self) -> i128 {
        self.0
    }

    /// As processor time, rounded up to a thousandth of a core; `None` when negative or beyond
    /// 64 bits.
    pub fn as_milli_cpu(self) -> Option<MilliCpu> {
        self.ceil(NANO / 1000).map(MilliCpu::new)
    }

    /// As memory, rounded up to a byte; `None` when negative or beyond 64 bits.
    pub fn as_bytes(self) -> Option<Bytes> {
        self.ceil(NANO).map(Bytes::new)
    }

    /// As a count; `None` when negative, fractional or beyond 64 bits.
    pub fn as_count(self) -> Option<u64> {
        if self.0 % NANO != 0 {
            return None;
        }
        u64::try_from(self.0 / NANO).ok()
    }

    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// The sum; `None` beyond 128 bits.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    fn ceil(self, unit: i128) -> Option<u64> {
        let floor = self.0.div_euclid(unit);
        let up = i128::from(self.0.rem_euclid(unit) != 0);
        if self.0 < 0 { None } else { u64::try_from(floor + up).ok() }
    }
}

/// Text that is no quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseQuantityError {
    /// Not a number with one of the suffixes.
    #[error("`{text}` is no quantity such as `500m`, `1.5Gi` or `2e3`")]
    Form {
        /// What was read, at most 64 characters of it.
        text: String,
    },
    /// A number beyond what 128 bits of nano-units hold.
    #[error("`{text}` is beyond 1.7e29")]
    Range {
        /// What was read, at most 64 characters of it.
        text: String,
    },
}

impl FromStr for Quantity {
    type Err = ParseQuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let clip = || text.chars().take(64).collect();
        let form = || ParseQuantityError::Form { text: clip() };
        if text.len() > TEXT_MAX {
            return Err(form());
        }
        let (negative, unsigned) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let number_len = unsigned
            .bytes()
            .position(|b| !b.is_ascii_digit() && b != b'.')
            .unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(number_len);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.len() + fraction.len() == 0 || fraction.contains('.') {
            return Err(form());
        }
        let scale = Scale::parse(suffix).ok_or_else(form)?;
        let nanos = scale
            .nanos(whole, fraction)
            .ok_or_else(|| ParseQuantityError::Range { text: clip() })?;
        Ok(Self(if negative { -nanos } else { nanos }))
    }
}

/// What a suffix multiplies by.
#[derive(Clone, Copy)]
enum Scale {
    Decimal { exponent: i64 },
    Binary { shift: u32 },
}

impl Scale {
    fn parse(suffix: &str) -> Option<Self> {
        let decimal = |exponent| Some(Self::Decimal { exponent });
        let binary = |shift| Some(Self::Binary { shift });
        match suffix {
            "n" => decimal(-9),
            "u" => decimal(-6),
            "m" => decimal(-3),
            "" => decimal(0),
            "k" => decimal(3),
            "M" => decimal(6),
            "G" => decimal(9),
            "T" => decimal(12),
            "P" => decimal(15),
            "E" => decimal(18),
            "Ki" => binary(10),
            "Mi" => binary(20),
            "Gi" => binary(30),
            "Ti" => binary(40),
            "Pi" => binary(50),
            "Ei" => binary(60),
            _ => {
                let exponent = suffix.strip_prefix(['e', 'E'])?;
                let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
                if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
                    return None;
                }
                decimal(exponent.parse().ok()?)
            }
        }
    }

    /// `whole.fraction` times this scale; `None` beyond 128 bits.
    fn nanos(self, whole: &str, fraction: &str) -> Option<i128> {
        let (exponent, multiplier) = match self {
            Self::Decimal { exponent } => (exponent, 1),
            Self::Binary { shift } => (0, 1i128 << shift),
        };
        let fraction = fraction.trim_end_matches('0');
        let digits: String = [whole, fraction].concat();
        let digits = digits.trim_start_matches('0');
        if digits.is_empty() {
            return Some(0);
        }
        // digits x multiplier x 10^power nano-units; both lengths are at most TEXT_MAX.
        let power = exponent.saturating_add(9).saturating_sub(fraction.len() as i64);
        if digits.len() <= 38 {
            return scaled(digits.parse::<i128>().ok()?.checked_mul(multiplier)?, power);
        }
        // More digits than 128 bits hold: what lies below a nano-unit is cut off and rounded.
        let cut = digits.len() - 38;
        let nonzero = digits[38..].bytes().any(|b| b != b'0');
        let head = digits[..38].parse::<i128>().ok()?;
        let power = power.saturating_add(cut as i64);
        let exact = scaled(head.checked_mul(multiplier)?, power)?;
        if power >= 0 && nonzero {
            return None;
        }
        // The head may have been exact where the tail still rounds up.
        Some(if nonzero && is_exact(head.checked_mul(multiplier)?, power) {
            exact + 1
        } else {
            exact
        })
    }
}

/// `value` x 10^`power`, rounded away from zero.
fn scaled(value: i128, power: i64) -> Option<i128> {
    match u32::try_from(power) {
        Ok(up) => value.checked_mul(10i128.checked_pow(up)?),
        Err(_) => {
            let down = u32::try_from(power.unsigned_abs()).unwrap_or(u32::MAX);
            // A divisor beyond 128 bits leaves less than one nano-unit, which rounds to one.
            let Some(divisor) = 10i128.checked_pow(down) else { return Some(1) };
            Some(value / divisor + i128::from(value % divisor != 0))
        }
    }
}

/// Whether `value` x 10^`power` has no remainder.
fn is_exact(value: i128, power: i64) -> bool {
    let down = u32::try_from(power.unsigned_abs()).unwrap_or(u32::MAX);
    power >= 0 || 10i128.checked_pow(down).is_some_and(|divisor| value % divisor == 0)
}

/// A quantity as it stands in an object, not read yet: text, or a bare number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct QuantityText(pub(crate) String);

impl<'de> Deserialize<'de> for QuantityText {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = QuantityText;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a quantity such as `500m` or `1.5Gi`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<QuantityText, E> {
                Ok(QuantityText(text.to_owned()))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<QuantityText, E> {
                Ok(QuantityText(number.to_string()))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<QuantityText, E> {
                Ok(QuantityText(number.to_string()))
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<QuantityText, E> {
                // `Display` of a float is the shortest decimal that reads back the same.
                Ok(QuantityText(number.to_string()))
            }
        }
        from.deserialize_any(Text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What `resource.ParseQuantity` of `k8s.io/apimachinery` 0.36.2 printed for each text, in
    /// nano-units.
    const GOLDEN: &[(&str, Option<i128>)] = &[
        ("0", Some(0)),
        ("1", Some(1000000000)),
        ("-1", Some(-1000000000)),
        ("+1", Some(1000000000)),
        ("1.", Some(1000000000)),
        (".5", Some(500000000)),
        ("-.5", Some(-500000000)),
        ("00012", Some(12000000000)),
        ("0.1", Some(100000000)),
        ("1n", Some(1)),
        ("1u", Some(1000)),
        ("1m", Some(1000000)),
        ("0.5m", Some(500000)),
        ("0.1n", Some(1)),
        ("-0.1n", Some(-1)),
        ("0.0000000001", Some(1)),
        ("1500m", Some(1500000000)),
        ("1k", Some(1000000000000)),
        ("1K", None),
        ("1M", Some(1000000000000000)),
        ("1G", Some(1000000000000000000)),
        ("1T", Some(1000000000000000000000)),
        ("1P", Some(1000000000000000000000000)),
        ("1E", Some(1000000000000000000000000000)),
        ("10E", Some(10000000000000000000000000000)),
        ("-10E", Some(-10000000000000000000000000000)),
        ("1Ki", Some(1024000000000)),
        ("1Mi", Some(1048576000000000)),
        ("1Gi", Some(1073741824000000000)),
        ("1Ti", Some(1099511627776000000000)),
        ("1Pi", Some(1125899906842624000000000)),
        ("1Ei", Some(1152921504606846976000000000)),
        ("7Ei", Some(8070450532247928832000000000)),
        ("1ki", None),
        ("1.5Gi", Some(1610612736000000000)),
        ("0.1Ki", Some(102400000000)),
        ("0.001Ki", Some(1024000000)),
        ("1e3", Some(1000000000000)),
        ("1E3", Some(1000000000000)),
        ("1e+3", Some(1000000000000)),
        ("1e-3", Some(1000000)),
        ("1E-9", Some(1)),
        ("1e-10", Some(1)),
        ("1e-99", Some(1)),
        ("1e", None),
        ("1e+", None),
        ("1EE", None),
        ("1e1.5", None),
        ("", None),
        ("1 ", None),
        (" 1", None),
        ("1mm", None),
        ("1im", None),
        ("1iK", None),
        ("0x10", None),
        ("1_000", None),
        ("Infinity", None),
        ("NaN", None),
        ("\u{661}", None),
        ("9223372036854775807", Some(9223372036854775807000000000)),
        ("-9223372036854775809", Some(-9223372036854775809000000000)),
        ("123456789012345678901234567890", Some(123456789012345678901234567890000000000)),
        ("0.123456789", Some(123456789)),
        ("0.1234567891", Some(123456790)),
        ("100u", Some(100000)),
        ("3.14159265358979Mi", Some(3294198658330568)),
    ];

    #[test]
    fn agrees_with_the_parser_of_the_api_server() {
        for (text, nanos) in GOLDEN {
            assert_eq!(text.parse::<Quantity>().ok().map(Quantity::as_nanos), *nanos, "{text:?}");
        }
    }

    #[test]
    fn text_without_a_digit_and_numbers_beyond_128_bits_are_refused() {
        for text in [".", "-", "+", "e3", "Ki", "--1", "1.2.3", "1-", "12Mi5"] {
            assert!(matches!(text.parse::<Quantity>(), Err(ParseQuantityError::Form { .. })));
        }
        for text in ["1e99", "1e2147483647", "-1e99", "1000000000000Ei"] {
            let error = text.parse::<Quantity>().expect_err(text);
            assert!(matches!(error, ParseQuantityError::Range { .. }), "{text}: {error}");
        }
        assert!("9".repeat(129).parse::<Quantity>().is_err());
        assert_eq!("0e2147483647".parse::<Quantity>(), Ok(Quantity(0)));
    }

    #[test]
    fn forty_digits_are_rounded_not_refused() {
        let text = format!("0.{}1", "0".repeat(60));
        assert_eq!(text.parse::<Quantity>(), Ok(Quantity(1)));
        let text = format!("1.{}1", "0".repeat(60));
        assert_eq!(text.parse::<Quantity>(), Ok(Quantity(1_000_000_001)));
    }

    #[test]
    fn a_unit_rounds_up_and_a_count_does_not_round() {
        let read = |text: &str| text.parse::<Quantity>().expect(text);
        assert_eq!(read("1u").as_milli_cpu(), Some(MilliCpu::new(1)));
        assert_eq!(read("1100m").as_bytes(), Some(Bytes::new(2)));
        assert_eq!(read("-1").as_bytes(), None);
        assert_eq!(read("1500m").as_count(), None);
        assert_eq!(read("2e3").as_count(), Some(2000));
    }

    proptest! {
        #[test]
        fn nano_units_round_trip(nanos in -10i128.pow(36)..10i128.pow(36)) {
            prop_assert_eq!(format!("{nanos}n").parse::<Quantity>(), Ok(Quantity(nanos)));
        }

        #[test]
        fn no_text_makes_it_panic(text in "[-+.0-9eEinumkKMGTP]{0,140}") {
            let _ = text.parse::<Quantity>();
        }
    }
}
