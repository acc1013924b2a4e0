//! The controller against a real API server: crashes, failovers, pauses and bad objects.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{env, fs};

use serde_json::{Value, json};
use tests::conflicts::Conflicts;
use tests::control_plane::{ControlPlane, Options};
use tests::controller::Controller;
use tests::exporter::{Exporter, Gpu};
use tests::manifests::{SHAPES, gpu_node, gpu_pod, list};
use tests::program::Program;
use tests::scratch::ScratchDir;
use tests::wait::until;

/// For what takes seconds on an idle machine.
pub(crate) const SOON: Duration = Duration::from_secs(120);

/// A cluster with GPU nodes, the custom resources, and an exporter that tells of every pod as
/// idle.
pub(crate) struct World {
    pub(crate) cluster: ControlPlane,
    pub(crate) exporter: Exporter,
    pub(crate) scratch: ScratchDir,
    pub(crate) pods: u32,
}

impl World {
    fn start(nodes: u32) -> Option<Self> {
        Self::start_with(nodes, &Options::default())
    }

    pub(crate) fn start_with(nodes: u32, options: &Options) -> Option<Self> {
        let cluster = ControlPlane::start_or_skip(options)?;
        let nodes: Vec<Value> =
            (0..nodes).map(|at| gpu_node(&format!("gpu-{at}"), &SHAPES[0])).collect();
        cluster.create(&list(nodes)).expect("create the nodes");
        let exporter = Exporter::start().expect("a port");
        let scratch = ScratchDir::create("controller").expect("a folder");
        let world = Self { cluster, exporter, scratch, pods: 0 };
        world.define();
        Some(world)
    }

    /// Applies the definitions of our resources.
    pub(crate) fn define(&self) {
        for file in fs::read_dir(definitions()).expect("the chart holds the definitions") {
            let text = fs::read_to_string(file.expect("readable").path()).expect("readable");
            self.cluster.apply(&text).expect("the server takes the definition");
        }
    }

    pub(crate) fn controller(&self, name: &str, further: &[&str]) -> Controller {
        let mut arguments = vec![format!("--exporter={}", self.exporter.url())];
        arguments.extend(further.iter().map(|text| (*text).to_owned()));
        Controller::start(&self.cluster, self.scratch.path(), name, &arguments).expect("it starts")
    }

    /// A pod that holds a GPU and does nothing with it; returns its name once it runs.
    pub(crate) fn waster(&mut self) -> String {
        let (name, gpu) = self.unmeasured();
        self.exporter.add(gpu);
        name
    }

    /// The same, as long as no exporter tells of its GPU.
    fn unmeasured(&mut self) -> (String, Gpu) {
        let name = format!("waster-{}", self.pods);
        self.cluster.create(&list([gpu_pod("default", &name, 1)])).expect("create the pod");
        let node = until("the pod runs", SOON, || self.node_of(&name));
        let gpu = Gpu {
            node,
            index: self.pods,
            pod: Some(("default".to_owned(), name.clone())),
            utilization: 0,
            fb_used_mib: 100,
        };
        self.pods += 1;
        (name, gpu)
    }

    fn node_of(&self, pod: &str) -> Result<Option<String>, tests::control_plane::KubectlError> {
        let pod = self.cluster.kubectl_json(&["get", "pod", pod])?;
        let running = pod["status"]["phase"] == "Running";
        Ok(pod["spec"]["nodeName"].as_str().filter(|_| running).map(str::to_owned))
    }

    /// Our Events by the pod that they speak of.
    fn events(&self) -> BTreeMap<String, Vec<Value>> {
        let selector = "--field-selector=reportingComponent=gpu-autoscaler.io/controller";
        let events = self.cluster.kubectl_json(&["get", "events", selector]).expect("events");
        let mut by_pod: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for event in events["items"].as_array().expect("a list") {
            let pod = event["involvedObject"]["name"].as_str().expect("a pod").to_owned();
            by_pod.entry(pod).or_default().push(event.clone());
        }
        by_pod
    }

    pub(crate) fn wait_for_event(&self, pod: &str) {
        until(&format!("`{pod}` has an Event"), SOON, || {
            Ok::<_, Infallible>(self.events().contains_key(pod).then_some(()))
        });
    }

