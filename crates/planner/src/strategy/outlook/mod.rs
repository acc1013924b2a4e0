//! The default strategy: the choice that is expected to lose the least GPU.
//!
//! The cost of a choice is the GPU that can no longer be used once it is made, in millionths of
//! a GPU, as far as the distribution of requests tells:
//!
//! - on its node, the larger of two losses: the *waste* of holes in partly used GPUs, at the
//!   shadow prices of [`patterns`], and the *strand*, the free GPU for which processor or host
//!   memory will not suffice. The larger and not the sum: a GPU that is lost to a hole needs no
//!   processor, so a node short of processor may as well have holes;
//! - in the fleet, the *scarcity* of [`prices`]: GPUs that restricted requests will miss.
//!
//! Nothing here is fitted to a trace: every number follows from the distribution of requests and
//! from what is free.

pub mod instances;
pub mod patterns;
pub mod prices;
mod solver;

use std::collections::BTreeMap;

use crate::demand::Demand;
use crate::fleet::{Devices, Fleet, Gpu, Node, Sharing, WHOLE_GPU_MILLI, positions};
use crate::request::{GpuRequest, Request};
use instances::InstanceLosses;
use patterns::{HOLE_MAX, ShareSize, hole_waste};
use prices::{MICRO_PER_MILLI, NodeSurvey, ScarceDemand};

/// Weight of the loss at the very next request against the loss in the long run.
///
/// It decides among choices that the shadow prices hold equal, of which a linear program has
/// many, and is small enough to decide nothing else: 0.01 and 0.05 give the same allocation.
const NEXT_REQUEST_WEIGHT: f64 = 0.01;

/// What taking of a node costs of which all GPUs are free, in millionths of a GPU; of one that is
/// partly free, the same part of it.
///
/// It decides among nodes that are equal otherwise, of which there are many while little is used:
/// the fuller one is taken, so that others stay empty. It is the least that keeps ten steps apart:
/// a thousand times as much allocates less where pods are restricted to GPU models, and a GPU of
/// it loses a point at full load.
const EMPTY_NODE_COST: f64 = 10.0;

/// What the default strategy knows of the requests to come.
#[derive(Clone, Debug)]
pub struct Outlook {
    /// Processor, in thousandths of a core, that comes with a thousandth of a GPU.
    cpu_per_milli: f64,
    /// Host memory, in bytes, that comes with a thousandth of a GPU.
    memory_per_milli: f64,
    /// Waste of a hole of each size in the long run, in thousandths of a GPU.
    hole_waste: Vec<f64>,
    /// What of a hole of each size the very next request is expected to leave unusable.
    next_waste: Vec<f64>,
    /// The same for what MIG instances leave, by geometry.
    instances: Vec<InstanceLosses>,
    /// Framebuffer of the GPU whose part a share by memory is taken to be, in MiB.
    pub share_memory_mib: u32,
    /// What not every GPU can serve.
    pub scarce: ScarceDemand,
}

/// What GPUs have lost, in thousandths of a GPU.
#[derive(Clone, Copy, Debug, Default)]
pub struct Loss {
    /// In the long run.
    holes: f64,
    /// At the very next request.
    next: f64,
}

impl Outlook {
    /// The outlook of `demand` on `fleet`.
    pub fn new(demand: &Demand, fleet: &Fleet) -> Self {
        let (mut cpu, mut memory, mut gpu) = (0.0, 0.0, 0.0);
        let share_memory_mib = fleet.share_memory_mib();
        let mut shares: BTreeMap<u16, f64> = BTreeMap::new();
        for (request, count) in demand.iter() {
            let count = count as f64;
            let milli = request.gpu_milli_of(share_memory_mib);
            if milli > 0 {
                cpu += request.cpu_milli as f64 * count;
                memory += request.memory_bytes as f64 * count;
                gpu += f64::from(milli) * count;
            }
            if matches!(request.gpu, GpuRequest::Share { .. }) && (1..1000).contains(&milli) {
                // Below 1000.
                *shares.entry(milli as u16).or_default() += count;
            }
        }
        let sizes: Vec<ShareSize> =
            shares.into_iter().map(|(milli, weight)| ShareSize { milli, weight }).collect();
        let ratio = |amount: f64| if gpu > 0.0 { amount / gpu } else { 0.0 };
        let hole_waste = hole_waste(&sizes);
        // A share is worth what the dearest hole of its size is.
        let worth = |request: &Request| match request.gpu {
            GpuRequest::Share { .. } => {
                let milli = request.gpu_milli_of(share_memory_mib);
                f64::from(milli) - hole_waste[(milli as usize).min(HOLE_MAX)]
            }
            _ => f64::from(request.gpu_milli()),
        };
        Self {
            cpu_per_milli: ratio(cpu),
            memory_per_milli: ratio(memory),
            next_waste: next_waste(&sizes, demand.len()),
            instances: InstanceLosses::of_all(demand, fleet),
            scarce: ScarceDemand::new(demand, fleet, &worth),
            hole_waste,
            share_memory_mib,
        }
    }

