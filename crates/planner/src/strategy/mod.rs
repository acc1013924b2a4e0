//! The named strategies: what a choice of node and devices costs; the lowest wins.

pub mod fgd;
pub mod outlook;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::demand::Demand;
use crate::fit::each_choice;
use crate::fleet::{Devices, Fleet, Node};
use crate::request::Request;
use fgd::FragTables;
use outlook::Outlook;

/// A packing strategy. The published names are the text form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// Least expected loss: strand, hole waste and scarcity. See `docs/designs`.
    #[default]
    Default,
    /// The node with the least left.
    BestFit,
    /// The first node in the list.
    FirstFit,
    /// The node with the most left.
    WorstFit,
    /// Fragmentation gradient descent.
    Fgd,
    /// Any node, drawn from a seed.
    Random {
        /// The seed.
        seed: u64,
    },
}

/// Text that names no strategy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseStrategyError {
    /// What was read, at most 64 characters of it.
    pub text: String,
}

impl fmt::Display for ParseStrategyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` is no packing strategy: one of `default`, `bestFit`, `firstFit`, `worstFit`, \
             `fgd`, `random`",
            self.text
        )
    }
}

impl std::error::Error for ParseStrategyError {}

impl FromStr for Strategy {
    type Err = ParseStrategyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "default" => Self::Default,
            "bestFit" => Self::BestFit,
            "firstFit" => Self::FirstFit,
            "worstFit" => Self::WorstFit,
            "fgd" => Self::Fgd,
            "random" => Self::Random { seed: 0 },
            _ => return Err(ParseStrategyError { text: text.chars().take(64).collect() }),
        })
    }
}

/// A strategy with the tables that it derives from the demand.
#[derive(Clone, Debug)]
pub enum Scorer {
    /// See [`Strategy::Default`].
    Default(Box<Outlook>),
    /// See [`Strategy::BestFit`].
    BestFit,
    /// See [`Strategy::FirstFit`].
    FirstFit,
    /// See [`Strategy::WorstFit`].
    WorstFit,
    /// See [`Strategy::Fgd`].
    Fgd(Box<FragTables>),
    /// See [`Strategy::Random`].
    Random {
        /// The seed.
        seed: u64,
    },
}

impl Scorer {
    /// The scorer of `strategy` for a fleet and the demand that is expected on it.
    pub fn new(strategy: Strategy, demand: &Demand, fleet: &Fleet) -> Self {
        match strategy {
            Strategy::Default => Self::Default(Box::new(Outlook::new(demand, fleet))),
            Strategy::BestFit => Self::BestFit,
            Strategy::FirstFit => Self::FirstFit,
            Strategy::WorstFit => Self::WorstFit,
            Strategy::Fgd => {
                let mut models: Vec<Arc<str>> =
                    fleet.nodes.iter().map(|node| node.gpu_model.clone()).collect();
                models.sort();
                models.dedup();
                Self::Fgd(Box::new(FragTables::new(demand, &models)))
            }
            Strategy::Random { seed } => Self::Random { seed },
        }
    }

    /// The devices of `node` with the lowest cost, and that cost; `None` when none fits.
    ///
    /// Processor, host memory and pods must fit already. Of equal costs the first choice wins.
    pub fn best_on(&self, node: &Node, request: &Request) -> Option<(i64, Devices)> {
        if let Self::Random { seed } = self {
            return drawn(*seed, node, request).map(|devices| (0, devices));
        }
        let mut best: Option<(Cost, Devices)> = None;
        each_choice(node, request, &mut |devices| {
            let cost = self.cost(node, request, devices);
            if best.is_none_or(|(lowest, _)| cost < lowest) {
                best = Some((cost, devices));
            }
        });
        best.map(|(cost, devices)| (cost.node, devices))
    }

    fn cost(&self, node: &Node, request: &Request, devices: Devices) -> Cost {
        match self {
            Self::Default(outlook) => Cost::of_node(outlook.cost(node, request, devices)),
            Self::BestFit => left_after(node, request, devices),
            Self::FirstFit | Self::Random { .. } => Cost::of_node(0),
            Self::WorstFit => {
                let cost = left_after(node, request, devices);
                Cost { node: -cost.node, device: -cost.device }
            }
            Self::Fgd(tables) => Cost::of_node(tables.cost(node, request, devices)),
        }
    }
}

/// What a choice costs; the lowest wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Cost {
    /// Compared between nodes, and between the devices of one node.
    node: i64,
    /// Compared between the devices of one node where `node` is equal.
    device: i64,
}

impl Cost {
    const fn of_node(node: i64) -> Self {
        Self { node, device: 0 }
    }
}

/// Processor and GPU that a node would have left, 0 to 100, and what the GPU has left.
///
/// Source: `BestFit` of the FGD simulator: processor counts up to 128 cores, GPUs up to 8, and
/// the sum is cut to an integer.
fn left_after(node: &Node, request: &Request, devices: Devices) -> Cost {
    let cpu_left = node.free.cpu_milli.saturating_sub(request.cpu_milli) as f64;
    let gpu_left = f64::from(node.gpu_free_milli()) - f64::from(request.gpu_milli());
    let score = 100.0 * (1.0 - 0.5 * cpu_left / 128_000.0 - 0.5 * gpu_left / 8_000.0);
    let device = match devices {
        Devices::Share { gpu, .. }
        | Devices::Replicas { gpu, .. }
        | Devices::Clients { gpu, .. }
        | Devices::Mig { gpu, .. } => node.gpus[usize::from(gpu)].free_milli().into(),
        Devices::None | Devices::Whole { .. } => 0,
    };
    // The cut is the published policy's.
    Cost { node: 100 - score as i64, device }
}

/// One of the choices on `node`, drawn from the seed and the node's state.
fn drawn(seed: u64, node: &Node, request: &Request) -> Option<Devices> {
    let mut lowest: Option<(u64, Devices)> = None;
    each_choice(node, request, &mut |devices| {
        // One choice stands for all GPUs in the same state, and each of those has a draw.
        let draws = match devices {
            Devices::None | Devices::Whole { .. } => 1,
            Devices::Share { gpu, .. }
            | Devices::Replicas { gpu, .. }
            | Devices::Clients { gpu, .. }
            | Devices::Mig { gpu, .. } => {
                let chosen = &node.gpus[usize::from(gpu)];
                node.gpus.iter().filter(|gpu| gpu.is_in_state_of(chosen)).count() as u64
            }
        };
        let state = mix(seed ^ mix(node.free.cpu_milli ^ mix(choice_number(devices))));
        let draw = (0..draws).map(|n| mix(state ^ n)).min().unwrap_or(u64::MAX);
        if lowest.is_none_or(|(number, _)| draw < number) {
            lowest = Some((draw, devices));
        }
    });
    lowest.map(|(_, devices)| devices)
}

fn choice_number(devices: Devices) -> u64 {
    match devices {
        Devices::None | Devices::Whole { .. } => 0,
        Devices::Share { gpu, .. }
        | Devices::Replicas { gpu, .. }
        | Devices::Clients { gpu, .. } => u64::from(gpu),
        Devices::Mig { gpu, start, .. } => u64::from(gpu) << 8 | u64::from(start),
    }
}

/// A well-mixed function of its argument (the finalizer of SplitMix64).
pub(crate) fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