    /// Nothing lost, nothing twice.
    pub(crate) fn check_events(&self) {
        let events = self.events();
        for at in 0..self.pods {
            let name = format!("waster-{at}");
            let of_pod = events.get(&name).map_or(0, Vec::len);
            assert_eq!(of_pod, 1, "Events of `{name}`: {:?}", events.get(&name));
        }
        assert_eq!(events.len(), usize::try_from(self.pods).expect("few"), "no pod but these");
    }

    pub(crate) fn policy(&self, name: &str) {
        let policy = json!({
            "apiVersion": "gpu-autoscaler.io/v1alpha1", "kind": "AutoscalingPolicy",
            "metadata": {"name": name}, "spec": {"provider": "aws", "minNodes": 9, "maxNodes": 5},
        });
        self.cluster.create(&policy.to_string()).expect("the schema takes it");
    }

    pub(crate) fn condition(&self, policy: &str, kind: &str) -> Option<Value> {
        let object = self.cluster.kubectl_json(&["get", "asp", policy]).expect("the policy");
        let conditions = object["status"]["conditions"].as_array()?;
        let of_kind: Vec<&Value> = conditions.iter().filter(|c| c["type"] == kind).collect();
        assert!(of_kind.len() <= 1, "twice: {of_kind:?}");
        of_kind.first().map(|condition| (*condition).clone())
    }
}

pub(crate) fn definitions() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/gpu-autoscaler/crds")
}

pub(crate) fn until_true(what: &str, mut look: impl FnMut() -> bool) {
    until(what, SOON, || Ok::<_, Infallible>(look().then_some(())));
}

#[test]
fn killed_at_every_step_of_an_effect_no_finding_is_lost_or_doubled() {
    let Some(mut world) = World::start(2) else { return };
    world.policy("senseless");
    for step in ["before-write", "after-write", "before-receipt"] {
        for _ in 0..2 {
            world.waster();
        }
        let mut dying = world.controller(step, &[&format!("--fail-at={step}")]);
        until_true(&format!("the controller dies {step}"), || {
            dying.process().exit_status().is_some()
        });
        let heir = world.controller(&format!("{step}-heir"), &[]);
        for at in 0..world.pods {
            world.wait_for_event(&format!("waster-{at}"));
        }
        until_true("the condition stands", || {
            world.condition("senseless", "WasteFound").is_some_and(|c| c["status"] == "True")
        });
        drop(heir);
        world.check_events();
    }
    let ready = world.condition("senseless", "Ready").expect("it was judged");
    assert_eq!((&ready["status"], &ready["reason"]), (&json!("False"), &json!("Invalid")));
    assert!(ready["message"].as_str().expect("text").contains("maxNodes: 5"), "{ready}");
}

/// Kills the leader again and again; prints how long nobody led each time.
#[test]
fn the_leader_killed_again_and_again_another_leads_within_ten_seconds() {
    let Some(mut world) = World::start(4) else { return };
    let times = env::var("TIMES").ok().and_then(|times| times.parse().ok()).unwrap_or(3);
    let names = ["replica-a", "replica-b", "replica-c"];
    let mut replicas: Vec<Controller> =
        names.iter().map(|name| world.controller(name, &["--leader-elect"])).collect();
    until_true("somebody leads", || replicas.iter().any(Controller::leads));
    let mut took: Vec<Duration> = Vec::new();
    for _ in 0..times {
        // Something to write is on its way when the leader dies.
        world.waster();
        let leader = until("somebody leads", SOON, || {
            Ok::<_, Infallible>(replicas.iter().position(Controller::leads))
        });
        let killed = Instant::now();
        replicas[leader].process().kill();
        let heirs: Vec<&Controller> =
            replicas.iter().enumerate().filter(|(at, _)| *at != leader).map(|(_, r)| r).collect();
        until_true("another leads", || heirs.iter().any(|replica| replica.leads()));
        took.push(killed.elapsed());
        let leaders = heirs.iter().filter(|replica| replica.leads()).count();
        assert_eq!(leaders, 1, "one leads");
        replicas[leader].start_again().expect("it starts");
        replicas[leader].wait_until_it_serves();
    }
    for at in 0..world.pods {
        world.wait_for_event(&format!("waster-{at}"));
    }
    world.check_events();
    report_failovers(&took);
    let longest = took.iter().max().expect("at least one");
    assert!(*longest < Duration::from_secs(10), "a failover took {longest:?}");
    // A leader that is asked to end gives the lease back: the next one need not wait for expiry.
    let leader = replicas.iter().position(Controller::leads).expect("one leads");
    let asked = Instant::now();
    assert!(replicas[leader].process().terminate(SOON), "SIGTERM is enough");
    until_true("another leads", || {
        replicas.iter().enumerate().any(|(at, replica)| at != leader && replica.leads())
    });
    println!("after SIGTERM: {:.2} s", asked.elapsed().as_secs_f64());
}

