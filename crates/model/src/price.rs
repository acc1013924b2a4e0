//! Prices of instance types.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::price_table::{LISTED, ListedPrice};
use crate::{Currency, InstanceType, ParseMoneyError, Rate};

/// How capacity is bought. The order is that of preference at equal price.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[doc(alias = "karpenter.sh/capacity-type")]
pub enum CapacityType {
    /// Paid for already.
    Reserved,
    /// May be taken back at any time.
    Spot,
    /// At list price, kept as long as wanted.
    OnDemand,
}

impl CapacityType {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Reserved, Self::Spot, Self::OnDemand];

    /// As Karpenter spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reserved => "reserved",
            Self::Spot => "spot",
            Self::OnDemand => "on-demand",
        }
    }
}

impl fmt::Display for CapacityType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for CapacityType {
    type Err = ();

    /// Takes Karpenter's, EKS' and Azure's spellings, in any case.
    fn from_str(text: &str) -> Result<Self, ()> {
        match text.to_ascii_lowercase().replace('_', "-").as_str() {
            "spot" | "preemptible" => Ok(Self::Spot),
            "on-demand" | "ondemand" | "regular" | "standard" => Ok(Self::OnDemand),
            "reserved" | "capacity-block" => Ok(Self::Reserved),
            _ => Err(()),
        }
    }
}

/// A price, and where it is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Price {
    /// Per instance.
    pub rate: Rate,
    /// Whose figure it is.
    pub source: PriceSource,
}

/// Whose figure a price is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PriceSource {
    /// The sheet that the administrator gave.
    Sheet,
    /// The list price compiled in.
    Listed {
        /// The day on which the list was read, `YYYY-MM-DD`.
        day: &'static str,
    },
}

/// What an instance costs: the administrator's sheet first, then the list prices compiled in.
///
/// Nothing is guessed: no price of another region, of another capacity type, or of a similar
/// instance type stands in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PriceBook {
    sheet: BTreeMap<SheetKey, Rate>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct SheetKey {
    instance_type: Arc<str>,
    /// `None` is every region.
    region: Option<Arc<str>>,
    capacity_type: CapacityType,
}

impl PriceBook {
    /// Only what is compiled in.
    pub fn listed() -> Self {
        Self::default()
    }

    /// With a custom sheet over it, in CSV with the header
    /// `instance_type,region,capacity_type,price_per_hour,currency`; region may be empty for all.
    ///
    /// # Errors
    /// [`PriceSheetError`] with the number of the first line that cannot be read. A sheet counts
    /// whole or not at all.
    pub fn with_sheet(text: &str) -> Result<Self, PriceSheetError> {
        let mut lines = text
            .lines()
            .enumerate()
            .map(|(at, line)| (at + 1, line.trim().trim_start_matches('\u{feff}')))
            .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        match lines.next() {
            Some((_, HEADER)) => {}
            Some((line, found)) => {
                return Err(PriceSheetError {
                    line,
                    what: SheetFault::Header { found: found.chars().take(80).collect() },
                });
            }
            None => return Err(PriceSheetError { line: 1, what: SheetFault::Empty }),
        }
        let mut sheet = BTreeMap::new();
        for (line, text) in lines {
            let fault = |what| PriceSheetError { line, what };
            let (key, rate) = sheet_line(text).map_err(fault)?;
            if sheet.insert(key, rate).is_some() {
                return Err(fault(SheetFault::Twice));
            }
        }
        Ok(Self { sheet })
    }

    /// The price of one instance; `None` when it is not known.
    pub fn lookup(
        &self,
        instance_type: &InstanceType,
        region: Option<&str>,
        capacity_type: CapacityType,
    ) -> Option<Price> {
        if let Some(rate) = self.sheet_rate(instance_type, region, capacity_type) {
            return Some(Price { rate, source: PriceSource::Sheet });
        }
        listed(instance_type.as_str(), region?, capacity_type)
    }

    fn sheet_rate(
        &self,
        instance_type: &InstanceType,
        region: Option<&str>,
        capacity_type: CapacityType,
    ) -> Option<Rate> {
        if self.sheet.is_empty() {
            return None;
        }
        let mut key = SheetKey {
            instance_type: instance_type.as_str().into(),
            region: region.map(Arc::from),
            capacity_type,
        };
        if let Some(rate) = self.sheet.get(&key) {
            return Some(*rate);
        }
        key.region = None;
        self.sheet.get(&key).copied()
    }
}

fn listed(instance_type: &str, region: &str, capacity_type: CapacityType) -> Option<Price> {
    let at = LISTED
        .binary_search_by(|row| (row.instance_type, row.region).cmp(&(instance_type, region)))
        .ok()?;
    let ListedPrice { on_demand, spot, day, .. } = LISTED[at];
    let micros = match capacity_type {
        CapacityType::OnDemand => on_demand,
        CapacityType::Spot => spot,
        // What a reservation costs is in its contract, not on a list.
        CapacityType::Reserved => None,
    }?;
    let money = crate::Money::from_nanos(i128::from(micros) * 1_000, Currency::USD);
    Some(Price { rate: Rate::per_hour(money), source: PriceSource::Listed { day } })
}

const HEADER: &str = "instance_type,region,capacity_type,price_per_hour,currency";

