//! What it costs to use up what only some of the requests to come can use: nodes of a shape that
//! they are restricted to, and nodes with enough free GPUs for those that ask for several.
//!
//! The shape of a node is what it is when it is empty: its GPU model and how much of everything
//! it has. A request may be restricted to few shapes by the model that it names or by its size.
//!
//! The horizon is saturation: requests are expected until the GPUs that are free now are used
//! up. Near saturation few more are expected, and the prices let go by themselves.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::demand::Demand;
use crate::fleet::{Fleet, GPUS_PER_NODE_MAX, Node, WHOLE_GPU_MILLI};
use crate::request::{GpuRequest, Request};

/// Millionths of a GPU in a thousandth of one.
pub const MICRO_PER_MILLI: f64 = 1_000.0;

/// Rounds in which restricted demand is spread over the shapes that it may use. The spread only
/// has to be better than the sampling error of the demand, and halves its error every few rounds.
const SPREAD_ROUNDS: usize = 24;

/// The most shapes that are told apart; the bits of a [`ShapeSet`].
const SHAPES_MAX: usize = 64;

/// A set of shapes, one bit for each position in the list of shapes.
type ShapeSet = u64;

/// What a node is when it is empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Shape {
    model: Arc<str>,
    gpus: usize,
    cpu_milli: u64,
    memory_bytes: u64,
}

impl Shape {
    fn of(node: &Node) -> Self {
        Self {
            model: node.gpu_model.clone(),
            gpus: node.gpus.len(),
            cpu_milli: node.allocatable.cpu_milli,
            memory_bytes: node.allocatable.memory_bytes,
        }
    }

    fn is_of_a_model_of(&self, request: &Request) -> bool {
        request.models.is_empty() || request.models.contains(&self.model)
    }

    /// The part of the node that `request` takes, as thousandths of a GPU: by GPU, of which it
    /// takes `milli`, by processor or by host memory, whichever is most.
    fn taken(&self, request: &Request, milli: f64) -> f64 {
        let part = |asked: u64, of: u64| if of > 0 { asked as f64 / of as f64 } else { 0.0 };
        let most = part(request.cpu_milli, self.cpu_milli)
            .max(part(request.memory_bytes, self.memory_bytes));
        milli.max(most * (self.gpus * usize::from(WHOLE_GPU_MILLI)) as f64)
    }

    /// Whether a node of this shape, when it is empty, can serve `request`.
    fn serves(&self, request: &Request) -> bool {
        let gpus = match request.gpu {
            GpuRequest::None => 0,
            GpuRequest::Whole { count } => usize::from(count),
            _ => 1,
        };
        self.is_of_a_model_of(request)
            && gpus <= self.gpus
            && request.cpu_milli <= self.cpu_milli
            && request.memory_bytes <= self.memory_bytes
    }
}

/// The parts of the demand that not every GPU can serve.
#[derive(Clone, Debug)]
pub struct ScarceDemand {
    /// The shapes of the fleet, sorted; further ones than can be told apart count as the last.
    shapes: Vec<Shape>,
    /// Mean thousandths of GPU of a request, those without GPU included.
    mean_milli: f64,
    restricted: Vec<Restricted>,
    multiple: Vec<Multiple>,
}

/// Requests that are restricted to the same shapes.
#[derive(Clone, Debug)]
struct Restricted {
    shapes: ShapeSet,
    /// For each shape, the thousandths of GPU for each request of the whole demand.
    milli: Vec<f64>,
    /// The same, squared before the mean.
    milli_squared: Vec<f64>,
}

/// Requests for the same number of whole GPUs on the same shapes.
#[derive(Clone, Debug)]
struct Multiple {
    shapes: ShapeSet,
    count: usize,
    /// Part of the demand.
    part: f64,
}

/// What a node adds to the [`Survey`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeSurvey {
    /// Position of its shape.
    pub shape: u8,
    /// Thousandths of GPU that are free and not lost.
    pub usable_milli: u32,
    /// Fully free GPUs.
    pub gpus_free: u8,
}

/// What the fleet has left, by shape.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    usable_milli: Vec<u64>,
    /// For each shape, how many nodes have so many free GPUs.
    nodes_by_free: Vec<[u32; GPUS_PER_NODE_MAX + 1]>,
}

impl Survey {
    /// Nothing left of so many shapes.
    pub fn new(shapes: usize) -> Self {
        Self {
            usable_milli: vec![0; shapes],
            nodes_by_free: vec![[0; GPUS_PER_NODE_MAX + 1]; shapes],
        }
    }

    /// Adds a node.
    pub fn add(&mut self, node: NodeSurvey) {
        self.usable_milli[usize::from(node.shape)] += u64::from(node.usable_milli);
        self.nodes_by_free[usize::from(node.shape)][usize::from(node.gpus_free)] += 1;
    }

    /// Takes away a node that was added with the same figures.
    pub fn remove(&mut self, node: NodeSurvey) {
        self.usable_milli[usize::from(node.shape)] -= u64::from(node.usable_milli);
        self.nodes_by_free[usize::from(node.shape)][usize::from(node.gpus_free)] -= 1;
    }

