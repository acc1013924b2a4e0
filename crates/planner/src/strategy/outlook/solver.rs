//! Shadow prices of a demand that is packed into GPUs: the dual of the covering relaxation, by
//! column generation on a dense basis.
//!
//! Source: Gilmore and Gomory, "A linear programming approach to the cutting-stock problem",
//! Operations Research 9 (1961).

/// Pivots after which the prices are taken as they are. The openb traces need a few dozen.
const PIVOTS_MAX: usize = 2_000;

/// A gain below this is rounding.
pub const TOLERANCE: f64 = 1e-9;

/// A pattern must gain at least this much, in GPUs, to be taken up.
const GAIN_MIN: f64 = 1e-7;

/// What one GPU can hold.
pub struct Pattern {
    /// The sum of its prices, in GPUs.
    pub worth: f64,
    /// How many of each item.
    pub counts: Vec<f64>,
}

/// The shadow price of each item, in GPUs, where `weights` says how many of each there are,
/// `alone` how many of one kind a GPU holds, and `dearest` finds the dearest pattern at given
/// prices. Weights are positive, and each item fits at least once.
pub fn shadow_prices(
    weights: &[f64],
    alone: &[f64],
    dearest: &dyn Fn(&[f64]) -> Pattern,
) -> Vec<f64> {
    let n = weights.len();
    // Column `j` of the basis is a pattern; at first, as many of item `j` as fit.
    let row = |row: usize| (0..n).map(|c| if c == row { 1.0 / alone[row] } else { 0.0 }).collect();
    let mut inverse: Vec<Vec<f64>> = (0..n).map(row).collect();
    let mut amounts: Vec<f64> = weights.iter().zip(alone).map(|(w, a)| w / a).collect();
    let mut prices: Vec<f64> = alone.iter().map(|a| 1.0 / a).collect();
    for _ in 0..PIVOTS_MAX {
        let pattern = dearest(&prices);
        if pattern.worth <= 1.0 + GAIN_MIN {
            break;
        }
        let entering: Vec<f64> = inverse
            .iter()
            .map(|row| row.iter().zip(&pattern.counts).map(|(a, b)| a * b).sum())
            .collect();
        let leaving = (0..n)
            .filter(|&row| entering[row] > TOLERANCE)
            .min_by(|&a, &b| (amounts[a] / entering[a]).total_cmp(&(amounts[b] / entering[b])));
        // Patterns are bounded, so that one leaves but for rounding.
        let Some(leaving) = leaving else { break };
        pivot(&mut inverse, &mut amounts, &entering, leaving);
        for (column, price) in prices.iter_mut().enumerate() {
            *price = inverse.iter().map(|row| row[column]).sum();
        }
    }
    prices
}

fn pivot(inverse: &mut [Vec<f64>], amounts: &mut [f64], entering: &[f64], leaving: usize) {
    let scale = entering[leaving];
    inverse[leaving].iter_mut().for_each(|value| *value /= scale);
    amounts[leaving] /= scale;
    let (row, amount) = (inverse[leaving].clone(), amounts[leaving]);
    for (index, &factor) in entering.iter().enumerate() {
        if index != leaving && factor != 0.0 {
            for (value, pivot) in inverse[index].iter_mut().zip(&row) {
                *value -= factor * pivot;
            }
            amounts[index] -= factor * amount;
        }
    }
}
