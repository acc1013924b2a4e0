//! The plain facts that a comparison needs, without any verdict: who decides what they mean is the
//! comparing script.

use std::collections::BTreeMap;
use std::time::Duration;

use gpu_autoscaler_model::NodeName;
use gpu_autoscaler_sim::{
    Counter, ExporterSpec, Layout, Rule as SimRule, TrueUse, World, WorldSpec,
};
use serde_json::json;

use crate::Json;

/// What the observer goes by.
pub struct Rule {
    /// How far back it looks.
    pub window: Duration,
    /// How old a pod must be.
    pub young: Duration,
    /// How far behind the truth it may be.
    pub lag: Duration,
}

/// What is so at `end`, and in the seconds around it by which an observer may be off.
pub fn truth(
    spec: &WorldSpec,
    dies: Option<&NodeName>,
    dies_after: Duration,
    end: Duration,
    rule: &Rule,
) -> Json {
    let mut world = World::new(spec);
    world.advance(spec.start.after(dies_after));
    if let Some(node) = dies {
        world.kill_exporter(node);
    }
    let (window, young, lag) = (rule.window, rule.young, rule.lag);
    let judged_by = SimRule { window, young, lag, ..SimRule::PUBLISHED };
    // The means of all windows that an observer may look at: it is behind by a little, and whoever
    // asks it may ask a little late.
    let mut means: BTreeMap<_, (f64, f64)> = BTreeMap::new();
    let (first, last) = (end.saturating_sub(rule.lag), end + rule.lag / 2);
    let mut at = first;
    let (mut pods, mut ailing) = (Vec::new(), Vec::new());
    while at <= last {
        world.advance(spec.start.after(at));
        let truth = world.truth(&judged_by);
        for pod in &truth.pods {
            let mean = pod.activity_mean.unwrap_or(0.0);
            let range = means.entry(pod.pod.clone()).or_insert((mean, mean));
            *range = (range.0.min(mean), range.1.max(mean));
        }
        if at <= end {
            (pods, ailing) = (truth.pods, truth.ailing);
        }
        at += Duration::from_secs(5);
    }
    let nodes: BTreeMap<&NodeName, Option<&ExporterSpec>> = world.exporters().collect();
    let layouts: BTreeMap<&str, Layout> =
        spec.nodes.iter().map(|node| (node.name.as_str(), node.layout)).collect();
    let facts: Vec<Json> = pods
        .iter()
        .filter(|pod| pod.use_ != TrueUse::Pending)
        .filter_map(|pod| {
            let node = pod.node.as_ref()?;
            let exporter = nodes.get(node).copied().flatten().filter(|_| Some(node) != dies);
            let layout = layouts.get(node.as_str())?;
            let shared = matches!(layout, Layout::TimeSliced { .. });
            let told_apart = !shared || exporter.is_some_and(|exporter| exporter.virtual_gpus);
            let blind = matches!(layout, Layout::Mig(_))
                && exporter.is_some_and(|exporter| exporter.counter == Counter::GpuUtil);
            let (low, high) = means.get(&pod.pod).copied()?;
            Some(json!({
                "namespace": &*pod.pod.namespace,
                "name": &*pod.pod.name,
                "node": node.as_str(),
                "load": pod.load,
                "stuck": pod.use_ == TrueUse::Stuck,
                "measured": exporter.is_some() && told_apart && !blind,
                "counter": exporter.map(|exporter| format!("{:?}", exporter.counter)),
                "shared": shared,
                "young": pod.use_ == TrueUse::Young,
                "activityMeanLow": low,
                "activityMeanHigh": high,
                "deviceMeans": pod.device_means,
                "framebuffer": pod.fb,
            }))
        })
        .collect();
    json!({
        "seed": spec.seed,
        "compareAfterSecs": end.as_secs_f64(),
        "rule": {
            "busyFrom": 0.5,
            "scoreAbove": 50.0,
            "windowSecs": rule.window.as_secs(),
            "youngSecs": rule.young.as_secs(),
        },
        "pods": facts,
        "hardware": ailing.iter().map(|(node, gpu, kind)| json!({
            "node": node.as_str(),
            "gpu": gpu.as_str(),
            "kind": kind.as_str(),
        })).collect::<Vec<_>>(),
        "nodes": spec.nodes.iter().map(|node| json!({
            "name": node.name,
            "gpus": node.shape.gpus,
            "measured": node.exporter.is_some() && dies.is_none_or(|dies| dies.as_str() != node.name),
        })).collect::<Vec<_>>(),
    })
}
