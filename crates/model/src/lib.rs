//! Nouns and units shared by every room of GPU Autoscaler and Chronos.
//!
//! In: nothing. Out: the types in which the stages of the data path speak to each other:
//! telemetry -> analysis -> planner -> reconciler -> ledger.
//!
//! # Invariants
//! - Every quantity carries its unit in its type; a raw number ends at the parser that read it.
//! - Money is an integer. Unknown is `None`, never zero and never NaN.
//! - Nothing here performs IO, reads a clock or decides: there is no threshold in this crate.
//! - Nothing here knows the wire format of Kubernetes, Prometheus or a cloud.

mod charge;
mod cluster;
pub mod consent;
mod constraint;
mod delta;
mod device;
mod effect;
mod finding;
mod gpu;
mod hardware;
mod history;
mod id;
mod mig;
mod money;
mod price;
mod price_table;
mod quantity;
mod recommendation;
mod refusal;
mod request;
mod sample;
mod sketch;
mod storage;
mod time;
mod view;

pub use charge::*;
pub use cluster::*;
pub use constraint::*;
pub use delta::*;
pub use device::*;
pub use effect::*;
pub use finding::*;
pub use gpu::*;
pub use hardware::*;
pub use history::*;
pub use id::*;
pub use mig::*;
pub use money::*;
pub use price::*;
pub use quantity::*;
pub use recommendation::*;
pub use refusal::*;
pub use request::*;
pub use sample::*;
pub use sketch::*;
pub use storage::*;
pub use time::*;
pub use view::*;
