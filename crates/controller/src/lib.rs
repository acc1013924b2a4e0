//! The controller: everything around the loop.
//!
//! In: arguments, what the edges see. Out: effects performed by the leader, and what people and
//! programs read of it.
//!
//! # Invariants
//! - No decision and no arithmetic: those are `gpu_autoscaler_reconciler`'s.
//! - Every replica observes and answers; only the leader writes, and looks at its right to do so
//!   right before each write.
//! - Every queue, request and connection is bounded.
//! - Nothing is written before everything that exists was seen once.

pub mod api;
pub mod arguments;
pub mod backfill;
pub mod health;
pub mod http;
pub mod log;
pub mod metrics;
pub mod openapi;
pub mod page;
pub mod prometheus_flags;
pub mod routes;

mod clock;
mod connect;
mod faults;
mod performer;
#[cfg(test)]
mod reference;
mod run;
#[cfg(test)]
mod sample_view;
mod telemetry;
mod ticker;

pub use run::run;