fn sheet_line(text: &str) -> Result<(SheetKey, Rate), SheetFault> {
    let fields: Vec<&str> = text.split(',').map(str::trim).collect();
    let &[instance_type, region, capacity_type, price, currency] = fields.as_slice() else {
        return Err(SheetFault::Fields { found: fields.len() });
    };
    if instance_type.is_empty() {
        return Err(SheetFault::NoInstanceType);
    }
    let capacity_type = capacity_type
        .parse()
        .map_err(|()| SheetFault::CapacityType { found: capacity_type.to_owned() })?;
    let currency = currency.parse().map_err(SheetFault::Money)?;
    let rate = Rate::parse(price, currency).map_err(SheetFault::Money)?;
    if rate.hourly().as_nanos() < 0 {
        return Err(SheetFault::Negative { found: price.to_owned() });
    }
    let region = (!region.is_empty()).then(|| Arc::from(region));
    Ok((SheetKey { instance_type: instance_type.into(), region, capacity_type }, rate))
}

/// A price sheet that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PriceSheetError {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub what: SheetFault,
}

/// What is wrong with a line of a price sheet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SheetFault {
    /// There is no line at all.
    Empty,
    /// The first line is not the header.
    Header {
        /// What it is.
        found: String,
    },
    /// Not five fields.
    Fields {
        /// How many there are.
        found: usize,
    },
    /// The instance type is empty.
    NoInstanceType,
    /// Not `spot`, `on-demand` or `reserved`.
    CapacityType {
        /// What it is.
        found: String,
    },
    /// Price or currency cannot be read.
    Money(ParseMoneyError),
    /// Below zero.
    Negative {
        /// What it is.
        found: String,
    },
    /// The same instance type, region and capacity type as an earlier line.
    Twice,
}

impl fmt::Display for PriceSheetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "price sheet, line {}: ", self.line)?;
        match &self.what {
            SheetFault::Empty => write!(f, "it is empty; the first line must be `{HEADER}`"),
            SheetFault::Header { found } => {
                write!(f, "the first line must be `{HEADER}`, not `{found}`")
            }
            SheetFault::Fields { found } => write!(f, "{found} fields instead of 5"),
            SheetFault::NoInstanceType => f.write_str("the instance type is empty"),
            SheetFault::CapacityType { found } => {
                write!(f, "capacity type `{found}` is none of `spot`, `on-demand`, `reserved`")
            }
            SheetFault::Money(error) => write!(f, "{error}"),
            SheetFault::Negative { found } => write!(f, "price `{found}` is below zero"),
            SheetFault::Twice => f.write_str("an earlier line has the same key"),
        }
    }
}

impl std::error::Error for PriceSheetError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn price(book: &PriceBook, instance: &str, region: &str, kind: CapacityType) -> Option<String> {
        book.lookup(&instance.into(), Some(region), kind).map(|p| format!("{:?}", p.rate))
    }

    #[test]
    fn listed_prices_are_exact_and_never_borrowed() {
        let book = PriceBook::listed();
        let on_demand = |t, r| price(&book, t, r, CapacityType::OnDemand);
        assert_eq!(on_demand("g5.xlarge", "us-east-1").as_deref(), Some("1.006 USD/h"));
        assert_eq!(on_demand("g5.xlarge", "mars-1"), None);
        assert_eq!(on_demand("g5.nope", "us-east-1"), None);
        assert_eq!(price(&book, "g5.xlarge", "us-east-1", CapacityType::Reserved), None);
        assert_eq!(price(&book, "g5.xlarge", "us-east-1", CapacityType::Spot), None, "no list");
    }

    #[test]
    fn the_table_is_sorted_as_the_search_needs() {
        assert!(
            LISTED.is_sorted_by(|a, b| (a.instance_type, a.region) < (b.instance_type, b.region))
        );
    }

    #[test]
    fn a_sheet_wins_over_the_list() {
        let sheet = format!("{HEADER}\n# ours\ng5.xlarge,,on-demand,0.75,USD\n");
        let book = PriceBook::with_sheet(&sheet).expect("valid");
        let found = book
            .lookup(&"g5.xlarge".into(), Some("us-east-1"), CapacityType::OnDemand)
            .expect("in the sheet");
        assert_eq!(
            (format!("{:?}", found.rate), found.source),
            ("0.75 USD/h".into(), PriceSource::Sheet)
        );
    }

    #[test]
    fn a_bad_sheet_names_its_line() {
        let cases = [
            ("", "line 1: it is empty"),
            ("a,b\n", "line 1: the first line must be"),
            ("H\nx,,spot,1", "line 2: 4 fields"),
            ("H\nx,,cheap,1,USD", "line 2: capacity type `cheap`"),
            ("H\n\nx,,spot,-1,USD", "line 3: price `-1` is below zero"),
            ("H\nx,,spot,NaN,USD", "line 2: `NaN` is no decimal"),
            ("H\nx,,spot,1,usd", "line 2: `usd` is no ISO 4217"),
            ("H\nx,,spot,1,USD\nx,,spot,2,USD", "line 3: an earlier line"),
            ("H\n,,spot,1,USD", "line 2: the instance type is empty"),
        ];
        for (sheet, expected) in cases {
            let error = PriceBook::with_sheet(&sheet.replace('H', HEADER)).expect_err(sheet);
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}
