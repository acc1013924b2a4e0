//! What a GPU with MIG instances is still worth: the shadow prices of [`super::patterns`], with
//! profiles for sizes and legal layouts for patterns.

use std::collections::BTreeMap;

use gpu_autoscaler_model::{MigGeometry, MigOccupancy};

use super::Loss;
use super::solver::{Pattern, TOLERANCE, shadow_prices};
use crate::demand::Demand;
use crate::fit::mig_profile;
use crate::fleet::{Fleet, MigTable, Sharing, WHOLE_GPU_MILLI};
use crate::request::GpuRequest;

/// Occupancies of a GPU: a mask of 8 memory slices, with and without the media engines.
const OCCUPANCIES: usize = 512;

/// What is lost at every occupancy of one geometry, in thousandths of a GPU.
#[derive(Clone, Debug)]
pub struct InstanceLosses {
    /// Where instances may lie.
    pub geometry: MigTable,
    losses: Vec<Loss>,
}

fn index(occupied: MigOccupancy) -> usize {
    usize::from(occupied.slices) | usize::from(occupied.media_engines) << 8
}

fn occupancy(index: usize) -> MigOccupancy {
    // The low eight bits are the mask.
    MigOccupancy { slices: (index & 0xff) as u8, media_engines: index >> 8 == 1 }
}

/// A profile that is asked for: its position in the geometry, and how often.
struct Item {
    profile: usize,
    weight: f64,
}

/// For each occupancy, the worth of the dearest instances that may still be created, and the
/// first of them: item and start.
struct Worth {
    value: Vec<f64>,
    next: Vec<Option<(usize, u8)>>,
}

impl InstanceLosses {
    /// The losses of each geometry in `fleet`, where `demand` asks for its profiles.
    pub fn of_all(demand: &Demand, fleet: &Fleet) -> Vec<Self> {
        let mut tables: Vec<&MigTable> = Vec::new();
        for gpu in fleet.nodes.iter().flat_map(|node| &node.gpus) {
            // A fleet has a handful of models.
            if let Sharing::Mig(table) = &gpu.sharing
                && !tables.contains(&table)
            {
                tables.push(table);
            }
        }
        tables.into_iter().map(|table| Self::new(demand, table)).collect()
    }

    fn new(demand: &Demand, geometry: &MigTable) -> Self {
        let mut weights: BTreeMap<usize, f64> = BTreeMap::new();
        for (request, count) in demand.iter() {
            if matches!(request.gpu, GpuRequest::Mig { .. } | GpuRequest::MigAtLeast { .. })
                && let Some((profile, _)) = mig_profile(geometry, &request.gpu)
            {
                *weights.entry(profile.into()).or_default() += count as f64;
            }
        }
        let items: Vec<Item> =
            weights.into_iter().map(|(profile, weight)| Item { profile, weight }).collect();
        let weights: Vec<f64> = items.iter().map(|item| item.weight).collect();
        let alone: Vec<f64> = items.iter().map(|item| alone(geometry, item.profile)).collect();
        let prices = shadow_prices(&weights, &alone, &|prices| {
            let worth = worth(geometry, &items, prices);
            let mut counts = vec![0.0; items.len()];
            let mut at = MigOccupancy::default();
            while let Some((item, start)) = worth.next[index(at)] {
                counts[item] += 1.0;
                at = at.with(&geometry.profiles[items[item].profile], start);
            }
            Pattern { worth: worth.value[0], counts }
        });
        let worth = worth(geometry, &items, &prices);
        let next = next_waste(geometry, &items, demand.len());
        let loss = |at: usize| {
            let free = free_milli(geometry, occupancy(at));
            let worth = f64::from(WHOLE_GPU_MILLI) * worth.value[at];
            Loss { holes: if items.is_empty() { 0.0 } else { free - worth }, next: next[at] }
        };
        Self { geometry: geometry.clone(), losses: (0..OCCUPANCIES).map(loss).collect() }
    }

    /// The loss at `occupied`.
    pub fn at(&self, occupied: MigOccupancy) -> Loss {
        self.losses[index(occupied)]
    }
}

/// Memory slices that are free, as thousandths of the GPU.
fn free_milli(geometry: &MigGeometry, occupied: MigOccupancy) -> f64 {
    let slices = f64::from(geometry.memory_slices);
    let taken = f64::from(occupied.slices.count_ones());
    f64::from(WHOLE_GPU_MILLI) * (slices - taken) / slices
}