    /// Usable thousandths of GPU over all shapes.
    pub fn usable_total(&self) -> u64 {
        self.usable_milli.iter().sum()
    }

    fn slots(&self, shapes: ShapeSet, count: usize) -> u64 {
        let allowed = (0..self.nodes_by_free.len()).filter(|&s| shapes >> s & 1 == 1);
        let of = |model: usize| {
            let nodes = self.nodes_by_free[model].iter().enumerate();
            nodes.map(|(free, &nodes)| u64::from(nodes) * (free / count) as u64).sum::<u64>()
        };
        allowed.map(of).sum()
    }
}

/// Prices of scarce things at one moment, in millionths of a GPU.
#[derive(Clone, Debug, Default)]
pub struct Prices {
    /// For each shape, the price of one thousandth of a GPU.
    pub per_milli: Vec<f64>,
    /// For each shape, the price of breaking a place for `count` GPUs: (count, price).
    breaking: Vec<Vec<(usize, f64)>>,
}

impl Prices {
    /// The price of taking `taken` of `free` free GPUs of a node of `shape`.
    pub fn of_breaking(&self, shape: usize, free: usize, taken: usize) -> f64 {
        let lost = |count: usize| (free / count - (free - taken) / count) as f64;
        self.breaking[shape].iter().map(|&(count, price)| price * lost(count)).sum()
    }
}

impl ScarceDemand {
    /// The scarce part of `demand` on `fleet`, where a request takes `worth` thousandths of GPU.
    pub fn new(demand: &Demand, fleet: &Fleet, worth: &dyn Fn(&Request) -> f64) -> Self {
        let mut shapes: Vec<Shape> = fleet.nodes.iter().map(|node| Shape::of(node)).collect();
        shapes.sort();
        shapes.dedup();
        shapes.truncate(SHAPES_MAX);
        let total = demand.len().max(1) as f64;
        let set = |wanted: &dyn Fn(&Shape) -> bool| -> ShapeSet {
            let positions = (0..shapes.len()).filter(|&position| wanted(&shapes[position]));
            positions.fold(0, |set, position| set | 1 << position)
        };
        let all = set(&|shape| shape.gpus > 0);
        let mut restricted: BTreeMap<ShapeSet, Restricted> = BTreeMap::new();
        let mut multiple: BTreeMap<(ShapeSet, usize), f64> = BTreeMap::new();
        let mut milli_sum = 0.0;
        for (request, count) in demand.iter() {
            let (milli, part) = (worth(request), count as f64 / total);
            milli_sum += milli * part;
            let served = set(&|shape| shape.serves(request)) & all;
            let takes_gpus = milli > 0.0 || request.gpu_milli() > 0;
            if served == 0 || !takes_gpus {
                continue;
            }
            let by_model = set(&|shape| shape.is_of_a_model_of(request)) & all;
            if by_model != all {
                let entry = restricted.entry(served).or_insert_with(|| Restricted {
                    shapes: served,
                    milli: vec![0.0; shapes.len()],
                    milli_squared: vec![0.0; shapes.len()],
                });
                for (position, shape) in shapes.iter().enumerate() {
                    let taken = shape.taken(request, milli);
                    entry.milli[position] += taken * part;
                    entry.milli_squared[position] += taken * taken * part;
                }
            }
            if let GpuRequest::Whole { count: gpus @ 2.. } = request.gpu {
                *multiple.entry((served, usize::from(gpus))).or_default() += part;
            }
        }
        Self {
            shapes,
            mean_milli: milli_sum,
            restricted: restricted.into_values().collect(),
            multiple: multiple
                .into_iter()
                .map(|((shapes, count), part)| Multiple { shapes, count, part })
                .collect(),
        }
    }

    /// How many shapes there are.
    pub fn shapes(&self) -> usize {
        self.shapes.len()
    }

    /// The position of the shape of `node`.
    pub fn shape_of(&self, node: &Node) -> u8 {
        let at = self.shapes.binary_search(&Shape::of(node));
        // At most `SHAPES_MAX` shapes.
        at.unwrap_or(self.shapes.len() - 1) as u8
    }

    /// Whether everything can serve every request, so that all prices are always zero.
    pub fn is_empty(&self) -> bool {
        self.restricted.is_empty() && self.multiple.is_empty()
    }

    /// Requests that are expected until what is usable is used up.
    pub fn requests_to_saturation(&self, survey: &Survey) -> f64 {
        if self.mean_milli > 0.0 { survey.usable_total() as f64 / self.mean_milli } else { 0.0 }
    }

    /// The prices when `survey` is left.
    pub fn prices(&self, survey: &Survey) -> Prices {
        let expected = self.requests_to_saturation(survey);
        Prices {
            per_milli: self.shape_prices(survey, expected),
            breaking: self.breaking_prices(survey, expected),
        }
    }

