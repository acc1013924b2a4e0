//! The cluster edge: Kubernetes objects into `model`, and effects into the cluster.
//!
//! In: what an API server or a dump says. Out: `model::Delta`, and a `model::Receipt` for every
//! effect.
//!
//! # Invariants
//! - One malformed object is one [`decode::ObjectError`]; it never stops a stream or a dump.
//! - No Kubernetes object is kept whole: what is read goes straight into `model`.
//! - Without the feature `client` there is no network stack and no async runtime: the decoding
//!   half serves the command line and the fuzz targets.
//! - Nothing is decided here. An effect is performed as it is told, under its precondition, or
//!   not at all.

#[cfg(feature = "client")]
pub mod api;
#[cfg(feature = "client")]
pub mod connect;
pub mod convert;
#[cfg(feature = "client")]
pub mod crd;
pub mod decode;
pub mod dump;
#[cfg(feature = "client")]
pub mod effects;
#[cfg(feature = "client")]
pub mod election;
#[cfg(feature = "client")]
pub mod lint;
pub mod manifest;
pub mod quantity;
pub mod sense;
#[cfg(feature = "client")]
pub mod snapshot;
#[cfg(feature = "client")]
pub mod watch;

#[cfg(feature = "client")]
mod backoff;
mod intern;
mod node_labels;
mod requests;
#[cfg(all(test, feature = "client"))]
mod scripted;
mod wire;

/// Group and version of our own resources.
pub const API_VERSION: &str = "gpu-autoscaler.io/v1alpha1";

/// What our Events carry as `reportingComponent`: they are told from others by it.
pub const REPORTING_COMPONENT: &str = "gpu-autoscaler.io/controller";