fn report_failovers(took: &[Duration]) {
    let mut sorted = took.to_vec();
    sorted.sort_unstable();
    println!("failover  seconds");
    for (at, took) in took.iter().enumerate() {
        println!("{:>8}  {:>7.2}", at + 1, took.as_secs_f64());
    }
    let (median, longest) = (sorted[sorted.len() / 2], sorted[sorted.len() - 1]);
    println!("  median  {:>7.2}\n longest  {:>7.2}", median.as_secs_f64(), longest.as_secs_f64());
    if let Some(path) = env::var_os("FAILOVER_REPORT") {
        let seconds: Vec<f64> = took.iter().map(Duration::as_secs_f64).collect();
        let report = json!({
            "failovers": seconds,
            "median_seconds": median.as_secs_f64(),
            "longest_seconds": longest.as_secs_f64(),
            "limit_seconds": 10,
        });
        fs::write(path, report.to_string()).expect("the report can be written");
    }
}

#[test]
fn a_paused_leader_that_wakes_up_writes_nothing() {
    let Some(mut world) = World::start(2) else { return };
    let mut old = world.controller("old", &["--leader-elect"]);
    until_true("the first leads", || old.leads());
    let mut heir = world.controller("heir", &["--leader-elect"]);
    heir.wait_until_it_serves();
    world.waster();
    world.wait_for_event("waster-0");

    old.process().pause();
    world.waster();
    until_true("the heir leads", || heir.leads());
    world.wait_for_event("waster-1");
    // What the old leader has yet to find out about is written by nobody but the heir.
    heir.process().pause();
    world.waster();
    old.process().resume();
    until_true("the old leader answers", || old.metric("gpu_autoscaler_leader").is_some());
    assert!(!old.leads() || lease_holder(&world).starts_with("old"), "it knows, or has taken over");
    heir.process().resume();
    world.wait_for_event("waster-2");
    until_true("one leads", || old.leads() != heir.leads());
    world.check_events();
    for (pod, events) in world.events() {
        let instance = events[0]["reportingInstance"].as_str().expect("an instance");
        if pod == "waster-1" {
            assert!(instance.starts_with("heir"), "{instance} wrote of {pod}");
        }
    }
}

fn lease_holder(world: &World) -> String {
    let lease = world.cluster.kubectl_json(&["get", "lease", "gpu-autoscaler.io"]);
    let lease = lease.expect("the lease");
    lease["spec"]["holderIdentity"].as_str().unwrap_or("").to_owned()
}

/// How long the API server is gone: OUTAGE_SECS, a minute in `make soak`.
fn outage() -> Duration {
    let seconds = env::var("OUTAGE_SECS").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(20))
}

#[test]
fn an_api_server_that_is_gone_for_a_while_costs_nothing_but_time() {
    let Some(mut world) = World::start(3) else { return };
    let mut controller = world.controller("controller", &["--leader-elect"]);
    world.waster();
    world.wait_for_event("waster-0");
    let (_, measured_later) = world.unmeasured();
    until_true("it is ready", || controller.probe("/readyz").is_ok_and(|(code, _)| code == 200));

    world.cluster.kill(Program::KubeApiserver);
    let gone = Instant::now();
    // What is found meanwhile cannot be told to anybody yet.
    world.exporter.add(measured_later);
    until_true("it is not ready", || {
        controller.probe("/readyz").is_ok_and(|(code, text)| {
            code == 503 && text.contains("[-] watch of Pod: the API server cannot be reached")
        })
    });
    until_true("it does not lead", || !controller.leads());
    until_true("what was known is judged all the same", || pods_shown(&controller) == 2);
    until("the outage is over", outage() + SOON, || {
        let (alive, _) = controller.probe("/healthz")?;
        assert_eq!(alive, 200, "its loop moves on");
        assert!(!controller.leads(), "nobody can lead");
        Ok::<_, std::io::Error>((gone.elapsed() >= outage()).then_some(()))
    });
    println!("the API server was gone for {:.0} s", gone.elapsed().as_secs_f64());

    // While it stands still, the world changes and the server forgets how.
    controller.process().pause();
    world.cluster.start_again(Program::KubeApiserver).expect("the same port, the same state");
    world.cluster.kubectl(&["delete", "pod", "waster-0", "--timeout=120s"]).expect("deleted");
    world.waster();
    controller.process().resume();
    for pod in ["waster-1", "waster-2"] {
        world.wait_for_event(pod);
    }
    until_true("exactly the deleted pod is gone", || pods_shown(&controller) == 2);
    let status = controller.status().expect("a status");
    let shown: Vec<&Value> = (0..2).map(|at| &status["pods"][at]["pod"]).collect();
    assert!(shown.iter().all(|pod| *pod == "waster-1" || *pod == "waster-2"), "{shown:?}");
    for pod in ["waster-1", "waster-2"] {
        assert_eq!(world.events()[pod].len(), 1, "{pod}");
    }
    let expired = controller.metric("gpu_autoscaler_watch_expired_total{kind=\"Pod\"}");
    assert!(expired >= Some(1.0), "the server answered 410 Gone: {expired:?}");
    until_true("it is ready again", || {
        controller.probe("/readyz").is_ok_and(|(code, _)| code == 200)
    });
}

