//! What the rest of a partly used GPU is worth.
//!
//! Cutting GPUs into the shares that are asked for is the cutting-stock problem. Its linear
//! relaxation gives each share size a shadow price, in GPUs: what one more request of that size
//! costs when all are packed in the long run as well as they can be. A hole is worth the dearest
//! set of requests that fits into it; the rest of it is waste. So a hole into which only sizes
//! fit that are plentiful already is worth nothing, however many could be put there.
//!
//! Source: Gilmore and Gomory, "A linear programming approach to the cutting-stock problem",
//! Operations Research 9 (1961); prices as a guide for packing on line: Gupta and Radovanović,
//! "Interior-point-based online stochastic bin packing", Operations Research 68 (2020).

use super::solver::{Pattern, TOLERANCE, shadow_prices};
use crate::fleet::WHOLE_GPU_MILLI;

/// Holes are from 0 to this many thousandths of a GPU.
pub const HOLE_MAX: usize = WHOLE_GPU_MILLI as usize;

/// The most sizes that are priced apart; more are rounded up to a coarser grid.
///
/// A step of the solver costs the square of this, and a finer grid than 1.6 % of a GPU finds no
/// better patterns that requests of that variety could keep to.
const SIZES_MAX: usize = 64;

/// A share size, and how often it is asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ShareSize {
    /// Thousandths of a GPU, 1 to 999.
    pub milli: u16,
    /// Relative frequency; more than 0.
    pub weight: f64,
}

/// The waste in a hole of each size from 0 to 1000 thousandths, in thousandths: the hole less
/// the worth of the requests that fit into it. Nothing of a whole GPU is waste, and a hole whose
/// worth is more than its size (half a GPU for a request of 470) has a waste below 0.
///
/// `sizes` is ascending, each size once.
pub fn hole_waste(sizes: &[ShareSize]) -> Vec<f64> {
    let sizes = on_grid(sizes);
    let prices = prices_of(&sizes);
    let worth = hole_worth(&sizes, &prices);
    let whole = f64::from(WHOLE_GPU_MILLI);
    let waste = |hole: usize| {
        if hole == HOLE_MAX { 0.0 } else { hole as f64 - whole * worth.value[hole] }
    };
    (0..=HOLE_MAX).map(waste).collect()
}

fn on_grid(sizes: &[ShareSize]) -> Vec<ShareSize> {
    if sizes.len() <= SIZES_MAX {
        return sizes.to_vec();
    }
    let step = WHOLE_GPU_MILLI.div_ceil(SIZES_MAX as u16);
    let mut merged: Vec<ShareSize> = Vec::new();
    for size in sizes {
        let milli = (size.milli.div_ceil(step) * step).min(WHOLE_GPU_MILLI - 1);
        match merged.last_mut() {
            Some(last) if last.milli == milli => last.weight += size.weight,
            _ => merged.push(ShareSize { milli, ..*size }),
        }
    }
    merged
}

/// For each hole, the worth of the dearest set of requests in it and the request taken last.
struct Worth {
    value: Vec<f64>,
    taken: Vec<Option<usize>>,
}

fn hole_worth(sizes: &[ShareSize], prices: &[f64]) -> Worth {
    let mut value = vec![0.0; HOLE_MAX + 1];
    let mut taken = vec![None; HOLE_MAX + 1];
    for hole in 1..=HOLE_MAX {
        value[hole] = value[hole - 1];
        for (index, size) in sizes.iter().enumerate() {
            let milli = usize::from(size.milli);
            if milli <= hole && value[hole - milli] + prices[index] > value[hole] + TOLERANCE {
                value[hole] = value[hole - milli] + prices[index];
                taken[hole] = Some(index);
            }
        }
    }
    Worth { value, taken }
}

/// The shadow price of each size, in GPUs.
fn prices_of(sizes: &[ShareSize]) -> Vec<f64> {
    let weights: Vec<f64> = sizes.iter().map(|size| size.weight).collect();
    let alone: Vec<f64> =
        sizes.iter().map(|size| f64::from(WHOLE_GPU_MILLI / size.milli)).collect();
    shadow_prices(&weights, &alone, &|prices| {
        let worth = hole_worth(sizes, prices);
        Pattern { worth: worth.value[HOLE_MAX], counts: pattern_of(&worth, sizes) }
    })
}

fn pattern_of(worth: &Worth, sizes: &[ShareSize]) -> Vec<f64> {
    let mut pattern = vec![0.0; sizes.len()];
    let mut hole = HOLE_MAX;
    while hole > 0 {
        match worth.taken[hole] {
            Some(index) => {
                pattern[index] += 1.0;
                hole -= usize::from(sizes[index].milli);
            }
            None => hole -= 1,
        }
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(list: &[(u16, f64)]) -> Vec<ShareSize> {
        list.iter().map(|&(milli, weight)| ShareSize { milli, weight }).collect()
    }

    #[test]
    fn a_scarce_partner_makes_a_hole_worth_something_a_plentiful_one_nothing() {
        // One 300 for every two 700: every 300 finds a hole, so holes of 300 are waste at the
        // margin.
        let waste = hole_waste(&sizes(&[(300, 1.0), (700, 2.0)]));
        assert_eq!(waste[300], 300.0);
        // Two 300 for every 700: a hole of 300 saves a third of a GPU.
        let waste = hole_waste(&sizes(&[(300, 2.0), (700, 1.0)]));
        assert!((waste[300] - (300.0 - 1000.0 / 3.0)).abs() < 1e-6);
        assert_eq!(waste[299], 299.0);
    }

    #[test]
    fn prices_pack_every_pattern_to_at_most_one_gpu_and_the_demand_tightly() {
        // The default openb trace; the optimum of the relaxation, 1964.6 GPUs, was found with
        // HiGHS as well.
        let demand = sizes(&[
            (50, 7.0),
            (110, 24.0),
            (140, 1.0),
            (160, 74.0),
            (220, 62.0),
            (230, 140.0),
            (270, 4.0),
            (290, 1.0),
            (320, 328.0),
            (330, 7.0),
            (350, 6.0),
            (370, 47.0),
            (440, 2.0),
            (460, 128.0),
            (470, 750.0),
            (480, 19.0),
            (550, 72.0),
            (590, 75.0),
            (650, 253.0),
            (810, 1078.0),
        ]);
        let prices = prices_of(&demand);
        assert!(hole_worth(&demand, &prices).value[HOLE_MAX] <= 1.0 + 1e-6);
        let total: f64 = demand.iter().zip(&prices).map(|(size, price)| size.weight * price).sum();
        assert!((total - 1964.6).abs() < 0.05, "{total}");
    }

    #[test]
    fn no_share_at_all_makes_every_hole_waste() {
        let waste = hole_waste(&[]);
        assert_eq!((waste[0], waste[500], waste[1000]), (0.0, 500.0, 0.0));
    }

    #[test]
    fn a_thousand_sizes_are_priced_on_a_grid() {
        let all: Vec<_> = (1..1000).map(|milli| ShareSize { milli, weight: 1.0 }).collect();
        let waste = hole_waste(&all);
        let worth: Vec<f64> = waste.iter().enumerate().map(|(hole, w)| hole as f64 - w).collect();
        assert!(worth.windows(2).all(|pair| pair[0] <= pair[1]), "a larger hole is worth more");
        assert!((worth[500] - 500.0).abs() < 30.0, "{}", worth[500]);
    }
}
