//! The chart on a real API server: installed, changed, removed, and what its accounts may do.

use std::path::Path;
use std::time::Duration;

use tests::control_plane::{ControlPlane, Options};
use tests::manifests::{SHAPES, gpu_node};
use tests::wait::until;

use super::chart;
use super::helm::{Helm, NAMESPACE, RELEASE};
use super::values::PUBLISHED_SETTINGS;

/// For what takes seconds on an idle machine.
const SOON: Duration = Duration::from_secs(180);

/// What may be asked of the API server: verb, resource, and whether in the release's namespace
/// only.
type Right = (&'static str, &'static str, bool);

/// What the controller must be able to do.
const CONTROLLER_MAY: [Right; 18] = [
    ("list", "nodes", false),
    ("watch", "nodes", false),
    ("list", "pods", false),
    ("watch", "pods", false),
    ("list", "poddisruptionbudgets.policy", false),
    ("list", "persistentvolumeclaims", false),
    ("watch", "persistentvolumes", false),
    ("list", "csinodes.storage.k8s.io", false),
    ("watch", "resourceslices.resource.k8s.io", false),
    ("create", "events", false),
    ("list", "events", false),
    ("get", "autoscalingpolicies.gpu-autoscaler.io", false),
    ("watch", "costbudgets.gpu-autoscaler.io", false),
    ("patch", "gpusharingpolicies.gpu-autoscaler.io/status", false),
    ("patch", "costattributions.gpu-autoscaler.io/status", false),
    ("create", "leases.coordination.k8s.io", true),
    ("get", "leases.coordination.k8s.io/gpu-autoscaler.io", true),
    ("update", "leases.coordination.k8s.io/gpu-autoscaler.io", true),
];

/// What nobody of the release may do in the whole cluster.
const NOBODY_MAY: [Right; 27] = [
    ("get", "secrets", false),
    ("list", "secrets", false),
    ("get", "configmaps", false),
    ("create", "pods", false),
    ("delete", "pods", false),
    ("patch", "pods", false),
    ("create", "pods/exec", false),
    ("create", "pods/eviction", false),
    ("create", "pods/binding", false),
    ("patch", "nodes", false),
    ("update", "nodes/status", false),
    ("delete", "nodes", false),
    ("get", "nodes/proxy", false),
    ("patch", "deployments.apps", false),
    ("create", "namespaces", false),
    ("delete", "namespaces", false),
    ("update", "events", false),
    ("delete", "events", false),
    ("create", "autoscalingpolicies.gpu-autoscaler.io", false),
    ("patch", "autoscalingpolicies.gpu-autoscaler.io", false),
    ("delete", "costbudgets.gpu-autoscaler.io", false),
    ("update", "leases.coordination.k8s.io/kube-scheduler", false),
    ("create", "serviceaccounts/token", false),
    ("patch", "clusterroles.rbac.authorization.k8s.io", false),
    ("create", "mutatingwebhookconfigurations.admissionregistration.k8s.io", false),
    ("patch", "customresourcedefinitions.apiextensions.k8s.io", false),
    ("impersonate", "users", false),
];

#[test]
fn the_chart_installs_changes_and_goes() {
    let Some(helm) = Helm::find_or_skip() else { return };
    let Some(cluster) = ControlPlane::start_or_skip(&Options::default()) else { return };
    let [eight_gpus, ..] = SHAPES;
    let mut node = gpu_node("gpu-0", &eight_gpus);
    node["metadata"]["labels"]["nvidia.com/gpu.present"] = "true".into();
    cluster.create_nodes(&[node]).expect("a GPU node");
    let chart = chart();
    let chart = chart.to_string_lossy();
    let helm = |verb: &str, further: &[&str]| {
        let start = [verb, RELEASE, &*chart, "--namespace", NAMESPACE];
        helm.run(&[&start, further].concat(), Some(cluster.kubeconfig()))
            .unwrap_or_else(|error| panic!("helm {verb} {further:?}: {error}"))
    };

    // No storage class here, so volumes are left out: their claims would wait for ever.
    let volatile = [
        "--set",
        "prometheus.server.persistentVolume.enabled=false,grafana.persistence.enabled=false",
    ];
    let notes = helm("install", &[&["--create-namespace"], &volatile[..]].concat());
    assert!(notes.contains("observes and recommends"), "{notes}");
    assert!(!notes.contains("WARNING"), "{notes}");
    for workload in [
        "deployment/gpu-autoscaler-controller",
        "deployment/gpu-autoscaler-prometheus",
        "deployment/gpu-autoscaler-grafana",
        "daemonset/dcgm-exporter",
    ] {
        let wait = ["rollout", "status", workload, "--namespace", NAMESPACE, "--timeout=180s"];
        cluster.kubectl(&wait).unwrap_or_else(|error| panic!("{error}"));
    }
    let list = ["get", "crds", "-o", "name"];
    let crds = cluster.kubectl(&list).expect("a list");
    assert_eq!(crds.lines().filter(|name| name.ends_with(".gpu-autoscaler.io")).count(), 5);
    let policies = cluster.kubectl(&["get", "asp,gsp,gnc,cb,ca", "-o", "name"]).expect("a list");
    assert_eq!(policies, "", "an installation must not create a policy");
    check_rights(&cluster);

    let definitions = format!("{chart}/crds/");
    let upgrade = ["apply", "--server-side", "--force-conflicts", "-f", &definitions];
    cluster.kubectl(&upgrade).expect("definitions are upgraded");

    let password = |cluster: &ControlPlane| {
        let get = ["get", "secret", "gpu-autoscaler-grafana", "--namespace", NAMESPACE];
        let secret = cluster.kubectl_json(&get).expect("a Secret");
        secret["data"]["admin-password"].clone()
    };
    let drawn = password(&cluster);
    for setting in PUBLISHED_SETTINGS {
        let notes = helm("upgrade", &[&["--set", setting], &volatile[..]].concat());
        let (key, _) = setting.split_once('=').expect("a setting");
        // The warning names the key, or the section that it is in.
        let shown = key.split('.').take(2).collect::<Vec<_>>().join(".");
        assert!(notes.contains("WARNING") && notes.contains(&shown), "{setting}: {notes}");
    }
    assert_eq!(password(&cluster), drawn, "an upgrade keeps the password");

    let uninstall = ["uninstall", RELEASE, "--namespace", NAMESPACE];
    let helm = Helm::find_or_skip().expect("it was there");
    helm.run(&uninstall, Some(cluster.kubeconfig())).expect("uninstall");
    until("nothing is left but the definitions", SOON, || left(&cluster));
    assert_eq!(cluster.kubectl(&list).expect("a list"), crds, "policies survive");
}

