//! What the benchmarks share: readers of the openb trace and the replay of arrivals.

pub mod replay;
pub mod trace;
