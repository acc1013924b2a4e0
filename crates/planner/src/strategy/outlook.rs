//! Least expected loss.

use crate::demand::Demand;
use crate::fleet::{Devices, Fleet, Node, positions};
use crate::request::{GpuRequest, Request};

/// Tables.
#[derive(Clone, Debug)]
pub struct Outlook {
    cpu_per_milli: f64,
    waste: Vec<f64>,
}

impl Outlook {
    /// From demand.
    pub fn new(demand: &Demand, _fleet: &Fleet) -> Self {
        let (mut cpu, mut gpu) = (0.0, 0.0);
        let mut sizes = std::collections::BTreeMap::new();
        for (request, count) in demand.iter() {
            if request.gpu_milli() > 0 {
                cpu += request.cpu_milli as f64 * count as f64;
                gpu += f64::from(request.gpu_milli()) * count as f64;
            }
            if let GpuRequest::Share { compute_milli, .. } = request.gpu {
                *sizes.entry(compute_milli).or_insert(0.0) += count as f64 / demand.len() as f64;
            }
        }
        let mut waste = vec![0.0; 1001];
        for r in 0..1000usize {
            let mut fits: Vec<(f64, f64)> = sizes
                .iter()
                .filter(|(s, _)| usize::from(**s) <= r)
                .map(|(s, p)| (waste[r - usize::from(*s)], *p))
                .collect();
            fits.sort_by(|a, b| a.0.total_cmp(&b.0));
            let (mut none, mut sum) = (1.0, 0.0);
            for (w, p) in fits {
                let arrives = 1.0 - (1.0f64 - p).powi(30);
                sum += none * arrives * w;
                none *= 1.0 - arrives;
            }
            waste[r] = sum + none * r as f64;
        }
        Self { cpu_per_milli: cpu / gpu, waste }
    }

    /// Micro GPU.
    pub fn cost(&self, node: &Node, request: &Request, devices: Devices) -> i64 {
        let free = f64::from(node.gpu_free_milli());
        let cpu = node.free.cpu_milli as f64;
        let strand = |free: f64, cpu: f64| (free - cpu / self.cpu_per_milli).max(0.0);
        let before = strand(free, cpu);
        let after = strand(free - f64::from(request.gpu_milli()), cpu - request.cpu_milli as f64);
        let waste = match devices {
            Devices::Share { gpu, compute_milli, .. } => {
                let left = node.gpus[usize::from(gpu)].free_milli();
                self.waste[usize::from(left - compute_milli)] - self.waste[usize::from(left)]
            }
            _ => 0.0,
        };
        let _ = positions;
        ((after - before + 0.3 * waste) * 1000.0).round() as i64
    }
}
