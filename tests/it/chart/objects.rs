//! What is rendered: names that were published, rights, and what pods may do.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use tests::controller;
use tests::process::CommandLine;

use super::helm::{Helm, NAMESPACE, named, of_kind};
use super::{read, yaml};

/// Pods of the release: kind, name and pod specification.
fn pods(objects: &[Value]) -> Vec<(String, &Value)> {
    let workloads = objects.iter().filter(|object| !object["spec"]["template"].is_null());
    workloads
        .map(|object| {
            let name = object["metadata"]["name"].as_str().expect("a name");
            (name.to_owned(), &object["spec"]["template"]["spec"])
        })
        .collect()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

#[test]
fn published_names_ports_and_numbers_are_kept() {
    let Some(helm) = Helm::find_or_skip() else { return };
    let objects = helm.objects(&[]);
    let controller = named(&objects, "Deployment", "gpu-autoscaler-controller");
    assert_eq!(controller["spec"]["replicas"], 3);
    let container = &controller["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["resources"]["requests"], json!({ "cpu": "100m", "memory": "128Mi" }));
    assert_eq!(container["livenessProbe"]["httpGet"]["path"], "/healthz");
    assert_eq!(container["readinessProbe"]["httpGet"]["path"], "/readyz");
    let budget = named(&objects, "PodDisruptionBudget", "gpu-autoscaler-controller");
    assert_eq!(budget["spec"]["maxUnavailable"], 1);
    let ports = |name: &str| {
        let service = named(&objects, "Service", name);
        let ports = list(&service["spec"]["ports"]).iter().map(|port| port["port"].as_u64());
        ports.collect::<Option<Vec<_>>>().expect("numbers")
    };
    assert_eq!(ports("gpu-autoscaler-controller"), [8080]);
    assert_eq!(ports("dcgm-exporter"), [9400]);
    assert_eq!(ports("gpu-autoscaler-grafana"), [80]);
    assert_eq!(ports("prometheus-operated"), [9090]);
    let exporter = named(&objects, "DaemonSet", "dcgm-exporter");
    let selector = &exporter["spec"]["template"]["spec"]["nodeSelector"];
    assert_eq!(*selector, json!({ "nvidia.com/gpu.present": "true" }));

    let prometheus = &named(&objects, "Deployment", "gpu-autoscaler-prometheus")["spec"];
    let arguments = &prometheus["template"]["spec"]["containers"][0]["args"];
    assert!(list(arguments).contains(&json!("--storage.tsdb.retention.time=7d")), "{arguments}");
    let files = &named(&objects, "ConfigMap", "gpu-autoscaler-prometheus")["data"];
    let config = yaml(files["prometheus.yml"].as_str().expect("text")).remove(0);
    assert_eq!(config["global"]["scrape_interval"], "10s");
    for object in &objects {
        let namespace = &object["metadata"]["namespace"];
        let cluster = object["kind"].as_str().is_some_and(|kind| kind.starts_with("Cluster"));
        assert!(cluster || *namespace == NAMESPACE, "{}", object["metadata"]);
    }
}

#[test]
fn the_controller_takes_the_arguments_that_it_is_given() {
    let Some(helm) = Helm::find_or_skip() else { return };
    for values in [
        "controller.enabled=true",
        "controller.prometheusURL=https://p.example/x",
        "controller.otlpEndpoint=http://otel.tracing.svc:4318",
    ] {
        let objects = helm.objects(&["--set", values]);
        let controller = named(&objects, "Deployment", "gpu-autoscaler-controller");
        let arguments = &controller["spec"]["template"]["spec"]["containers"][0]["args"];
        let arguments = list(arguments).iter().map(|argument| argument.as_str().expect("text"));
        // What comes before `--help` is parsed, and refused where it is unknown or impossible.
        let command = CommandLine::new(controller::binary(), arguments.chain(["--help"]));
        let output = command.output_within("", Duration::from_secs(60)).expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command:?}: {said}");
    }
}

#[test]
fn the_controller_may_reach_what_it_is_pointed_at() {
    let Some(helm) = Helm::find_or_skip() else { return };
    let ports = |values: &str| -> BTreeSet<u64> {
        let objects = helm.objects(&["--set", values]);
        let policy = named(&objects, "NetworkPolicy", "gpu-autoscaler-controller");
        let rules = list(&policy["spec"]["egress"]).iter();
        let ports = rules.flat_map(|rule| list(&rule["ports"]));
        ports.map(|port| port["port"].as_u64().expect("a number")).collect()
    };
    let always = [53, 443, 6443, 9400];
    for (values, further) in [
        ("controller.otlpEndpoint=", &[9090][..]),
        ("controller.otlpEndpoint=http://otel.tracing.svc:4318", &[9090, 4318]),
        ("controller.otlpEndpoint=http://[fd00::7]:4318/v1/traces", &[9090, 4318]),
        ("controller.otlpEndpoint=https://otel.example", &[9090]),
        ("controller.otlpEndpoint=http://otel.example", &[9090, 80]),
        ("controller.prometheusURL=http://[fd00::7]/prefix", &[80]),
        ("controller.prometheusURL=http://thanos.example:10902", &[10902]),
    ] {
        let expected = always.iter().chain(further).copied().collect();
        assert_eq!(ports(values), expected, "{values}");
    }
}

#[test]
fn a_claim_is_never_held_by_two_controllers() {
    let Some(helm) = Helm::find_or_skip() else { return };
    let claim = ["--set", "controller.history.existingClaim=learned"];
    let refusal = helm.render(&claim).expect_err("three replicas");
    assert!(refusal.contains("controller.replicaCount is 3"), "{refusal}");
    let one = ["--set", "controller.replicaCount=1"];
    let objects = helm.objects(&[claim, one].concat());
    let spec = &named(&objects, "Deployment", "gpu-autoscaler-controller")["spec"];
    assert_eq!(spec["strategy"]["type"], "Recreate");
    let volumes = list(&spec["template"]["spec"]["volumes"]);
    let claims: Vec<&Value> = volumes
        .iter()
        .map(|volume| &volume["persistentVolumeClaim"]["claimName"])
        .filter(|name| !name.is_null())
        .collect();
    assert_eq!(claims, ["learned"]);
    let objects = helm.objects(&[]);
    let spec = &named(&objects, "Deployment", "gpu-autoscaler-controller")["spec"];
    assert!(spec["strategy"].is_null(), "volumes of pods' own hold up nobody");
}

#[test]
fn pods_run_without_privilege_save_the_exporter() {
    let Some(helm) = Helm::find_or_skip() else { return };
    let objects = helm.objects(&[]);
    let pods = pods(&objects);
    assert_eq!(pods.len(), 4);
    for (name, pod) in pods {
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{name}");
        for container in list(&pod["containers"]) {
            let security = &container["securityContext"];
            assert!(security["privileged"].is_null(), "{name}");
            assert_eq!(security["capabilities"]["drop"], json!(["ALL"]), "{name}");
            assert!(!container["resources"]["requests"]["memory"].is_null(), "{name}");
            if name == "dcgm-exporter" {
                assert_eq!(security["capabilities"]["add"], json!(["SYS_ADMIN"]));
                continue;
            }
            assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{name}");
            assert_eq!(security["readOnlyRootFilesystem"], true, "{name}");
            assert_eq!(security["allowPrivilegeEscalation"], false, "{name}");
            assert!(security["capabilities"]["add"].is_null(), "{name}");
            let writable = list(&pod["volumes"]).iter().filter(|v| !v["hostPath"].is_null());
            assert_eq!(writable.count(), 0, "{name} mounts a path of the host");
        }
    }
}

#[test]
fn rights_are_exactly_those_that_are_used() {
    let Some(helm) = Helm::find_or_skip() else { return };
    let rights = |objects: &[Value], kind: &str, name: &str| -> BTreeSet<String> {
        let role = named(objects, kind, name);
        list(&role["rules"])
            .iter()
            .flat_map(|rule| {
                let resources = list(&rule["resources"]).iter();
                resources.flat_map(|resource| {
                    let verbs = list(&rule["verbs"]).iter();
                    verbs.map(move |verb| format!("{verb} {resource}").replace('"', ""))
                })
            })
            .collect()
    };
    let kinds = crds();
    let mut expected: BTreeSet<String> = [
        "list nodes",
        "watch nodes",
        "list pods",
        "watch pods",
        "list poddisruptionbudgets",
        "watch poddisruptionbudgets",
        "create events",
        "list events",
        "watch events",
    ]
    .map(str::to_owned)
    .into();
    for kind in [
        "persistentvolumeclaims",
        "persistentvolumes",
        "storageclasses",
        "csidrivers",
        "csinodes",
        "resourceclaims",
        "resourceslices",
        "deviceclasses",
    ] {
        expected.extend(["list", "watch"].map(|verb| format!("{verb} {kind}")));
    }
    for kind in &kinds {
        expected.extend(["get", "list", "watch"].map(|verb| format!("{verb} {kind}")));
        expected.insert(format!("patch {kind}/status"));
    }
    let objects = helm.objects(&[]);
    assert_eq!(rights(&objects, "ClusterRole", "gpu-autoscaler-controller"), expected);
    let election = rights(&objects, "Role", "gpu-autoscaler-leader-election");
    let leases = ["create leases", "get leases", "update leases"].map(str::to_owned);
    assert_eq!(election, leases.into());
    let scrape: BTreeSet<String> =
        ["get pods", "list pods", "watch pods"].map(str::to_owned).into();
    assert_eq!(rights(&objects, "Role", "gpu-autoscaler-prometheus"), scrape);
    // Only where the exporters are another's, Prometheus looks into all namespaces.
    let objects = helm.objects(&["--set", "dcgmExporter.enabled=false"]);
    assert_eq!(rights(&objects, "ClusterRole", "gpu-autoscaler-prometheus"), scrape);
}

/// The plural names of our own kinds.
fn crds() -> Vec<String> {
    let definitions = super::files("charts/gpu-autoscaler/crds", ".yaml");
    let plural = |text: &str| yaml(text)[0]["spec"]["names"]["plural"].clone();
    let names = definitions.iter().map(|file| plural(&read(file)));
    names.map(|name| name.as_str().expect("a name").to_owned()).collect()
}

#[test]
fn secrets_are_in_secrets_only() {
    let Some(helm) = Helm::find_or_skip() else { return };
    let secret = "correct-horse-battery";
    let source = format!(
        "grafana.datasources={{\"x.yaml\":{{\"datasources\":[{{\"secureJsonData\":\
         {{\"password\":\"{secret}\"}}}}]}}}}"
    );
    let password = format!("grafana.adminPassword=\"{secret}\"");
    let objects = helm.objects(&["--set-json", &source, "--set-json", &password]);
    let encoded = "Y29ycmVjdC1ob3JzZS1iYXR0ZXJ5";
    let mut holders = 0;
    for object in &objects {
        let text = object.to_string();
        if text.contains(secret) || text.contains(encoded) {
            assert_eq!(object["kind"], "Secret", "{}", object["metadata"]);
            holders += 1;
        }
    }
    assert_eq!(holders, 2);
    // The password that nobody gave is drawn, and long.
    let drawn = helm.objects(&[]);
    let drawn = &named(&drawn, "Secret", "gpu-autoscaler-grafana")["data"]["admin-password"];
    assert!(drawn.as_str().is_some_and(|text| text.len() >= 40), "{drawn}");
    // With a Secret of the administrator's, none is made.
    let objects = helm.objects(&["--set", "grafana.admin.existingSecret=credentials"]);
    assert!(of_kind(&objects, "Secret").all(|s| s["data"]["admin-password"].is_null()));
}

#[test]
fn each_part_can_be_left_out() {
    let Some(helm) = Helm::find_or_skip() else { return };
    for part in ["controller", "dcgm-exporter", "prometheus", "grafana"] {
        let key = part.replace("dcgm-exporter", "dcgmExporter");
        let objects = helm.objects(&["--set", &format!("{key}.enabled=false")]);
        let left: Vec<&Value> = objects
            .iter()
            .filter(|o| o["metadata"]["labels"]["app.kubernetes.io/component"] == *part)
            .collect();
        assert!(left.is_empty(), "{part}: {left:?}");
    }
    let url = |arguments: &[&str]| {
        let objects = helm.objects(arguments);
        let controller = named(&objects, "Deployment", "gpu-autoscaler-controller");
        let container = &controller["spec"]["template"]["spec"]["containers"][0];
        let argument = list(&container["args"]).iter().filter_map(Value::as_str);
        let mut urls = argument.filter_map(|a| a.strip_prefix("--prometheus-url="));
        urls.next().expect("an address").to_owned()
    };
    let own = "http://gpu-autoscaler-prometheus.gpu-autoscaler-system.svc:9090";
    assert_eq!(url(&[]), own);
    assert_eq!(url(&["--set", "prometheus.enabled=false"]), "http://prometheus-operated:9090");
    let given = "https://thanos.example";
    assert_eq!(url(&["--set", &format!("controller.prometheusURL={given}")]), given);
}

#[test]
fn the_operator_s_resources_are_made_where_they_are_defined_or_asked_for() {
    let Some(helm) = Helm::find_or_skip() else { return };
    let count = |arguments: &[&str], kind: &str| of_kind(&helm.objects(arguments), kind).count();
    let defined = ["--api-versions", "monitoring.coreos.com/v1"];
    let asked = ["--set", "prometheus.prometheusOperator.enabled=true"];
    let files = super::files("charts/gpu-autoscaler/rules", ".yaml").len();
    for (arguments, monitors, rules) in
        [(&[][..], 0, 0), (&defined[..], 2, files), (&asked[..], 2, files)]
    {
        assert_eq!(count(arguments, "ServiceMonitor"), monitors, "{arguments:?}");
        assert_eq!(count(arguments, "PrometheusRule"), rules, "{arguments:?}");
    }
    let refused = ["--set", "prometheus.prometheusOperator.enabled=false"];
    assert_eq!(count(&[defined, refused].concat(), "ServiceMonitor"), 0);
    let one = ["--set", "controller.serviceMonitor.enabled=false"];
    assert_eq!(count(&[defined, one].concat(), "ServiceMonitor"), 1);
    // There the operator makes a Service of this name by itself.
    let objects = helm.objects(&defined);
    assert!(of_kind(&objects, "Service").all(|s| s["metadata"]["name"] != "prometheus-operated"));
}

#[test]
fn what_an_older_kubernetes_lacks_is_not_rendered() {
    let Some(helm) = Helm::find_or_skip() else { return };
    let policy = |version: &str| {
        let objects = helm.objects(&["--kube-version", version]);
        let budget = named(&objects, "PodDisruptionBudget", "gpu-autoscaler-controller");
        budget["spec"]["unhealthyPodEvictionPolicy"].clone()
    };
    assert_eq!(policy("1.25"), Value::Null);
    assert_eq!(policy("1.27"), "AlwaysAllow");
    let refusal = helm.render(&["--kube-version", "1.24"]).expect_err("too old");
    assert!(refusal.contains(">=1.25"), "{refusal}");
}
