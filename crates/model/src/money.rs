//! Money and rates as integers.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Nano-units in one unit of a currency.
const NANOS: i128 = 1_000_000_000;

/// Milliseconds in an hour.
const HOUR_MILLIS: i128 = 3_600_000;

/// An ISO 4217 code.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Currency([u8; 3]);

impl Currency {
    /// United States dollar.
    pub const USD: Self = Self(*b"USD");

    /// The three letters.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("the constructor takes ASCII letters only")
    }
}

impl FromStr for Currency {
    type Err = ParseMoneyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.as_bytes() {
            &[a, b, c] if [a, b, c].iter().all(u8::is_ascii_uppercase) => Ok(Self([a, b, c])),
            _ => Err(ParseMoneyError::Currency { text: clip(text) }),
        }
    }
}

impl TryFrom<String> for Currency {
    type Error = ParseMoneyError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Currency> for String {
    fn from(currency: Currency) -> Self {
        currency.as_str().to_owned()
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Text that is no amount of money.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParseMoneyError {
    /// Not three capital letters.
    Currency {
        /// What was read.
        text: String,
    },
    /// Not a decimal number.
    Amount {
        /// What was read.
        text: String,
    },
    /// Finer than a nano-unit, or beyond what 128 bits hold.
    Precision {
        /// What was read.
        text: String,
    },
}

impl fmt::Display for ParseMoneyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Currency { text } => {
                write!(f, "`{text}` is no ISO 4217 currency code such as `USD`")
            }
            Self::Amount { text } => write!(f, "`{text}` is no decimal amount such as `3.0625`"),
            Self::Precision { text } => {
                write!(f, "`{text}` does not fit in nano-units: at most 9 decimals and 28 digits")
            }
        }
    }
}

impl std::error::Error for ParseMoneyError {}

fn clip(text: &str) -> String {
    text.chars().take(64).collect()
}

/// Reads a plain decimal number as nano-units.
fn parse_nanos(text: &str) -> Result<i128, ParseMoneyError> {
    let amount = || ParseMoneyError::Amount { text: clip(text) };
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() || ![whole, fraction].iter().all(|s| s.bytes().all(|b| b.is_ascii_digit()))
    {
        return Err(amount());
    }
    let fraction = fraction.trim_end_matches('0');
    if fraction.len() > 9 || whole.len() > 19 {
        return Err(ParseMoneyError::Precision { text: clip(text) });
    }
    let whole: i128 = whole.parse().map_err(|_| amount())?;
    let fraction: i128 = format!("{fraction:0<9}").parse().map_err(|_| amount())?;
    let nanos = whole * NANOS + fraction;
    Ok(if negative { -nanos } else { nanos })
}

fn write_nanos(
    f: &mut fmt::Formatter<'_>,
    symbol: &str,
    nanos: i128,
    decimals: usize,
) -> fmt::Result {
    let unit = 10i128.pow(9 - u32::try_from(decimals).unwrap_or(9).min(9));
    let rounded = round_div(nanos, unit);
    let sign = if rounded < 0 { "-" } else { "" };
    let (scale, rounded) = (NANOS / unit, rounded.unsigned_abs());
    let scale = scale.unsigned_abs();
    if decimals == 0 {
        write!(f, "{sign}{symbol}{rounded}")
    } else {
        write!(f, "{sign}{symbol}{}.{:0>decimals$}", rounded / scale, rounded % scale)
    }
}

/// Quotient rounded to the nearest integer, halves away from zero.
fn round_div(value: i128, by: i128) -> i128 {
    let half = by / 2;
    if value >= 0 { (value + half) / by } else { (value - half) / by }
}

/// An amount of one currency, in nano-units (a billionth of the unit).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "MoneyText", into = "MoneyText")]
pub struct Money {
    nanos: i128,
    currency: Currency,
}

/// How an amount stands in JSON: a decimal as text, because a JSON number is a float to most
/// readers.
#[derive(Serialize, Deserialize)]
struct MoneyText {
    amount: String,
    currency: Currency,
}

impl TryFrom<MoneyText> for Money {
    type Error = ParseMoneyError;

    fn try_from(text: MoneyText) -> Result<Self, Self::Error> {
        Ok(Self { nanos: parse_nanos(&text.amount)?, currency: text.currency })
    }
}

impl From<Money> for MoneyText {
    fn from(money: Money) -> Self {
        Self { amount: money.exact(), currency: money.currency }
    }
}

/// Prints nano-units without loss and without trailing zeros.
struct Exact(i128);

impl fmt::Display for Exact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut decimals = 9;
        let mut rest = self.0;
        while decimals > 0 && rest % 10 == 0 {
            rest /= 10;
            decimals -= 1;
        }
        write_nanos(f, "", self.0, decimals)
    }
}

impl Money {
    /// Nothing, in `currency`.
    pub const fn zero(currency: Currency) -> Self {
        Self { nanos: 0, currency }
    }

    /// From nano-units.
    pub const fn from_nanos(nanos: i128, currency: Currency) -> Self {
        Self { nanos, currency }
    }

    /// In nano-units.
    pub const fn as_nanos(self) -> i128 {
        self.nanos
    }

    /// The amount as a decimal, without loss, without trailing zeros and without the currency.
    pub fn exact(self) -> String {
        Exact(self.nanos).to_string()
    }

    /// The currency.
    pub const fn currency(self) -> Currency {
        self.currency
    }