    /// What `devices` of `node` cost wherever else something is free, in millionths of a GPU.
    pub fn cost(&self, node: &Node, request: &Request, devices: Devices) -> i64 {
        let mut before = Loss::default();
        for gpu in &node.gpus {
            before.add(self.gpu_loss(gpu));
        }
        let mut after = before;
        let free = node.gpu_free_milli();
        let mut free_after = free;
        for (gpu, now) in changed_gpus(node, devices) {
            after.subtract(self.gpu_loss(gpu));
            after.add(self.gpu_loss(&now));
            free_after -= u32::from(gpu.free_milli() - now.free_milli());
        }
        let lost = |loss: Loss, free: u32, cpu_milli: u64, memory_bytes: u64| {
            let usable = |amount: u64, per_milli: f64| {
                if per_milli > 0.0 { amount as f64 / per_milli } else { f64::INFINITY }
            };
            let served = usable(cpu_milli, self.cpu_per_milli)
                .min(usable(memory_bytes, self.memory_per_milli));
            (f64::from(free) - served).max(loss.holes + NEXT_REQUEST_WEIGHT * loss.next)
        };
        let was = lost(before, free, node.free.cpu_milli, node.free.memory_bytes);
        let will_be = lost(
            after,
            free_after,
            node.free.cpu_milli - request.cpu_milli,
            node.free.memory_bytes - request.memory_bytes,
        );
        let loss = (will_be - was) * MICRO_PER_MILLI;
        // A node has at most 32 GPUs, so that the sum is far within 64 bits.
        (loss + EMPTY_NODE_COST * free_part(node, free)).round() as i64
    }

    /// What `node`, of a known shape, adds to the survey of what is left.
    pub fn survey(&self, node: &Node, shape: u8) -> NodeSurvey {
        let free = f64::from(node.gpu_free_milli());
        let mut loss = Loss::default();
        node.gpus.iter().for_each(|gpu| loss.add(self.gpu_loss(gpu)));
        let served = if self.cpu_per_milli > 0.0 {
            node.free.cpu_milli as f64 / self.cpu_per_milli
        } else {
            free
        };
        NodeSurvey {
            shape,
            usable_milli: (free - (free - served).max(loss.holes)) as u32,
            // At most 32 GPUs of a node are told apart.
            gpus_free: node.gpus_free() as u8,
        }
    }

    fn gpu_loss(&self, gpu: &Gpu) -> Loss {
        let hole = usize::from(gpu.free_milli());
        match &gpu.sharing {
            Sharing::Fraction if hole < HOLE_MAX => {
                Loss { holes: self.hole_waste[hole], next: self.next_waste[hole] }
            }
            Sharing::Mig(geometry) => {
                let losses = self.instances.iter().find(|i| i.geometry == *geometry);
                losses.map_or(Loss::default(), |losses| losses.at(gpu.mig))
            }
            _ => Loss::default(),
        }
    }
}

/// The part of the GPUs of `node` that is free; all of it where there are none.
fn free_part(node: &Node, free_milli: u32) -> f64 {
    let gpus = node.gpus.len() as f64 * f64::from(WHOLE_GPU_MILLI);
    if gpus > 0.0 { f64::from(free_milli) / gpus } else { 1.0 }
}

/// The GPUs of `node` that a grant of `devices` changes, and what becomes of them.
fn changed_gpus(node: &Node, devices: Devices) -> Vec<(&Gpu, Gpu)> {
    let granted = |set: u32, grant: &dyn Fn(&mut Gpu)| {
        let change = |position: usize| {
            let mut gpu = node.gpus[position].clone();
            grant(&mut gpu);
            (&node.gpus[position], gpu)
        };
        positions(set).map(change).collect()
    };
    match devices {
        Devices::None => Vec::new(),
        Devices::Whole { gpus } => granted(gpus, &|gpu| {
            gpu.compute_free_milli = 0;
            gpu.memory_free_mib = 0;
            gpu.replicas_free = 0;
        }),
        Devices::Share { gpu, compute_milli, memory_mib } => granted(1 << gpu, &|gpu| {
            gpu.compute_free_milli -= compute_milli;
            gpu.memory_free_mib -= memory_mib;
        }),
        Devices::Replicas { gpu, count } => granted(1 << gpu, &|gpu| gpu.replicas_free -= count),
        Devices::Clients { gpu, processes, .. } => {
            granted(1 << gpu, &|gpu| gpu.replicas_free -= processes)
        }
        Devices::Mig { gpu, profile, start } => granted(1 << gpu, &|gpu| {
            if let Sharing::Mig(geometry) = &gpu.sharing {
                gpu.mig = gpu.mig.with(&geometry.profiles[usize::from(profile)], start);
            }
        }),
    }
}

impl Loss {
    fn add(&mut self, other: Self) {
        self.holes += other.holes;
        self.next += other.next;
    }

    fn subtract(&mut self, other: Self) {
        self.holes -= other.holes;
        self.next -= other.next;
    }
}

/// For each hole, what is expected to stay unused when one more request of each size comes by.
fn next_waste(sizes: &[ShareSize], requests: u64) -> Vec<f64> {
    let total = requests.max(1) as f64;
    let mut waste = vec![0.0; HOLE_MAX + 1];
    for hole in 0..=HOLE_MAX {
        let (mut left, mut none) = (0.0, 1.0);
        for size in sizes.iter().filter(|size| usize::from(size.milli) <= hole) {
            let part = size.weight / total;
            left += part * waste[hole - usize::from(size.milli)];
            none -= part;
        }
        waste[hole] = left + none * hole as f64;
    }
    waste
}
