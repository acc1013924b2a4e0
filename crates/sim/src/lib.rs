//! A seeded world in virtual time that drives the very loop that drives a live cluster.
//!
//! In: a [`WorldSpec`] (machines, workload, faults, a seed) and the effects of the loop. Out: what
//! an observer of that world is told, in the types of the model room; and, apart from that, the
//! truth.
//!
//! # Invariants
//! - Equal specifications that are driven alike give equal worlds, to the byte.
//! - Nothing here reads a clock, opens a socket or a file: text of traces comes in as text.
//! - The truth is computed from the curves, never from samples, and shares no code with the
//!   analysis that it is compared with.
//! - There is no second planner here: the world does what effects say and decides nothing else.

mod api;
pub mod catalog;
mod chance;
mod compare;
mod curve;
mod exporter;
mod faults;
mod node;
pub mod openb;
mod planted;
mod pod;
mod reading;
mod run;
mod spec;
mod truth;
mod workload;
mod world;

pub use api::{EVENT_TTL, StoredEvent};
pub use chance::Chance;
pub use compare::{Comparison, Mistake, compare};
pub use curve::{Curve, Load};
pub use faults::Faults;
pub use node::REGION;
pub use planted::{Planting, planted};
pub use pod::PodId;
pub use run::{Driver, GATHER, Receipts, Standing, Tally};
pub use spec::{
    Ailment, Counter, ExporterSpec, HostLabel, Layout, NodeSpec, WorldSpec, mixed_cluster,
};
pub use truth::{PodTruth, Rule, TrueUse, Truth};
pub use workload::{Arrival, Job, Snag, Workload};
pub use world::World;