/// Whether nothing of the release is left.
fn left(cluster: &ControlPlane) -> Result<Option<()>, String> {
    let kinds = "deployments,daemonsets,pods,services,configmaps,secrets,serviceaccounts,roles,\
                 rolebindings,clusterroles,clusterrolebindings,networkpolicies,pdb";
    let selector = format!("app.kubernetes.io/instance={RELEASE}");
    let get = ["get", kinds, "--all-namespaces", "--selector", &selector];
    let found = cluster.kubectl_json(&get).map_err(|error| error.to_string())?;
    Ok(found["items"].as_array().is_some_and(Vec::is_empty).then_some(()))
}

/// Asks the API server what each service account of the release may do.
fn check_rights(cluster: &ControlPlane) {
    let account = |name: &str| {
        cluster.kubeconfig_of_service_account(NAMESPACE, name).expect("a service account")
    };
    let controller = account("gpu-autoscaler-controller");
    for right in CONTROLLER_MAY {
        assert!(may(cluster, &controller, right), "the controller may not {right:?}");
    }
    for name in [
        "gpu-autoscaler-controller",
        "gpu-autoscaler-prometheus",
        "gpu-autoscaler-grafana",
        "dcgm-exporter",
    ] {
        let kubeconfig = account(name);
        for right in NOBODY_MAY {
            assert!(!may(cluster, &kubeconfig, right), "{name} may {right:?}");
        }
        let scrapes = name == "gpu-autoscaler-prometheus";
        assert_eq!(
            may(cluster, &kubeconfig, ("list", "pods", true)),
            scrapes || name == CONTROLLER
        );
        assert_eq!(may(cluster, &kubeconfig, ("list", "pods", false)), name == CONTROLLER);
    }
    println!("each of the four service accounts may not:");
    for (verb, resource, _) in NOBODY_MAY {
        println!("{verb:12} {resource}");
    }
}

const CONTROLLER: &str = "gpu-autoscaler-controller";

/// The answer of `kubectl auth can-i` for the holder of a kubeconfig.
fn may(cluster: &ControlPlane, kubeconfig: &Path, (verb, resource, here): Right) -> bool {
    let scope = if here { format!("--namespace={NAMESPACE}") } else { "--all-namespaces".into() };
    let kubeconfig = format!("--kubeconfig={}", kubeconfig.display());
    let (resource, subresource) = match resource.split_once('/') {
        // A name of a Lease; all others are subresources.
        Some((leases, name)) if leases.starts_with("leases") => {
            (format!("{leases}/{name}"), String::new())
        }
        Some((resource, sub)) => (resource.to_owned(), format!("--subresource={sub}")),
        None => (resource.to_owned(), String::new()),
    };
    let ask = ["auth", "can-i", verb, &resource, &scope, &kubeconfig, &subresource];
    let ask: Vec<&str> = ask.into_iter().filter(|argument| !argument.is_empty()).collect();
    // It ends with status 1 to say no.
    match cluster.kubectl(&ask) {
        Ok(answer) => answer.trim() == "yes",
        Err(error) => {
            let text = error.to_string();
            assert!(!text.contains("rror"), "{ask:?}: {text}");
            false
        }
    }
}
