//! Fragmentation gradient descent, as published, with its integer truncation.
//!
//! Source: Weng et al., "Beware of Fragmentation: Scheduling GPU-Sharing Workloads with
//! Fragmentation Gradient Descent", USENIX ATC 2023; and its simulator, where a score is cut to
//! an integer of 0 to 100. The cut is part of the policy: equal scores go to the first node, and
//! without it the policy allocates two points less.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::demand::Demand;
use crate::fleet::{Devices, Node, WHOLE_GPU_MILLI, positions};
use crate::request::{GpuRequest, Request};

/// The part of the demand that the published policy looks at.
const TYPICAL_COVERAGE: f64 = 0.95;

/// For each GPU model, which part of the demand can be hosted with how much processor.
#[derive(Clone, Debug)]
pub struct FragTables {
    /// Distinct shares of one GPU in the demand, ascending, and then counts of whole GPUs.
    sizes: Vec<Size>,
    by_model: BTreeMap<Arc<str>, ModelTable>,
    other_models: ModelTable,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Size {
    Share(u16),
    Whole(u16),
}

#[derive(Clone, Debug)]
struct ModelTable {
    /// Processor requests, ascending; row `i` below is for nodes with at least `cpu[i - 1]` but
    /// less than `cpu[i]` free.
    cpu: Vec<u64>,
    /// For each row, the part of the demand of each size that fits by model and processor.
    parts: Vec<Vec<f64>>,
    /// For each row, the part of the demand that fits nowhere on such a node.
    rest: Vec<f64>,
}

impl FragTables {
    /// The tables for `demand`.
    pub fn new(demand: &Demand, models: &[Arc<str>]) -> Self {
        let typical = demand.typical(TYPICAL_COVERAGE);
        let size = |request: &Request| match request.gpu {
            GpuRequest::Share { compute_milli, .. } => Some(Size::Share(compute_milli)),
            GpuRequest::Whole { count } => Some(Size::Whole(count)),
            _ => None,
        };
        let mut sizes: Vec<Size> = typical.iter().filter_map(|t| size(t.request)).collect();
        sizes.sort();
        sizes.dedup();
        let table = |model: Option<&Arc<str>>| {
            let allowed = |request: &Request| {
                request.models.is_empty() || model.is_some_and(|m| request.models.contains(m))
            };
            let mut cpu: Vec<u64> = typical.iter().map(|t| t.request.cpu_milli).collect();
            cpu.sort_unstable();
            cpu.dedup();
            let mut parts = Vec::new();
            let mut rest = Vec::new();
            for row in 0..=cpu.len() {
                let mut row_parts = vec![0.0; sizes.len()];
                let mut row_rest = 1.0;
                for t in &typical {
                    let fits = row > 0 && t.request.cpu_milli <= cpu[row - 1];
                    if let (true, Some(size)) = (fits && allowed(t.request), size(t.request)) {
                        let at = sizes.binary_search(&size).expect("every size was listed");
                        row_parts[at] += t.share;
                        row_rest -= t.share;
                    }
                }
                parts.push(row_parts);
                rest.push(row_rest);
            }
            ModelTable { cpu, parts, rest }
        };
        Self {
            by_model: models.iter().map(|model| (model.clone(), table(Some(model)))).collect(),
            other_models: table(None),
            sizes,
        }
    }

    /// The cost of `devices` on `node`: 100 less the published score.
    pub fn cost(&self, node: &Node, request: &Request, devices: Devices) -> i64 {
        let mut left = [0_u16; crate::fleet::GPUS_PER_NODE_MAX];
        let left = &mut left[..node.gpus.len()];
        for (left, gpu) in left.iter_mut().zip(&node.gpus) {
            *left = gpu.free_milli();
        }
        let table = self.by_model.get(&node.gpu_model).unwrap_or(&self.other_models);
        let before = self.fragment(table, node.free.cpu_milli, left);
        match devices {
            Devices::Whole { gpus } => positions(gpus).for_each(|gpu| left[gpu] = 0),
            Devices::Share { gpu, compute_milli, .. } => left[usize::from(gpu)] -= compute_milli,
            // The paper knows no other kind.
            Devices::None
            | Devices::Replicas { .. }
            | Devices::Clients { .. }
            | Devices::Mig { .. } => {}
        }
        let after = self.fragment(table, node.free.cpu_milli - request.cpu_milli, left);
        let sigmoid = 1.0 / (1.0 + (-(before - after) / 1000.0).exp());
        // Between 0 and 100; the cut is the published policy's.
        100 - (100.0 * sigmoid) as i64
    }

    /// The expected milli-GPU of a node that a request of the demand cannot use.
    fn fragment(&self, table: &ModelTable, cpu_milli: u64, left: &[u16]) -> f64 {
        let row = table.cpu.partition_point(|&cpu| cpu <= cpu_milli);
        let total: u32 = left.iter().map(|&l| u32::from(l)).sum();
        let most = left.iter().copied().max().unwrap_or(0);
        let mut sum = table.rest[row] * f64::from(total);
        for (size, &part) in self.sizes.iter().zip(&table.parts[row]) {
            if part == 0.0 {
                continue;
            }
            let below =
                |size: u16| left.iter().filter(|&&l| l < size).map(|&l| u32::from(l)).sum::<u32>();
            let unusable = match *size {
                Size::Share(milli) if most < milli => total,
                Size::Share(milli) => below(milli),
                Size::Whole(count) => {
                    let whole = left.iter().filter(|&&l| l == WHOLE_GPU_MILLI).count();
                    if whole < usize::from(count) { total } else { below(WHOLE_GPU_MILLI) }
                }
            };
            sum += part * f64::from(unusable);
        }
        sum
    }
}
