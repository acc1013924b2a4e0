//! The test control plane itself.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tests::control_plane::{ControlPlane, ControlPlaneError, KubectlError, Options, User};
use tests::manifests::{SHAPES, gpu_node, gpu_pod, list};
use tests::program::Program;
use tests::skip_or_fail;
use tests::wait::until;

/// For a change that takes a second on an idle machine.
const SOON: Duration = Duration::from_secs(120);

#[test]
fn gpu_pods_run_where_gpus_are_and_survive_an_api_server_crash() {
    let Some(mut cluster) = ControlPlane::start_or_skip(&Options::default()) else { return };
    let [eight_gpus, ..] = SHAPES;
    cluster.create_nodes(&[gpu_node("gpu-0", &eight_gpus)]).expect("kwok makes it Ready");
    cluster
        .create(&list([gpu_pod("default", "fits", 1), gpu_pod("default", "too-large", 9)]))
        .expect("create the pods");

    let fits = until("pod `fits` runs", SOON, || pod_in_phase(&cluster, "fits", "Running"));
    assert_eq!(fits["spec"]["nodeName"], "gpu-0");
    let reason = until("pod `too-large` is refused", SOON, || refusal(&cluster, "too-large"));
    assert!(reason.contains("Insufficient nvidia.com/gpu"), "{reason}");

    // A look with a time limit of its own, since a paused server never answers.
    let look = ["get", "--raw=/readyz", "--request-timeout=2s"];
    cluster.server(Program::KubeApiserver).pause();
    cluster.kubectl(&look).expect_err("a paused server does not answer");
    cluster.server(Program::KubeApiserver).resume();
    until("the resumed server answers", SOON, || Ok::<_, String>(cluster.kubectl(&look).ok()));

    cluster.kill(Program::KubeApiserver);
    let gone = cluster.kubectl(&["get", "pods"]).expect_err("nobody listens");
    assert!(matches!(gone, KubectlError::Failed { .. }), "{gone}");
    cluster.start_again(Program::KubeApiserver).expect("start the API server again");

    let after = pod(&cluster, "fits").expect("the pod was stored");
    assert_eq!(after["metadata"]["uid"], fits["metadata"]["uid"]);
    assert_eq!(after["status"]["phase"], "Running");
    // The scheduler and kwok have found the API server again.
    cluster.create(&list([gpu_pod("default", "later", 7)])).expect("create a pod");
    until("pod `later` runs", SOON, || pod_in_phase(&cluster, "later", "Running"));
    cluster.kubectl(&["delete", "pod", "later", "--timeout=120s"]).expect("kwok ends the pod");
    cluster.check_alive().expect("no server ended");
}

#[test]
fn a_pod_with_a_run_time_succeeds() {
    let Some(cluster) = ControlPlane::start_or_skip(&Options::default()) else { return };
    let mut short = gpu_pod("default", "short", 1);
    short["metadata"]["annotations"]["tests.gpu-autoscaler.io/run-for"] = "1s".into();
    let [_, _, four_gpus, _] = SHAPES;
    cluster.create(&list([gpu_node("gpu-0", &four_gpus), short])).expect("create node and pod");

    let done = until("pod `short` succeeds", SOON, || pod_in_phase(&cluster, "short", "Succeeded"));
    let state = &done["status"]["containerStatuses"][0]["state"];
    assert_eq!(state["terminated"]["exitCode"], 0, "{state}");
    assert!(state["running"].is_null(), "{state}");
}

#[test]
fn rights_are_those_that_rbac_grants() {
    let viewer = User { name: "viewer".into(), groups: vec!["viewers".into()] };
    let options = Options { users: vec![viewer], ..Options::default() };
    let Some(cluster) = ControlPlane::start_or_skip(&options) else { return };
    cluster
        .apply(
            "
apiVersion: v1
kind: ServiceAccount
metadata: { name: controller, namespace: default }
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: { name: nodes-for-viewers-and-controller }
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: 'system:node' }
subjects:
- { kind: Group, apiGroup: rbac.authorization.k8s.io, name: viewers }
- { kind: ServiceAccount, name: controller, namespace: default }
",
        )
        .expect("grant");
    let account = cluster
        .kubeconfig_of_service_account("default", "controller")
        .expect("a token of the service account");
    let user = cluster.kubeconfig_of_user("viewer").expect("a user of the options");

    for kubeconfig in [&*account, user] {
        let may = |verb, resource| may(&cluster, kubeconfig, verb, resource);
        until("the grant is in force", SOON, || may("list", "nodes").map(|yes| yes.then_some(())));
        assert_eq!(may("delete", "namespaces"), Ok(false), "{}", kubeconfig.display());
    }
    assert_eq!(may(&cluster, cluster.kubeconfig(), "delete", "namespaces"), Ok(true));
    assert_eq!(cluster.kubeconfig_of_user("nobody"), None);
}