/// For each occupancy, what is expected to stay unused when one more request of each profile
/// comes by; of an empty GPU nothing, so that a GPU in use is preferred where the long run is
/// indifferent.
fn next_waste(geometry: &MigGeometry, items: &[Item], requests: u64) -> Vec<f64> {
    let total = requests.max(1) as f64;
    let mut waste = vec![0.0; OCCUPANCIES];
    for at in (1..OCCUPANCIES).rev() {
        let occupied = occupancy(at);
        let (mut left, mut none) = (0.0, 1.0);
        for item in items {
            let profile = &geometry.profiles[item.profile];
            let after = geometry
                .legal_starts(occupied, profile)
                .map(|start| waste[index(occupied.with(profile, start))])
                .min_by(f64::total_cmp);
            if let Some(after) = after {
                left += item.weight / total * after;
                none -= item.weight / total;
            }
        }
        waste[at] = left + none * free_milli(geometry, occupied);
    }
    waste
}

/// How many instances of one profile a GPU holds.
fn alone(geometry: &MigGeometry, profile: usize) -> f64 {
    let profile = &geometry.profiles[profile];
    let mut occupied = MigOccupancy::default();
    let mut count = 0.0;
    while let Some(start) = geometry.legal_starts(occupied, profile).next() {
        occupied = occupied.with(profile, start);
        count += 1.0;
    }
    count
}

/// From the fullest occupancy down: more slices taken is a larger mask, so that what may follow
/// an occupancy is known before it.
fn worth(geometry: &MigGeometry, items: &[Item], prices: &[f64]) -> Worth {
    let mut value = vec![0.0; OCCUPANCIES];
    let mut next = vec![None; OCCUPANCIES];
    for at in (0..OCCUPANCIES).rev() {
        let occupied = occupancy(at);
        for (number, item) in items.iter().enumerate() {
            let profile = &geometry.profiles[item.profile];
            for start in geometry.legal_starts(occupied, profile) {
                let then = index(occupied.with(profile, start));
                if value[then] + prices[number] > value[at] + TOLERANCE {
                    value[at] = value[then] + prices[number];
                    next[at] = Some((number, start));
                }
            }
        }
    }
    Worth { value, next }
}

#[cfg(test)]
mod tests {
    use gpu_autoscaler_model::A100_40GB;

    use super::*;
    use crate::fleet::Isolation;
    use crate::request::{Links, Request};

    fn demand(of: &[(&str, u64)]) -> Demand {
        let mut demand = Demand::default();
        for &(profile, count) in of {
            let request = Request {
                cpu_milli: 0,
                memory_bytes: 0,
                gpu: GpuRequest::Mig { profile: profile.into() },
                models: Vec::new(),
                isolation: Isolation::None,
                links: Links::Any,
                extended: Vec::new(),
            };
            (0..count).for_each(|_| demand.observe(&request));
        }
        demand
    }

    fn after(placed: &[(&str, u8)]) -> MigOccupancy {
        placed.iter().fold(MigOccupancy::default(), |occupied, &(name, start)| {
            let profile = A100_40GB.profile_named(name).expect("in the table");
            occupied.with(&A100_40GB.profiles[profile], start)
        })
    }

    #[test]
    fn an_empty_gpu_has_lost_nothing_and_a_bad_start_loses_a_4g() {
        let losses = InstanceLosses::new(
            &demand(&[("4g.20gb", 5), ("1g.5gb", 10)]),
            &MigTable::Listed(&A100_40GB),
        );
        let holes = |placed: &[(&str, u8)]| losses.at(after(placed)).holes;
        assert!(holes(&[]).abs() < 1e-6);
        // At 6 the slice leaves 4g possible, at 0 it does not.
        assert!(holes(&[("1g.5gb", 6)]) + 100.0 < holes(&[("1g.5gb", 0)]));
    }

    #[test]
    fn two_3g_waste_nothing_that_is_asked_for() {
        let losses = InstanceLosses::new(&demand(&[("3g.20gb", 5)]), &MigTable::Listed(&A100_40GB));
        assert!(losses.at(after(&[("3g.20gb", 0)])).holes.abs() < 1e-6);
        // Where only 3g is asked for, a 1g in each half wastes the whole GPU.
        let broken = losses.at(after(&[("1g.5gb", 0), ("1g.5gb", 4)])).holes;
        assert!((broken - 750.0).abs() < 1e-6, "{broken}");
    }
}
