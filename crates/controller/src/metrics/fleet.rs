//! Gauges of the fleet: read from the last view when they are scraped, so that what is not known
//! any more is absent at once.

use std::fmt;
use std::sync::Arc;

use gpu_autoscaler_model::{Currency, FindingKind, Money, Rate, Ratio, View};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use tokio::sync::watch;

/// A gauge.
struct Fact {
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
    read: fn(&View) -> Vec<Sample>,
}

/// The values of the labels, in their order, and the value.
type Sample = (Vec<String>, f64);

const FACTS: [Fact; 14] = [
    Fact {
        name: "dcgm_up",
        help: "1 when the DCGM exporter of a GPU node was read recently, else 0",
        labels: &["node"],
        read: |view| {
            let nodes = view.nodes.iter();
            nodes.map(|n| (vec![n.name.to_string()], flag(n.exporter_up))).collect()
        },
    },
    Fact {
        name: "gpu_autoscaler_node_count",
        help: "Nodes with GPUs",
        labels: &["capacity_type"],
        read: |view| {
            let sums = view.totals.by_capacity_type.iter();
            sums.map(|sum| (vec![capacity_type(sum)], sum.nodes.into())).collect()
        },
    },
    Fact {
        name: "gpu_autoscaler_underutilized_nodes",
        help: "Nodes whose GPUs are all measured and less than 20 % active; absent while none is",
        labels: &[],
        read: |view| only(view.totals.nodes_underutilized.map(f64::from)),
    },
    Fact {
        name: "gpu_autoscaler_cluster_utilization",
        help: "Mean activity of measured GPUs, GPU instances by the part that they are, 0 to 1; \
            absent while none is measured",
        labels: &[],
        read: |view| only(view.totals.utilization.map(Ratio::as_f64)),
    },
    Fact {
        name: "gpu_autoscaler_pending_pods",
        help: "GPU pods that are not bound to a node",
        labels: &[],
        read: |view| one(view.pods.iter().filter(|pod| pod.node.is_none()).count()),
    },
    Fact {
        name: "gpu_autoscaler_estimated_monthly_cost_usd",
        help: "What the GPU nodes with a known price cost in 720 hours; absent while no price is \
            known",
        labels: &["capacity_type"],
        read: |view| {
            let sums = view.totals.by_capacity_type.iter();
            let known = sums.filter_map(|sum| {
                let none = (sum.nodes == 0).then_some(0.0);
                Some((vec![capacity_type(sum)], sum.cost.and_then(monthly_usd).or(none)?))
            });
            known.collect()
        },
    },
    Fact {
        name: "gpu_autoscaler_estimated_monthly_savings_usd",
        help: "What standing findings would save in 720 hours; absent while not known",
        labels: &[],
        read: |view| only(view.totals.saving.and_then(monthly_usd)),
    },
    Fact {
        name: "gpu_autoscaler_unpriced_nodes",
        help: "Nodes with GPUs and without a known price",
        labels: &[],
        read: |view| only(Some(view.totals.nodes_unpriced.into())),
    },
    Fact {
        name: "gpu_autoscaler_unpriced_findings",
        help: "Findings whose saving is not known",
        labels: &[],
        read: |view| only(Some(view.totals.findings_unpriced.into())),
    },
    Fact {
        name: "gpu_autoscaler_pod_waste_score",
        help: "Waste score of a measured GPU pod, 0 to 100",
        labels: &["namespace", "pod"],
        read: |view| {
            let known = view.pods.iter().filter_map(|pod| {
                let name = vec![pod.pod.namespace.to_string(), pod.pod.name.to_string()];
                Some((name, pod.score?.total()))
            });
            known.collect()
        },
    },
    Fact {
        name: "gpu_autoscaler_waste_findings",
        help: "Findings that stand: pods that waste GPUs, devices that are throttled or sick",
        labels: &["kind"],
        read: |view| {
            let pods = |kind| view.findings.iter().filter(|f| f.kind == kind).count();
            let devices = |kind| view.hardware.iter().filter(|h| h.fault.kind() == kind).count();
            let found = |kind| count(pods(kind) + devices(kind));
            FindingKind::ALL.map(|kind| (vec![kind.to_string()], found(kind))).into()
        },
    },
    Fact {
        name: "gpu_autoscaler_gpus",
        help: "Physical GPUs, where the node tells",
        labels: &[],
        read: |view| only(Some(view.totals.gpus.into())),
    },
    Fact {
        name: "gpu_autoscaler_gpus_measured",
        help: "GPUs whose use is measured",
        labels: &[],
        read: |view| only(Some(view.totals.gpus_measured.into())),
    },
    Fact {
        name: "gpu_autoscaler_gpus_unknown",
        help: "GPUs whose use is not known",
        labels: &[],
        read: |view| only(Some(view.unknown.iter().map(|unknown| f64::from(unknown.count)).sum())),
    },
];

/// Exposes all of [`FACTS`]; nothing before the first judgement, because nothing is known then.
pub(super) struct Fleet(pub watch::Receiver<Arc<View>>);

impl fmt::Debug for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fleet")
    }
}

impl Collector for Fleet {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let view = self.0.borrow().clone();
        if view.judged.is_none() {
            return Ok(());
        }
        for fact in &FACTS {
            let mut metric =
                encoder.encode_descriptor(fact.name, fact.help, None, MetricType::Gauge)?;
            for (values, value) in (fact.read)(&view) {
                if fact.labels.is_empty() {
                    metric.encode_gauge(&value)?;
                    continue;
                }
                let names = fact.labels.iter().copied();
                let labels: Vec<(&str, String)> = names.zip(values).collect();
                metric.encode_family(&labels)?.encode_gauge(&value)?;
            }
        }
        Ok(())
    }
}

fn only(value: Option<f64>) -> Vec<Sample> {
    value.map(|value| (Vec::new(), value)).into_iter().collect()
}

fn one(of: usize) -> Vec<Sample> {
    only(Some(count(of)))
}

/// Counts of objects are far below 2^53.
fn count(of: usize) -> f64 {
    of as f64
}

fn flag(holds: bool) -> f64 {
    f64::from(u8::from(holds))
}

fn capacity_type(of: &gpu_autoscaler_model::CapacityTotals) -> String {
    of.capacity_type.map_or("unknown", |it| it.as_str()).to_owned()
}

/// A month of 720 hours in US dollars; `None` in any other currency.
fn monthly_usd(rate: Rate) -> Option<f64> {
    let month: Money = rate.monthly().filter(|month| month.currency() == Currency::USD)?;
    // Display only: the ledger keeps the integer.
    Some(month.as_nanos() as f64 / 1e9)
}