#[test]
fn a_dropped_control_plane_leaves_no_process_and_no_file() {
    let Some(cluster) = ControlPlane::start_or_skip(&Options::default()) else { return };
    let pids: Vec<u32> = cluster.servers().map(|(_, process)| process.pid()).collect();
    let folder = cluster.kubeconfig().parent().expect("inside a folder").to_owned();
    assert_eq!(pids.len(), 5);
    assert!(pids.iter().all(|pid| is_process(*pid)));

    drop(cluster);

    assert_eq!(pids.into_iter().filter(|pid| is_process(*pid)).collect::<Vec<_>>(), [0; 0]);
    assert!(!folder.exists());
}

#[test]
fn a_refused_flag_is_reported_with_the_log_of_its_server() {
    let arguments = vec![(Program::KubeApiserver, "--no-such-flag".to_owned())];
    let options = Options { arguments, ..Options::default() };
    let error = match ControlPlane::start(&options).expect_err("the flag does not exist") {
        ControlPlaneError::Missing(missing) => return skip_or_fail(&missing.to_string()),
        error => error.to_string(),
    };
    assert!(error.contains("kube-apiserver") && error.contains("no-such-flag"), "{error}");
}

#[test]
fn the_cluster_command_ends_on_sigterm_and_when_killed() {
    let built = Program::Etcd.find().and(Program::KubeApiserver.find());
    if let Err(missing) = built.and(Program::Kubectl.find()) {
        return skip_or_fail(&missing.to_string());
    }
    for signal in ["TERM", "KILL"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cluster"))
            .args(["--nodes", "4"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("start `cluster`");
        let mut line = String::new();
        BufReader::new(command.stdout.take().expect("piped"))
            .read_line(&mut line)
            .expect("read stdout");
        let kubeconfig = Path::new(line.trim_end());
        assert!(kubeconfig.is_file(), "`{line}` is no kubeconfig");
        let servers = children(&command);
        assert_eq!(servers.len(), 5, "{servers:?}");

        let pid = command.id().to_string();
        let sent = Command::new("kill").args(["-s", signal, &pid]).status().expect("run `kill`");
        assert!(sent.success());
        let status = command.wait().expect("reap");
        assert_eq!(status.success(), signal == "TERM", "{status}");
        until("every server has ended", SOON, || {
            let left = servers.iter().filter(|pid| is_process(**pid)).count();
            Ok::<_, String>((left == 0).then_some(()))
        });
        assert_eq!(kubeconfig.exists(), signal == "KILL", "files go with an orderly end");
    }
}

fn pod(cluster: &ControlPlane, name: &str) -> Result<Value, KubectlError> {
    cluster.kubectl_json(&["get", "pod", name])
}

fn pod_in_phase(
    cluster: &ControlPlane,
    name: &str,
    phase: &str,
) -> Result<Option<Value>, KubectlError> {
    let pod = pod(cluster, name)?;
    Ok((pod["status"]["phase"] == phase).then_some(pod))
}

/// Why the scheduler has not bound a pod.
fn refusal(cluster: &ControlPlane, name: &str) -> Result<Option<String>, KubectlError> {
    let pod = pod(cluster, name)?;
    let scheduled = condition_of(&pod, "PodScheduled").filter(|it| it["status"] == "False");
    Ok(scheduled.map(|condition| condition["message"].to_string()))
}

fn condition_of<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    let conditions = object["status"]["conditions"].as_array()?;
    conditions.iter().find(|condition| condition["type"] == kind)
}

/// What the API server answers to `kubectl auth can-i`.
fn may(
    cluster: &ControlPlane,
    kubeconfig: &Path,
    verb: &str,
    resource: &str,
) -> Result<bool, String> {
    let flag = format!("--kubeconfig={}", kubeconfig.display());
    match cluster.kubectl(&["auth", "can-i", verb, resource, &flag]) {
        Ok(answer) if answer.trim() == "yes" => Ok(true),
        // `no` comes with exit status 1 and without an error message.
        Err(KubectlError::Failed { stderr, .. }) if !stderr.contains("rror") => Ok(false),
        other => Err(format!("{other:?}")),
    }
}

/// Whether a process of that id runs; an ended one that nobody has waited for does not count.
fn is_process(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or("").trim_start().starts_with('Z'))
}

fn children(parent: &Child) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{}/task", parent.id())).expect("a live process");
    threads
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|text| text.split_whitespace().map(str::parse).collect::<Vec<_>>())
        .collect::<Result<_, _>>()
        .expect("process ids")
}