fn pods_shown(controller: &Controller) -> usize {
    controller.status().and_then(|status| Some(status["pods"].as_array()?.len())).unwrap_or(0)
}

#[test]
fn a_malformed_object_stops_no_watch_and_conflicts_are_decided_anew() {
    let Some(mut world) = World::start(1) else { return };
    // An older definition took anything: such objects are still there after an upgrade.
    let loose = definitions().join("autoscalingpolicies.yaml");
    let loose = fs::read_to_string(loose).expect("readable");
    let begin = loose.find("          spec:\n").expect("the schema of the spec");
    let end = loose.find("          status:\n").expect("the schema of the status");
    let any = "          spec:\n            type: object\n            x-kubernetes-preserve-unknown-fields: true\n";
    world.cluster.apply(&format!("{}{any}{}", &loose[..begin], &loose[end..])).expect("taken");
    let bad = json!({
        "apiVersion": "gpu-autoscaler.io/v1alpha1", "kind": "AutoscalingPolicy",
        "metadata": {"name": "bad"}, "spec": {"enabled": "yes"},
    });
    until_true("the loose schema is served", || world.cluster.create(&bad.to_string()).is_ok());
    let controller = world.controller("controller", &[]);
    world.policy("late");
    let malformed = "gpu_autoscaler_watch_malformed_objects{kind=\"AutoscalingPolicy\"}";
    until_true("the malformed object is counted", || controller.metric(malformed) == Some(1.0));
    until_true("the other one is judged", || world.condition("late", "Ready").is_some());
    assert_eq!(world.condition("bad", "Ready"), None, "nothing is said of what cannot be read");

    // Somebody else writes the same object all the time.
    world.waster();
    for round in 0..30 {
        let value = format!("tests.gpu-autoscaler.io/round={round}");
        world.cluster.kubectl(&["annotate", "asp", "late", "--overwrite", &value]).expect("taken");
    }
    until_true("the finding stands in the condition", || {
        world.condition("late", "WasteFound").is_some_and(|c| c["status"] == "True")
    });
    world.wait_for_event("waster-0");
    world.check_events();
}

#[test]
fn conflicts_on_every_second_write_lose_nothing_and_double_nothing() {
    let Some(mut world) = World::start(1) else { return };
    world.policy("prod");
    let conflicts = Conflicts::start(&world.cluster, world.scratch.path()).expect("it starts");
    let kubeconfig = format!("--kubeconfig={}", conflicts.kubeconfig().display());
    let controller = world.controller("controller", &[&kubeconfig]);
    for _ in 0..4 {
        world.waster();
    }
    for at in 0..world.pods {
        world.wait_for_event(&format!("waster-{at}"));
    }
    until_true("the finding stands in the condition", || {
        world.condition("prod", "WasteFound").is_some_and(|c| c["status"] == "True")
    });
    world.check_events();
    let counted = |action: &str| {
        let series =
            format!("gpu_autoscaler_effects_total{{action=\"{action}\",result=\"conflict\"}}");
        controller.metric(&series).unwrap_or(0.0)
    };
    until_true("every conflict has its receipt", || {
        counted("announce") + counted("set_conditions") >= f64::from(conflicts.refused())
    });
    assert!(conflicts.refused() >= 3, "{} writes were refused", conflicts.refused());
}
