//! Which world a demo runs in.

use anyhow::{Context, Result};
use gpu_autoscaler_model::Timestamp;
use gpu_autoscaler_sim::{Faults, Workload, WorldSpec, mixed_cluster, openb};
use serde::Serialize;

use super::DemoArgs;

/// Where the workload of a demo is from.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase", tag = "workload")]
pub(crate) enum Origin {
    /// Drawn, distributed as in the openb trace.
    Generated,
    /// An openb trace.
    #[serde(rename_all = "camelCase")]
    Trace {
        /// GPU nodes in the whole trace.
        nodes: usize,
        /// GPU pods in the whole trace.
        pods: usize,
        /// Those that run at the start or come later.
        pods_taken: usize,
    },
}

/// A Monday morning: always the same, so that a run repeats.
const START: &str = "2026-01-05T08:00:00Z";

pub(crate) fn spec(args: &DemoArgs) -> Result<(WorldSpec, Origin)> {
    let start: Timestamp = START.parse().expect("the constant is RFC 3339");
    let faults = Faults::ORDINARY;
    let (Some(nodes_path), Some(pods_path)) = (&args.trace_nodes, &args.trace_pods) else {
        let spec = WorldSpec {
            seed: args.seed,
            start,
            nodes: mixed_cluster(args.seed, args.gpus),
            workload: Workload::Generated { occupancy: 0.8 },
            faults,
        };
        return Ok((spec, Origin::Generated));
    };
    let nodes = openb::parse_nodes(&super::read(nodes_path)?)
        .with_context(|| format!("read node list `{}`", nodes_path.display()))?;
    let pods = openb::parse_pods(&super::read(pods_path)?)
        .with_context(|| format!("read pod list `{}`", pods_path.display()))?;
    let spec = openb::world(args.seed, start, &nodes, &pods, args.gpus, faults);
    let pods_taken = match &spec.workload {
        Workload::Listed(arrivals) => arrivals.len(),
        Workload::Generated { .. } => 0,
    };
    let origin = Origin::Trace {
        nodes: nodes.iter().filter(|node| node.gpus > 0).count(),
        pods: pods.iter().filter(|pod| pod.gpus > 0).count(),
        pods_taken,
    };
    Ok((spec, origin))
}