    /// A thousandth of a GPU of a shape is lost to a restricted request with the probability
    /// that the restricted requests to come need more than is left of the shape.
    fn shape_prices(&self, survey: &Survey, expected: f64) -> Vec<f64> {
        let loads = self.spread(survey, expected);
        let whole = f64::from(WHOLE_GPU_MILLI);
        let price = |shape: usize| {
            let (load, variance) = loads[shape];
            let left = survey.usable_milli[shape] as f64;
            // A shape of which nothing is left has no price; the deviation is at least that of
            // one request.
            let deviation = variance.sqrt().max(whole);
            if load == 0.0 { 0.0 } else { normal((load - left) / deviation) * MICRO_PER_MILLI }
        };
        (0..self.shapes.len()).map(price).collect()
    }

    /// The expected restricted load of each shape and its variance, with each restricted part
    /// spread over its shapes so that the largest ratio of load to what is left is small.
    fn spread(&self, survey: &Survey, expected: f64) -> Vec<(f64, f64)> {
        let left: Vec<f64> = survey.usable_milli.iter().map(|&milli| milli as f64 + 1.0).collect();
        let mut parts: Vec<Vec<(usize, f64)>> = Vec::new();
        for restricted in &self.restricted {
            let shapes = (0..self.shapes.len()).filter(|&s| restricted.shapes >> s & 1 == 1);
            let mut part: Vec<(usize, f64)> = shapes.map(|shape| (shape, left[shape])).collect();
            normalize(&mut part);
            parts.push(part);
        }
        let loads = |parts: &[Vec<(usize, f64)>], of: fn(&Restricted) -> &[f64]| {
            let mut loads = vec![0.0; self.shapes.len()];
            for (restricted, part) in self.restricted.iter().zip(parts) {
                for &(shape, share) in part {
                    loads[shape] += share * of(restricted)[shape] * expected;
                }
            }
            loads
        };
        for _ in 0..SPREAD_ROUNDS {
            let load = loads(&parts, |restricted| &restricted.milli);
            for part in &mut parts {
                for (shape, share) in part.iter_mut() {
                    // A shape with twice the ratio keeps about 70 % of its share.
                    *share /= (load[*shape] / left[*shape]).max(1e-6).sqrt();
                }
                normalize(part);
            }
        }
        let mean = loads(&parts, |restricted| &restricted.milli);
        let variance = loads(&parts, |restricted| &restricted.milli_squared);
        mean.into_iter().zip(variance).collect()
    }

    /// A place for several GPUs that is broken up costs the request for which none is left.
    fn breaking_prices(&self, survey: &Survey, expected: f64) -> Vec<Vec<(usize, f64)>> {
        let mut breaking = vec![Vec::new(); self.shapes.len()];
        for multiple in &self.multiple {
            let slots = survey.slots(multiple.shapes, multiple.count);
            let lost = poisson_at_least(slots, expected * multiple.part);
            let price = lost * multiple.count as f64 * f64::from(WHOLE_GPU_MILLI) * MICRO_PER_MILLI;
            if price < 1.0 {
                continue;
            }
            for (shape, breaking) in breaking.iter_mut().enumerate() {
                if multiple.shapes >> shape & 1 == 1 {
                    breaking.push((multiple.count, price));
                }
            }
        }
        breaking
    }
}

fn normalize(part: &mut [(usize, f64)]) {
    let sum: f64 = part.iter().map(|&(_, share)| share).sum();
    part.iter_mut().for_each(|(_, share)| *share /= sum);
}

/// The probability that a normal variable is below `z`, to two decimals.
///
/// Source: the logistic approximation with factor 1.702 (Camilli, 1994).
fn normal(z: f64) -> f64 {
    1.0 / (1.0 + (-1.702 * z).exp())
}

/// The probability that a Poisson variable of this mean is at least `least`.
fn poisson_at_least(least: u64, mean: f64) -> f64 {
    if least == 0 {
        return 1.0;
    }
    if mean > 500.0 {
        return normal((mean - least as f64 + 0.5) / mean.sqrt());
    }
    let mut term = (-mean).exp();
    let mut below = 0.0;
    for count in 0..least {
        below += term;
        term *= mean / (count + 1) as f64;
        if term < 1e-18 && (count as f64) > mean {
            break;
        }
    }
    (1.0 - below).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn poisson_tail_matches_known_values() {
        assert_eq!(poisson_at_least(0, 3.0), 1.0);
        assert!((poisson_at_least(1, 1.0) - 0.632_12).abs() < 1e-5);
        assert!((poisson_at_least(5, 2.5) - 0.108_82).abs() < 1e-5);
        assert!((poisson_at_least(600, 600.0) - 0.505).abs() < 0.01);
        assert!(poisson_at_least(100, 10.0) < 1e-12);
    }

    #[test]
    fn breaking_a_place_costs_only_where_a_place_is_lost() {
        let prices = Prices { per_milli: vec![0.0], breaking: vec![vec![(8, 5.0), (4, 1.0)]] };
        assert_eq!(prices.of_breaking(0, 8, 1), 6.0);
        assert_eq!(prices.of_breaking(0, 7, 1), 0.0);
        assert_eq!(prices.of_breaking(0, 4, 1), 1.0);
        assert_eq!(prices.of_breaking(0, 8, 8), 7.0);
    }
}
