//! What the containers of a pod do, from its spec and the kubelet's statuses.

use gpu_autoscaler_model::{ContainerState, GpuResource, Timestamp};

use crate::intern::Interner;
use crate::wire;

/// The longest image reference that is kept, in bytes.
const IMAGE_MAX: usize = 512;

/// The state of the containers.
///
/// # Errors
/// Field and text of a time that cannot be read.
pub(crate) fn state(
    spec: &wire::PodSpec,
    status: &wire::PodStatus,
    texts: &mut Interner<str>,
) -> Result<ContainerState, (String, String)> {
    let statuses =
        || status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    let mut last_end = None;
    for one in statuses() {
        let ends = [&one.state, &one.last_state]
            .into_iter()
            .filter_map(|state| state.terminated.as_ref()?.finished_at.as_deref());
        // A container that ended well and is not started again is no sign of trouble.
        for text in ends.filter(|_| one.restart_count.unwrap_or(0) > 0) {
            let field = "status.containerStatuses.lastState.terminated.finishedAt";
            let end: Timestamp =
                text.parse().map_err(|_| (field.to_owned(), text.chars().take(64).collect()))?;
            last_end = last_end.max(Some(end));
        }
    }
    let image = spec.containers.iter().flatten().find(|one| requests_gpu(one));
    let image = image.and_then(|one| one.image.as_deref()).filter(|text| text.len() <= IMAGE_MAX);
    let waiting = statuses().filter_map(|one| one.state.waiting.as_ref()?.reason.as_deref());
    // Before a kubelet's own word of trouble it says only that it is at work.
    let trouble =
        waiting.clone().find(|reason| !matches!(*reason, "ContainerCreating" | "PodInitializing"));
    let restarts = statuses().filter_map(|one| one.restart_count).max().unwrap_or(0);
    Ok(ContainerState {
        image: image.map(|text| texts.get(text)),
        waiting: trouble.or_else(|| waiting.clone().next()).map(|text| texts.get(text)),
        restarts: u32::try_from(restarts).unwrap_or(0),
        last_end,
    })
}

fn requests_gpu(container: &wire::Container) -> bool {
    let maps = [&container.resources.limits, &container.resources.requests];
    maps.into_iter().flatten().flatten().any(|(name, _)| GpuResource::parse(name).is_some())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(spec: serde_json::Value, status: serde_json::Value) -> ContainerState {
        let spec = serde_json::from_value(spec).expect("a spec");
        let status = serde_json::from_value(status).expect("a status");
        state(&spec, &status, &mut Interner::default()).expect("readable")
    }

    #[test]
    fn the_image_is_that_of_the_first_container_with_a_gpu() {
        let spec = json!({"containers": [
            {"image": "proxy"},
            {"image": "train:7", "resources": {"limits": {"nvidia.com/gpu": "1"}}},
        ]});
        assert_eq!(read(spec, json!({})).image.as_deref(), Some("train:7"));
    }

    #[test]
    fn a_crash_loop_and_a_failed_pull_are_told() {
        let spec = json!({"containers": []});
        let crashed = read(
            spec.clone(),
            json!({"containerStatuses": [
                {"restartCount": 0, "state": {"waiting": {"reason": "ContainerCreating"}}},
                {"restartCount": 7, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                 "lastState": {"terminated": {"finishedAt": "2026-11-22T05:00:00Z", "exitCode": 1}}},
            ]}),
        );
        assert_eq!((crashed.restarts, crashed.waiting.as_deref()), (7, Some("CrashLoopBackOff")));
        assert_eq!(crashed.last_end, "2026-11-22T05:00:00Z".parse().ok());
        let pulling = json!({"initContainerStatuses": [
            {"restartCount": 0, "state": {"waiting": {"reason": "ImagePullBackOff"}}}]});
        assert_eq!(read(spec.clone(), pulling).waiting.as_deref(), Some("ImagePullBackOff"));
        let ended = json!({"initContainerStatuses": [
            {"restartCount": 0, "state": {"terminated": {"finishedAt": "2026-11-22T05:00:00Z"}}}]});
        assert_eq!(read(spec, ended), ContainerState::default());
    }

    #[test]
    fn a_time_that_is_none_names_its_field() {
        let status: wire::PodStatus = serde_json::from_value(json!({"containerStatuses": [
            {"restartCount": 1, "lastState": {"terminated": {"finishedAt": "yesterday"}}}]}))
        .expect("a status");
        let (field, text) =
            state(&Default::default(), &status, &mut Interner::default()).expect_err("no time");
        assert!(field.contains("finishedAt") && text == "yesterday");
    }
}
