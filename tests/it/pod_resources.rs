//! Who holds which device, asked of the kubelet's own server of pod-resources.

use std::fs;
use std::time::Duration;

use gpu_autoscaler_telemetry::pod_resources::{
    DeviceId, HeldDevice, Holding, PodResourcesError, holdings,
};
use serde_json::json;
use tests::process::{CommandLine, Process};
use tests::program::Program;
use tests::scratch::ScratchDir;
use tests::skip_or_fail;
use tests::wait::until;

const SOON: Duration = Duration::from_secs(60);

fn ask(socket: &std::path::Path) -> Result<Vec<Holding>, PodResourcesError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let nvidia = |resource: &str| resource.starts_with("nvidia.com/");
    runtime.expect("a runtime").block_on(holdings(socket, nvidia))
}

#[test]
fn the_kubelets_server_tells_who_holds_which_device() {
    let program = match Program::Podresources.find() {
        Ok(program) => program,
        Err(missing) => return skip_or_fail(&missing.to_string()),
    };
    let scratch = ScratchDir::create("kubelet").expect("a folder");
    let socket = scratch.join("kubelet.sock");
    let device =
        |resource: &str, ids: &[&str]| json!({"resource": resource, "ids": ids, "numa": [0]});
    let pods = json!([
        {"namespace": "team", "name": "train-0", "containers": [
            {"name": "main", "devices": [
                device("nvidia.com/gpu", &["GPU-b", "GPU-a"]),
                device("rdma/hca", &["mlx5_0"]),
            ]},
            {"name": "sidecar", "devices": []},
        ]},
        {"namespace": "team", "name": "serve-0", "containers": [
            {"name": "main", "devices": [device("nvidia.com/gpu.shared", &["GPU-c::2"])]},
        ]},
        {"namespace": "other", "name": "tune", "containers": [
            {"name": "main", "devices": [device("nvidia.com/mig-1g.10gb", &["MIG-1f-2"])]},
        ]},
        {"namespace": "other", "name": "web", "containers": [{"name": "main", "devices": []}]},
    ]);
    let file = scratch.write("pods.json", &pods.to_string()).expect("writable");
    let refused = ask(&socket).expect_err("nobody listens yet");
    assert!(matches!(refused, PodResourcesError::Socket { .. }), "{refused}");

    let arguments =
        [format!("--socket={}", socket.display()), format!("--pods={}", file.display())];
    let command = CommandLine::new(program, arguments);
    let mut server = Process::start(command, &scratch.join("kubelet.log")).expect("it starts");
    let found =
        until("the server answers", SOON, || Ok::<_, std::convert::Infallible>(ask(&socket).ok()));
    let held = |pod: (&str, &str), resource: &str, id: DeviceId, replica: Option<u32>| Holding {
        pod: gpu_autoscaler_model::ObjectKey::new(pod.0, pod.1),
        container: "main".into(),
        resource: resource.into(),
        device: HeldDevice { id, replica },
    };
    let gpu = |uuid: &str| DeviceId::Gpu(uuid.into());
    assert_eq!(
        found,
        [
            held(
                ("other", "tune"),
                "nvidia.com/mig-1g.10gb",
                DeviceId::Mig("MIG-1f-2".into()),
                None
            ),
            held(("team", "serve-0"), "nvidia.com/gpu.shared", gpu("GPU-c"), Some(2)),
            held(("team", "train-0"), "nvidia.com/gpu", gpu("GPU-a"), None),
            held(("team", "train-0"), "nvidia.com/gpu", gpu("GPU-b"), None),
        ]
    );

    // A node full of pods: more than one frame and one window of HTTP/2.
    let many: Vec<_> = (0..5000)
        .map(|n| {
            let ids = [format!("GPU-{n:032}")];
            let devices = json!([{"resource": "nvidia.com/gpu", "ids": ids, "numa": []}]);
            json!({"namespace": "batch", "name": format!("job-{n:05}"),
                "containers": [{"name": "main", "devices": devices}]})
        })
        .collect();
    fs::write(&file, json!(many).to_string()).expect("writable");
    let found = ask(&socket).expect("a large answer");
    assert_eq!((found.len(), &*found[4999].pod.name), (5000, "job-04999"));

    server.kill();
    let refused = ask(&socket).expect_err("a socket that nobody serves");
    assert!(refused.to_string().contains("cannot be reached\nhint: "), "{refused}");
}
