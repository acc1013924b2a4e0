//! A cluster whose pods are all known beforehand, for a comparison on a real control plane.

use std::time::Duration;

use gpu_autoscaler_model::{GpuResource, Timestamp};

use crate::curve::{Curve, Load};
use crate::node::SimNode;
use crate::spec::{Ailment, WorldSpec, kinds};
use crate::workload::{Arrival, Job, Snag, Workload, name_job};
use crate::{Chance, Faults};

/// What is planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planting {
    /// Draws layout, loads and names.
    pub seed: u64,
    /// The first instant.
    pub start: Timestamp,
    /// Nodes; from 9 on there is one of every kind.
    pub nodes: usize,
    /// Pods, if so many fit.
    pub pods: usize,
    /// When the last tenth of the pods is created; the others are there from the start.
    pub late: Duration,
}

/// Loads that behave the same for as long as one looks: what is found does not depend on when.
const STEADY: [Load; 8] = [
    Load::Training,
    Load::IdleNotebook,
    Load::BusyInference,
    Load::FivePercent,
    Load::Full,
    Load::HeldMemory,
    Load::QuietInference,
    Load::SmallShare,
];

/// What GPUs suffer from.
const AILMENTS: [Ailment; 3] = [Ailment::Hot, Ailment::Xid(79), Ailment::UncorrectedEcc(2)];

/// Longer than anybody looks.
const LIFE: Duration = Duration::from_secs(30 * 86_400);

/// For how long the first pods have been running: longer than anybody looks back.
const AGE: Duration = Duration::from_secs(3_600);

/// A world without chance in time: no faults, no pod that ends.
pub fn planted(planting: &Planting) -> WorldSpec {
    let mut chance = Chance::stream(planting.seed, "planted");
    let mut nodes = kinds(planting.seed, planting.nodes);
    shuffle(&mut nodes, &mut chance);
    // Nodes that nobody measures are filled first, so that there is something not to know.
    nodes.sort_by_key(|node| node.exporter.is_some());
    let mut free: Vec<GpuResource> = nodes
        .iter()
        .map(|spec| SimNode::new(spec, planting.seed, planting.start))
        .flat_map(|node| node.slots.into_iter().map(|slot| slot.resource))
        .collect();
    shuffle(&mut free, &mut chance);
    let late_from = planting.pods - planting.pods / 10;
    let mut arrivals: Vec<Arrival> = Vec::new();
    // A pod in nine has several GPUs: whole ones, of one node. They come first, so that they fit.
    let several = planting.pods / 9;
    while arrivals.len() < planting.pods {
        let number = arrivals.len();
        let wide = number < several;
        let Some(resource) = take(&mut free, wide) else { break };
        let count = if wide { 2 } else { 1 };
        let load = match (wide, number % 3) {
            (true, 0) => Load::OneOfMany,
            (true, 1) => Load::Training,
            _ => STEADY[number % STEADY.len()],
        };
        let curve = Curve::draw(load, count, &mut chance);
        // What is there from the start runs already, so that no warm-up is seen as waste.
        let early = number < late_from;
        let (at, age) = if early { (Duration::ZERO, AGE) } else { (planting.late, Duration::ZERO) };
        let job = name_job(load, number as u64, resource, count, LIFE, curve, &mut chance);
        let snag = match number % 20 {
            7 if early => Some(Snag::ImagePull),
            13 if early => Some(Snag::CrashLoop),
            _ => None,
        };
        // A container that loops must have ended lately; one that runs, long ago.
        let age = if snag.is_some() { Duration::ZERO } else { age };
        arrivals.push(Arrival { at, age, job: Job { successors: 0, snag, ..job } });
    }
    // One measured node in six has a GPU that is not well.
    let measured = nodes.iter_mut().filter(|node| node.exporter.is_some());
    for (node, ailment) in measured.step_by(6).zip(AILMENTS.into_iter().cycle()) {
        // Machines have a handful of GPUs.
        let gpu = chance.below(node.shape.gpus as usize) as u32;
        node.ailments.push((gpu, ailment));
    }
    WorldSpec {
        seed: planting.seed,
        start: planting.start,
        nodes,
        workload: Workload::Listed(arrivals.into()),
        faults: Faults::NONE,
    }
}

/// Takes one resource, or two whole GPUs as one.
fn take(free: &mut Vec<GpuResource>, wide: bool) -> Option<GpuResource> {
    if !wide {
        return free.pop();
    }
    for _ in 0..2 {
        let at = free.iter().rposition(|resource| *resource == GpuResource::Whole)?;
        free.remove(at);
    }
    Some(GpuResource::Whole)
}

/// Source: Fisher and Yates' shuffle in Durstenfeld's form.
fn shuffle<T>(items: &mut [T], chance: &mut Chance) {
    for last in (1..items.len()).rev() {
        items.swap(last, chance.below(last + 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Rule, TrueUse, World};

    #[test]
    fn all_planted_pods_run_and_most_of_them_are_settled() {
        for seed in 0..20 {
            let planting = Planting {
                seed,
                start: Timestamp::EPOCH,
                nodes: 20,
                pods: 80,
                late: Duration::from_secs(780),
            };
            let mut world = World::new(&planted(&planting));
            world.advance(planting.start.after(Duration::from_secs(840)));
            let truth = world.truth(&Rule::PUBLISHED);
            let count = |use_| truth.pods.iter().filter(|pod| pod.use_ == use_).count();
            assert_eq!(truth.pods.len(), 80, "seed={seed}");
            assert_eq!(count(TrueUse::Pending), 0, "seed={seed}");
            assert!((3..=8).contains(&count(TrueUse::Young)), "seed={seed}");
            assert!(count(TrueUse::Idle) > 2, "seed={seed}");
            assert!(count(TrueUse::Busy) > 5, "seed={seed}");
            assert!(count(TrueUse::Unknown) > 1, "seed={seed}");
            assert!(count(TrueUse::Stuck) > 4, "seed={seed}");
            assert!(count(TrueUse::OverRequested) > 1, "seed={seed}");
            assert!(truth.ailing.len() > 1, "seed={seed}");
        }
    }
}