    /// The sum; `None` when the currencies differ or the sum does not fit.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        if self.currency != other.currency {
            return None;
        }
        self.nanos.checked_add(other.nanos).map(|nanos| Self { nanos, ..self })
    }

    /// The difference; `None` when the currencies differ or it does not fit.
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        if self.currency != other.currency {
            return None;
        }
        self.nanos.checked_sub(other.nanos).map(|nanos| Self { nanos, ..self })
    }
}

impl fmt::Display for Money {
    /// Two decimals for a person to read; `{:.N}` gives `N`. JSON carries the exact amount.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let symbol = if self.currency == Currency::USD { "$" } else { "" };
        write_nanos(f, symbol, self.nanos, f.precision().unwrap_or(2))?;
        if self.currency != Currency::USD {
            write!(f, " {}", self.currency)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", Exact(self.nanos), self.currency)
    }
}

/// Money per hour, in nano-units per hour.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Rate(Money);

impl Rate {
    /// From money per hour.
    pub const fn per_hour(money: Money) -> Self {
        Self(money)
    }

    /// From text such as `32.7726` and a currency.
    ///
    /// # Errors
    /// [`ParseMoneyError::Amount`] when `text` is no decimal number,
    /// [`ParseMoneyError::Precision`] when it has more than 9 decimals.
    pub fn parse(text: &str, currency: Currency) -> Result<Self, ParseMoneyError> {
        Ok(Self(Money { nanos: parse_nanos(text)?, currency }))
    }

    /// What one hour costs.
    pub const fn hourly(self) -> Money {
        self.0
    }

    /// What a month of 720 hours costs: published `*_monthly_*` figures are hourly x 720.
    ///
    /// `None` when it does not fit.
    pub fn monthly(self) -> Option<Money> {
        self.0.nanos.checked_mul(720).map(|nanos| Money { nanos, ..self.0 })
    }

    /// What twelve such months cost.
    ///
    /// `None` when it does not fit.
    pub fn yearly(self) -> Option<Money> {
        self.0.nanos.checked_mul(720 * 12).map(|nanos| Money { nanos, ..self.0 })
    }

    /// The sum of those that are known; `None` for nothing, and where currencies differ.
    pub fn sum_of_known<'r>(mut rates: impl Iterator<Item = &'r Self>) -> Option<Self> {
        let first = *rates.next()?;
        rates.try_fold(first, |sum, rate| sum.checked_add(*rate))
    }

    /// The difference of two rates; `None` when the currencies differ or it does not fit.
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }

    /// What `millis` milliseconds cost, rounded to the nearest nano-unit.
    ///
    /// Rounds once per call: sum the milliseconds first. `None` when it does not fit.
    pub fn over(self, millis: u64) -> Option<Money> {
        let product = self.0.nanos.checked_mul(i128::from(millis))?;
        Some(Money { nanos: round_div(product, HOUR_MILLIS), ..self.0 })
    }

    /// `numerator / denominator` of this rate, rounded to the nearest nano-unit.
    ///
    /// For estimates only: shares of a charge that must add up are split by the ledger.
    /// `None` when `denominator` is zero or the product does not fit.
    pub fn share(self, numerator: u64, denominator: u64) -> Option<Self> {
        if denominator == 0 {
            return None;
        }
        let product = self.0.nanos.checked_mul(i128::from(numerator))?;
        Some(Self(Money { nanos: round_div(product, i128::from(denominator)), ..self.0 }))
    }

    /// The sum of two rates; `None` when the currencies differ or it does not fit.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)?;
        f.write_str("/h")
    }
}

impl fmt::Debug for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}/h", self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn usd(text: &str) -> Money {
        Rate::parse(text, Currency::USD).expect("valid").hourly()
    }

    #[test]
    fn prices_are_read_exactly() {
        assert_eq!(usd("32.7726").as_nanos(), 32_772_600_000);
        assert_eq!(usd("0.000000001").as_nanos(), 1);
        assert_eq!(usd("-1.5").as_nanos(), -1_500_000_000);
        for bad in ["", ".5", "1e3", "NaN", "1,5", "+1", "--1", "0.0000000001"] {
            assert!(Rate::parse(bad, Currency::USD).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_charge_is_rate_times_milliseconds_rounded_once() {
        let rate = Rate::per_hour(usd("1"));
        assert_eq!(rate.over(3_600_000), Some(usd("1")));
        assert_eq!(rate.over(1).map(Money::as_nanos), Some(278), "277.8 nano-dollars");
    }

    #[test]
    fn display_rounds_and_debug_does_not() {
        let money = usd("2.995");
        assert_eq!(money.to_string(), "$3.00");
        assert_eq!(format!("{money:.4}"), "$2.9950");
        assert_eq!(format!("{money:?}"), "2.995 USD");
        assert_eq!(usd("-0.004").to_string(), "$0.00");
        assert_eq!(usd("-1.5").to_string(), "-$1.50");
        let euro: Currency = "EUR".parse().expect("valid");
        assert_eq!(Money::from_nanos(1_250_000_000, euro).to_string(), "1.25 EUR");
    }

    #[test]
    fn different_currencies_do_not_add() {
        let euro = Money::zero("EUR".parse().expect("valid"));
        assert_eq!(usd("1").checked_add(euro), None);
    }

    proptest! {
        #[test]
        fn exact_text_round_trips(nanos in -10i128.pow(27)..10i128.pow(27)) {
            prop_assert_eq!(parse_nanos(&Exact(nanos).to_string()), Ok(nanos));
        }
    }
}
