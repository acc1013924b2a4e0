//! Behaviour tests against real systems; one binary, so that it links once.

#![allow(missing_docs, reason = "a test binary has no users of its items")]

mod chart;
mod cli;
mod control_plane;
mod controller;
mod documents;
mod faults;
mod history;
mod metrics;
mod packing;
mod pod_resources;
mod prometheus;
mod release;
mod telemetry;
