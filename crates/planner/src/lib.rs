//! Packs pods on GPUs.
//!
//! In: the fleet with what each node has left, the pods that wait, and the distribution of
//! requests that is expected. Out: for each pod a node and its devices, or a refusal that names
//! the reason, the value and the limit.
//!
//! A pod that waits comes by [`observe`], where its claims are looked up in [`storage`] and
//! [`devices`]. [`place`] takes pods in turn; for each kind of pod a [`board`] keeps which nodes
//! are feasible ([`fit`], [`neighbors`]) and what each costs by the [`strategy`]. What finds no
//! place is told by [`refusal`], and [`check`] re-verifies the plan by code of its own.
//!
//! # Invariants
//! - Pure: no clock, randomness, IO, environment or threads; the same input gives the same plan.
//! - A plan holds whatever the kubelet picks: where a device plugin picks the GPU, only counts
//!   of equal devices are planned.
//! - What the model does not cover exactly is not placed, and the refusal says so.

pub mod fleet;
pub mod request;

pub mod sharing;

pub mod observe;

pub mod catalog;
pub mod claims;
pub mod devices;
pub mod storage;

pub mod place;
pub mod repack;

pub mod demand;
pub mod strategy;

pub mod board;
pub mod fit;
pub mod neighbors;
pub mod refusal;

pub mod check;

#[cfg(test)]
mod tests;
