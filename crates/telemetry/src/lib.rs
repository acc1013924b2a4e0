//! Foreign measurements of GPUs turned into the model's samples.
//!
//! In: DCGM exporter's exposition text, scraped directly or asked of Prometheus, and the kubelet's
//! list of who holds which device. Out:
//! [`GpuSample`](gpu_autoscaler_model::GpuSample)s and a note on everything that was dropped.
//!
//! # Invariants
//! - Units end here: MiB, watts and percent become the model's quantities once, in [`dcgm`].
//! - A value that cannot be is dropped and noted, never bent; one bad line never costs another.
//! - Every input is bounded: size of a body, length of a line, labels of a series, time of a call.
//! - No threshold and no verdict: whether a GPU is idle is decided in `analysis`.
//! - Addresses are logged and reported without credentials, and files of secrets by name alone.
//! - A part that could not be read is named; it is never read as zero, nor as the whole.

#[cfg(feature = "client")]
pub mod connection;
pub mod dcgm;
pub mod exposition;
#[cfg(feature = "client")]
pub mod http;
#[cfg(feature = "node")]
pub mod pod_resources;
#[cfg(feature = "client")]
pub mod prometheus;
#[cfg(feature = "client")]
pub mod scrape;
