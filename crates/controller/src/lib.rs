//! The controller: everything around the loop.
//!
//! In: arguments, what the edges see. Out: effects performed by the leader, and what people and
//! programs read of it.
//!
//! # Invariants
//! - No decision and no arithmetic: those are `gpu_autoscaler_reconciler`'s.

pub mod api;
pub mod page;
