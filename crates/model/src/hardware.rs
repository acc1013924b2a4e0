//! What a device says of its own condition.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Milliwatts;

/// The condition of a whole device as it was read together with a sample. A field that the
/// exporter does not report, or that the device does not support, is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardwareReading {
    /// Power draw.
    #[doc(alias = "DCGM_FI_DEV_POWER_USAGE")]
    pub power: Option<Milliwatts>,
    /// Temperature of the processor, in degrees Celsius.
    #[doc(alias = "DCGM_FI_DEV_GPU_TEMP")]
    pub temperature_celsius: Option<i16>,
    /// Temperature of the memory, in degrees Celsius.
    #[doc(alias = "DCGM_FI_DEV_MEMORY_TEMP")]
    pub memory_temperature_celsius: Option<i16>,
    /// Clock of the multiprocessors.
    #[doc(alias = "DCGM_FI_DEV_SM_CLOCK")]
    pub sm_clock: Option<Megahertz>,
    /// Clock of the memory.
    #[doc(alias = "DCGM_FI_DEV_MEM_CLOCK")]
    pub memory_clock: Option<Megahertz>,
    /// Why the clocks are below what they could be.
    #[doc(alias = "DCGM_FI_DEV_CLOCKS_EVENT_REASONS")]
    #[doc(alias = "DCGM_FI_DEV_CLOCK_THROTTLE_REASONS")]
    pub throttle: Option<ThrottleReasons>,
    /// The last XID error since the driver was loaded; zero is none.
    #[doc(alias = "DCGM_FI_DEV_XID_ERRORS")]
    pub xid: Option<u32>,
    /// Memory errors of one bit, corrected, since the driver was loaded.
    #[doc(alias = "DCGM_FI_DEV_ECC_SBE_VOL_TOTAL")]
    pub ecc_corrected: Option<u64>,
    /// Memory errors of two bits, not correctable, since the driver was loaded.
    #[doc(alias = "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL")]
    pub ecc_uncorrected: Option<u64>,
    /// Whether spare memory rows ran out: the device is to be exchanged.
    #[doc(alias = "DCGM_FI_DEV_ROW_REMAP_FAILURE")]
    pub row_remap_failed: Option<bool>,
}

/// A clock frequency, in MHz (10^6 per second).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Megahertz(u32);

impl Megahertz {
    /// From MHz.
    pub const fn new(mhz: u32) -> Self {
        Self(mhz)
    }

    /// In MHz.
    pub const fn as_u32(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Megahertz {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MHz", self.0)
    }
}

/// Why a device's clocks are below what they could be: NVML's bit mask.
///
/// Source: `nvml.h`, `nvmlClocksEventReason*` (`nvmlClocksThrottleReason*` before driver 535).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct ThrottleReasons(u64);

impl ThrottleReasons {
    /// Nothing runs.
    pub const GPU_IDLE: Self = Self(0x1);
    /// A person or program limited the clocks.
    pub const APPLICATIONS_CLOCKS: Self = Self(0x2);
    /// The power limit: usual under full load.
    pub const SW_POWER_CAP: Self = Self(0x4);
    /// Hardware slowed down: temperature, power brake, or power draw too high.
    pub const HW_SLOWDOWN: Self = Self(0x8);
    /// Clocks follow those of other devices.
    pub const SYNC_BOOST: Self = Self(0x10);
    /// The driver slowed down because of temperature.
    pub const SW_THERMAL: Self = Self(0x20);
    /// Hardware slowed down because of temperature.
    pub const HW_THERMAL: Self = Self(0x40);
    /// An external power brake, from the machine's power supply.
    pub const HW_POWER_BRAKE: Self = Self(0x80);
    /// Clocks of the display.
    pub const DISPLAY_CLOCKS: Self = Self(0x100);

    const NAMED: [(Self, &'static str); 9] = [
        (Self::GPU_IDLE, "gpu idle"),
        (Self::APPLICATIONS_CLOCKS, "applications clocks setting"),
        (Self::SW_POWER_CAP, "software power cap"),
        (Self::HW_SLOWDOWN, "hardware slowdown"),
        (Self::SYNC_BOOST, "sync boost"),
        (Self::SW_THERMAL, "software thermal slowdown"),
        (Self::HW_THERMAL, "hardware thermal slowdown"),
        (Self::HW_POWER_BRAKE, "hardware power brake"),
        (Self::DISPLAY_CLOCKS, "display clock setting"),
    ];

    /// From NVML's bits; unknown ones are kept.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// NVML's bits.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// All reasons of both.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The reasons of both that are the same.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether there is no reason.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for ThrottleReasons {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        let mut first = true;
        for (reason, name) in Self::NAMED {
            if self.0 & reason.0 != 0 {
                rest &= !reason.0;
                write!(f, "{}{name}", if first { "" } else { ", " })?;
                first = false;
            }
        }
        match (rest, first) {
            (0, true) => f.write_str("none"),
            (0, false) => Ok(()),
            (bits, true) => write!(f, "{bits:#x}"),
            (bits, false) => write!(f, ", {bits:#x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_named_and_unknown_bits_are_kept() {
        let both = ThrottleReasons::HW_THERMAL.union(ThrottleReasons::from_bits(0x1000));
        assert_eq!(both.to_string(), "hardware thermal slowdown, 0x1000");
        assert_eq!(ThrottleReasons::default().to_string(), "none");
        assert_eq!(ThrottleReasons::from_bits(0x1000).to_string(), "0x1000");
    }
}
