//! What readers see of namespaces, and what pods hold in all.

use std::collections::BTreeMap;
use std::sync::Arc;

use gpu_autoscaler_model::{Finding, NamespaceView, PodView, Rate, Ratio};

use crate::view::count;

/// Every namespace with pods that hold GPUs, by name.
pub(crate) fn namespaces(pods: &[PodView], findings: &[Finding]) -> Vec<NamespaceView> {
    let mut held: BTreeMap<&Arc<str>, Vec<&PodView>> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| pod.node.is_some()) {
        held.entry(&pod.pod.namespace).or_default().push(pod);
    }
    let mut found: BTreeMap<&Arc<str>, Vec<Option<Rate>>> = BTreeMap::new();
    for finding in findings {
        found.entry(&finding.pod.namespace).or_default().push(finding.recommendation.saving);
    }
    let all = held.into_iter().map(|(namespace, pods)| {
        let rates: Vec<Option<Rate>> = pods.iter().map(|pod| pod.rate).collect();
        let savings = found.get(namespace).map(Vec::as_slice).unwrap_or_default();
        NamespaceView {
            namespace: Arc::clone(namespace),
            pods: count(pods.iter()),
            pods_measured: count(pods.iter().filter(|pod| pod.usage.is_some())),
            gpus: pods.iter().map(|pod| pod.gpus).fold(0, u32::saturating_add),
            activity: activity(pods.iter().copied()),
            fb: fb(pods.iter().copied()),
            rate: Rate::sum_of_known(rates.iter().flatten()),
            pods_unpriced: count(rates.iter().filter(|rate| rate.is_none())),
            findings: count(savings.iter()),
            saving: Rate::sum_of_known(savings.iter().flatten()),
            findings_unpriced: count(savings.iter().filter(|rate| rate.is_none())),
        }
    });
    all.collect()
}

/// Mean compute of the pods that are measured, by what they request.
pub(crate) fn activity<'p>(pods: impl Iterator<Item = &'p PodView>) -> Option<Ratio> {
    mean(pods.filter_map(|pod| Some((pod.gpus, pod.usage.as_ref()?.activity_mean))))
}

/// Mean framebuffer of the pods of which it is measured, by what they request.
pub(crate) fn fb<'p>(pods: impl Iterator<Item = &'p PodView>) -> Option<Ratio> {
    mean(pods.filter_map(|pod| Some((pod.gpus, pod.usage.as_ref()?.fb_mean?))))
}

fn mean(parts: impl Iterator<Item = (u32, Ratio)>) -> Option<Ratio> {
    let (mut sum, mut weights) = (0.0, 0.0);
    for (weight, share) in parts {
        sum += f64::from(weight) * share.as_f64();
        weights += f64::from(weight);
    }
    // A mean of shares is a share, save for what rounding adds to ones.
    if weights > 0.0 { Ratio::new((sum / weights).min(1.0)) } else { None }
}
