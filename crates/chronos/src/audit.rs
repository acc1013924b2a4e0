//! A second opinion on the planner: it sums what is promised and shares no code with it.

use std::collections::BTreeMap;
use std::fmt;

use crate::lease::{Gpu, GpuId, Lease};
use crate::quantity::Ppm;

/// A promise that does not hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OverCommitted {
    /// The GPU.
    pub gpu: GpuId,
    /// What its leases hold together.
    pub promised: u128,
    /// What it has.
    pub total: u128,
}

impl fmt::Display for OverCommitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GPU `{}`: {} of {} bytes are leased", self.gpu, self.promised, self.total)
    }
}

/// Sums what the live leases hold on each GPU; an empty list when none holds more than there is.
pub fn check<'a>(leases: impl Iterator<Item = &'a Lease>, gpus: &[Gpu]) -> Vec<OverCommitted> {
    let mut memory: BTreeMap<&GpuId, u128> = BTreeMap::new();
    let mut compute: BTreeMap<&GpuId, u128> = BTreeMap::new();
    for lease in leases {
        if lease.holds_until().is_none() {
            continue;
        }
        for part in &lease.parts {
            *memory.entry(&part.gpu).or_default() += u128::from(part.memory.as_u64());
            *compute.entry(&part.gpu).or_default() += u128::from(part.compute.map_or(0, Ppm::get));
        }
    }
    let over = |promised: &BTreeMap<&GpuId, u128>, gpu: &Gpu, total: u128| {
        let promised = promised.get(&gpu.id).copied().unwrap_or(0);
        (promised > total).then(|| OverCommitted { gpu: gpu.id.clone(), promised, total })
    };
    gpus.iter()
        .flat_map(|gpu| {
            [over(&memory, gpu, u128::from(gpu.memory.as_u64())), over(&compute, gpu, 1_000_000)]
        })
        .flatten()
        .collect()
}
