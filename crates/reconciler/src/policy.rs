//! What the administrator wants.

use std::sync::Arc;
use std::time::Duration;

use gpu_autoscaler_analysis::Thresholds;
use gpu_autoscaler_model::{CapacityType, PriceBook, Ratio};

/// What the administrator wants, apart from what stands in the cluster's own policy objects.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// What counts as waste.
    pub waste: Thresholds,
    /// Mean activity below which a node counts as underutilized. Published: 0.2, the default of
    /// `scaleDownThreshold`.
    pub node_underutilized_below: Ratio,
    /// How often waste is judged. Published: 30 s.
    pub judge_every: Duration,
    /// What instances cost.
    pub prices: Arc<PriceBook>,
    /// How a node is taken to be paid for when no label says so; `None` leaves it unpriced.
    pub capacity_type_unlabeled: Option<CapacityType>,
    /// How long an effect is taken for done without being observed.
    pub effect_deadline: Duration,
    /// Longest pause between two attempts at an effect that was refused or not answered; it doubles
    /// from attempt to attempt.
    pub retry_max: Duration,
    /// Shortest pause after a refusal.
    pub refused_retry_min: Duration,
    /// Shortest and longest pause between two placements of the pods that wait; it grows with the
    /// nodes that were examined.
    pub placing_pause_min: Duration,
    /// See `placing_pause_min`.
    pub placing_pause_max: Duration,
    /// The most nodes that one placement examines, once for each kind of pod.
    pub placing_examined_max: u64,
    /// How far ahead of ours the clock of a sample may be.
    pub clock_ahead_max: Duration,
}

impl Policy {
    /// The published thresholds and list prices; unlabeled nodes count as on-demand, which is what
    /// every cloud starts when nothing is said.
    pub fn published() -> Self {
        Self {
            waste: Thresholds::published(),
            node_underutilized_below: Ratio::new(0.2).expect("within 0 and 1"),
            judge_every: Duration::from_secs(30),
            prices: Arc::new(PriceBook::listed()),
            capacity_type_unlabeled: Some(CapacityType::OnDemand),
            effect_deadline: Duration::from_secs(60),
            retry_max: Duration::from_secs(60),
            refused_retry_min: Duration::from_secs(4),
            placing_pause_min: Duration::from_millis(100),
            placing_pause_max: Duration::from_secs(10),
            placing_examined_max: 200_000,
            clock_ahead_max: Duration::from_secs(10),
        }
    }
}
