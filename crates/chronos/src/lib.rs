//! Time-limited partitions of the GPUs of one machine.
//!
//! A request for a share of some GPUs goes in; a lease comes out, with a deadline that is kept
//! whether or not the program that asked for it still lives. There is no resident daemon: state is
//! a journal of events in the runtime directory, and whoever comes next (a guard, a supervisor, a
//! timer, another user's command) takes up what is due.
//!
//! # Invariants
//! * No GPU is promised beyond what it has.
//! * Every lease ends.
//! * A lease that was acknowledged is not lost.
//! * No process outside a lease is signalled.
//!
//! `tests/it/model.rs` kills the engine at random steps a million times and holds it to these four.
//! What decides is pure and takes time as an argument; what acts is under [`os`], and nowhere else.
//! There is no network here, no Kubernetes and no asynchronous runtime.

pub mod api;
pub mod audit;
pub mod book;
pub mod calendar;
#[doc(hidden)]
pub mod chance;
pub mod cli;
pub mod engine;
pub mod expiry;
pub mod holding;
pub mod index;
pub mod journal;
pub mod lease;
pub mod os;
mod packed;
pub mod planner;
pub mod policy;
pub mod preemption;
pub mod profile;
pub mod quantity;
pub mod queue;
pub mod refusal;
pub mod size;
pub mod suspension;
pub mod wanted;
pub mod warning;
pub mod world;

pub use gpu_autoscaler_model::{Bytes, Timestamp};
