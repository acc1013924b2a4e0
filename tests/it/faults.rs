//! What the controller lives through: each fault is told by the readiness probe, a metric and, as
//! long as it can be written, the condition of a policy; and is over when it is over.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};
use std::{env, fs};

use serde_json::{Value, json};
use tests::conflicts::Conflicts;
use tests::control_plane::{Options, User};
use tests::controller::Controller;
use tests::program::Program;
use tests::prometheus::{self, Prometheus, Target};
use tests::skip::skip_or_fail;
use tests::wait::{poll, until};

use crate::chart::helm::{Helm, named};
use crate::controller::{SOON, World, until_true};

/// The user that the controller runs as; it may do what the chart's role allows.
const USER: &str = "controller";
/// The role and its binding.
const ROLE: &str = "gpu-autoscaler-controller";
/// The policy whose condition is looked at.
const POLICY: &str = "fleet";

/// Everything that a fault may break.
struct Stage {
    /// Where the history is kept. First, so that it is gone before the folder that it is in.
    disk: Option<Disk>,
    world: World,
    prometheus: Prometheus,
    controller: Controller,
    role: Value,
    /// How long the API server stays dead.
    down: Duration,
}

/// What is expected of a fault while it lasts.
struct Expected {
    fault: &'static str,
    /// In the body of `/readyz`.
    ready: &'static str,
    /// The code of `/readyz`: 200 where what is known is as good as before.
    code: u16,
    /// A series, and its value.
    metric: (&'static str, f64),
    /// Part of the message of `Degraded`; nothing where it cannot be written.
    condition: Result<&'static str, &'static str>,
}

type Fault = (Expected, fn(&mut Stage), fn(&mut Stage));

/// A file system of 16 MiB of its own, in memory.
struct Disk(PathBuf);

impl Disk {
    /// At `path`; skips aloud what needs it where this user may not mount one.
    fn mount_or_skip(path: PathBuf) -> Option<Self> {
        fs::create_dir_all(&path).expect("a folder");
        let options = ["-t", "tmpfs", "-o", "size=16m", "tmpfs"];
        let mounted = Command::new("mount").args(options).arg(&path).output();
        match mounted {
            Ok(done) if done.status.success() => Some(Self(path)),
            Ok(done) => {
                let why = String::from_utf8_lossy(&done.stderr).trim().to_owned();
                skip_or_fail(&format!("the full disk: {why}"));
                None
            }
            Err(error) => {
                skip_or_fail(&format!("the full disk: no `mount`: {error}"));
                None
            }
        }
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: the controller may still have its file open.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn every_fault_is_told_and_is_over_when_it_is_over() {
    let Some(mut stage) = Stage::set() else { return };
    let mut faults = faults();
    let seed: usize = env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let count = faults.len();
    faults.rotate_left(seed % count);
    if stage.disk.is_some() {
        // First: once its log was written over for the first time, SQLite needs no space for long.
        faults.insert(0, full_disk());
    }
    println!("seed={seed}");
    let mut table = "fault | readyz | metric | condition Degraded | recovered after\n".to_owned();
    for (expected, inject, heal) in &faults {
        stage.wait_until_well();
        inject(&mut stage);
        let told = stage.told(expected);
        let ended = Instant::now();
        heal(&mut stage);
        stage.wait_until_well();
        let _ = writeln!(table, "{told} | {:.1} s", ended.elapsed().as_secs_f64());
    }
    let _ = writeln!(table, "{}", stage.conflicts());
    println!("{table}every finding has its one Event after all of it");
}

fn full_disk() -> Fault {
    (
        Expected {
            fault: "a full disk",
            ready: "[!] history: history `",
            code: 200,
            metric: ("gpu_autoscaler_part_works{part=\"history\"}", 0.0),
            condition: Ok("no space is left on its disk"),
        },
        |stage| {
            let disk = stage.disk.as_ref().expect("it was mounted");
            fs::write(disk.ballast(), vec![1; 32 << 20]).expect_err("more than there is");
        },
        |stage| {
            let disk = stage.disk.as_ref().expect("it was mounted");
            fs::remove_file(disk.ballast()).expect("it was written");
            until_true("what was learned is written again", || {
                let (_, body) = stage.readyz();
                let series = "gpu_autoscaler_part_works{part=\"history\"}";
                !body.contains("[!] history") && stage.controller.metric(series) == Some(1.0)
            });
        },
    )
}

fn faults() -> Vec<Fault> {
    let part = |part: &'static str| (part, 0.0);
    vec![
        (
            Expected {
                fault: "no Prometheus",
                ready: "[-] telemetry: 1 of 1 sources cannot be read",
                code: 503,
                metric: ("gpu_autoscaler_telemetry_sources_failing", 1.0),
                condition: Ok("telemetry: 1 of 1 sources cannot be read"),
            },
            |stage| stage.prometheus.process().kill(),
            |stage| stage.prometheus.start_again().expect("it starts again"),
        ),
        (
            Expected {
                fault: "a CRD is missing",
                ready: "[-] watch of CostBudget: the API server does not know this kind",
                code: 503,
                metric: ("gpu_autoscaler_watch_absent{kind=\"CostBudget\"}", 1.0),
                condition: Ok("watch of CostBudget: the API server does not know this kind"),
            },
            |stage| stage.kubectl(&["delete", "crd", "costbudgets.gpu-autoscaler.io"]),
            |stage| stage.world.define(),
        ),
        (
            Expected {
                fault: "no CRDs",
                ready: "[-] watch of AutoscalingPolicy: the API server does not know this kind",
                code: 503,
                metric: ("gpu_autoscaler_watch_absent{kind=\"AutoscalingPolicy\"}", 1.0),
                condition: Err("gone with its definition"),
            },
            |stage| {
                let all = ["delete", "crd", "--all"];
                stage.kubectl(&all);
            },
            |stage| {
                stage.world.define();
                stage.policy();
            },
        ),
        (
            Expected {
                fault: "no permission to watch pods",
                ready: "[-] watch of Pod: the API server answers",
                code: 503,
                metric: part("gpu_autoscaler_part_works{part=\"watch of Pod\"}"),
                condition: Ok("watch of Pod: the API server answers"),
            },
            |stage| {
                stage.allow(|resource, _| resource != "pods");
                // A watch that was allowed goes on; a server that restarts ends it.
                stage.restart_api_server();
            },
            |stage| stage.allow(|_, _| true),
        ),
        (
            Expected {
                fault: "no permission to write Events",
                ready: "[-] writes: the last `announce` failed: the API server answers",
                code: 503,
                metric: part("gpu_autoscaler_part_works{part=\"writes\"}"),
                condition: Ok("writes: the last `announce` failed: the API server answers"),
            },
            |stage| {
                stage.allow(|resource, verb| (resource, verb) != ("events", "create"));
                stage.world.waster();
            },
            |stage| stage.allow(|_, _| true),
        ),
        (
            Expected {
                fault: "no permission at all",
                ready: "[-] watch of Node: the API server answers",
                code: 503,
                metric: part("gpu_autoscaler_part_works{part=\"watch of Node\"}"),
                condition: Err("may not be written"),
            },
            |stage| {
                stage.allow(|_, _| false);
                stage.restart_api_server();
            },
            |stage| stage.allow(|_, _| true),
        ),
        (
            Expected {
                fault: "a dead API server",
                ready: "[-] watch of Pod: the API server cannot be reached",
                code: 503,
                metric: part("gpu_autoscaler_part_works{part=\"watch of Pod\"}"),
                condition: Err("cannot be written"),
            },
            |stage| stage.world.cluster.kill(Program::KubeApiserver),
            |stage| {
                let cluster = &mut stage.world.cluster;
                cluster.start_again(Program::KubeApiserver).expect("the same port and state");
            },
        ),
    ]
}

impl Stage {
    fn set() -> Option<Self> {
        let helm = Helm::find_or_skip()?;
        let role = named(&helm.objects(&[]), "ClusterRole", ROLE).clone();
        let users = vec![User { name: USER.to_owned(), groups: vec![] }];
        let mut world = World::start_with(1, &Options { users, ..Options::default() })?;
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": {"name": ROLE},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": ROLE,
            },
            "subjects": [{
                "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": USER,
            }],
        });
        world.cluster.apply(&role.to_string()).expect("the role");
        world.cluster.apply(&binding.to_string()).expect("the binding");
        let address = world.exporter.url();
        let address = address.trim_start_matches("http://").trim_end_matches("/metrics");
        let target =
            Target { address: address.parse().expect("an address"), labels: Default::default() };
        let prometheus = Prometheus::start_or_skip(&prometheus::Options {
            scrape_interval: Duration::from_secs(1),
            honor_labels: true,
            targets: vec![target],
        })?;
        let kubeconfig = world.cluster.kubeconfig_of_user(USER).expect("it was asked for");
        let disk = Disk::mount_or_skip(world.scratch.join("disk"));
        let kept = match &disk {
            Some(disk) => disk.0.clone(),
            None => world.scratch.join("kept"),
        };
        let flags = [
            format!("--kubeconfig={}", kubeconfig.display()),
            format!("--prometheus-url={}", prometheus.url()),
            format!("--history-dir={}", kept.display()),
        ];
        world.waster();
        let controller =
            Controller::start(&world.cluster, world.scratch.path(), "controller", &flags);
        let controller = controller.expect("it starts");
        let secs = env::var("DOWN_SECS").ok().and_then(|secs| secs.parse().ok()).unwrap_or(5);
        let down = Duration::from_secs(secs);
        let stage = Self { disk, world, prometheus, controller, role, down };
        stage.policy();
        Some(stage)
    }

    fn policy(&self) {
        let policy = json!({
            "apiVersion": "gpu-autoscaler.io/v1alpha1", "kind": "AutoscalingPolicy",
            "metadata": {"name": POLICY}, "spec": {"provider": "aws", "enabled": false},
        });
        until_true("the policy is taken", || self.world.cluster.apply(&policy.to_string()).is_ok());
    }

    fn kubectl(&self, arguments: &[&str]) {
        self.world.cluster.kubectl(arguments).expect("kubectl");
    }

    /// Gives the controller those rights of the chart's role that `keep` wants.
    fn allow(&self, keep: impl Fn(&str, &str) -> bool) {
        let mut role = self.role.clone();
        let mut rules = Vec::new();
        for rule in self.role["rules"].as_array().expect("rules") {
            for resource in rule["resources"].as_array().expect("resources") {
                let name = resource.as_str().expect("a name");
                let verbs = rule["verbs"].as_array().expect("verbs").iter();
                let verbs: Vec<&Value> =
                    verbs.filter(|verb| keep(name, verb.as_str().expect("a verb"))).collect();
                if !verbs.is_empty() {
                    let groups = &rule["apiGroups"];
                    rules.push(json!({
                        "apiGroups": groups, "resources": [name], "verbs": verbs,
                    }));
                }
            }
        }
        role["rules"] = rules.into();
        self.world.cluster.apply(&role.to_string()).expect("the role");
    }

    fn restart_api_server(&mut self) {
        self.world.cluster.kill(Program::KubeApiserver);
        self.world.cluster.start_again(Program::KubeApiserver).expect("the same port and state");
    }

    fn readyz(&self) -> (u16, String) {
        self.controller.probe("/readyz").expect("it answers")
    }

    fn degraded(&self) -> Option<(bool, String)> {
        let object = self.world.cluster.kubectl_json(&["get", "asp", POLICY]).ok()?;
        let conditions = object["status"]["conditions"].as_array()?;
        let condition = conditions.iter().find(|c| c["type"] == "Degraded")?;
        let message = condition["message"].as_str()?.to_owned();
        Some((condition["status"] == "True", message))
    }

    /// Ready, and the condition says so.
    fn wait_until_well(&self) {
        let mut last = String::new();
        let well = poll(SOON * 2, || {
            let (code, body) = self.readyz();
            let condition = self.degraded();
            let well = code == 200 && matches!(condition, Some((false, _)));
            last = format!("{body}{condition:?}");
            Ok::<_, Infallible>(well.then_some(()))
        });
        assert_eq!(well, Ok(Some(())), "not well again: {last}");
    }

    /// Waits until the fault is told of everywhere; the row of the table without its last cell.
    fn told(&self, expected: &Expected) -> String {
        let Expected { fault, ready, code: expected_code, metric: (series, value), condition } =
            expected;
        let began = Instant::now();
        let line = until(&format!("{fault}: `{ready}` in /readyz"), SOON, || {
            let (code, body) = self.readyz();
            let line = body.lines().find(|line| line.starts_with(ready)).map(str::to_owned);
            Ok::<_, Infallible>(line.filter(|_| code == *expected_code))
        });
        until_true(&format!("{fault}: {series} is {value}"), || {
            self.controller.metric(series) == Some(*value)
        });
        let condition = match condition {
            Ok(message) => until(&format!("{fault}: the condition says `{message}`"), SOON, || {
                let said = self.degraded().filter(|(is, said)| *is && said.contains(message));
                Ok::<_, Infallible>(said.map(|_| "True".to_owned()))
            }),
            Err(why) => (*why).to_owned(),
        };
        // It lasts for a while, and the loop goes on meanwhile.
        let reconciled = || self.controller.metric("gpu_autoscaler_last_reconcile_timestamp");
        let before = reconciled();
        until_true(&format!("{fault}: the loop goes on"), || {
            let lasted = !fault.contains("dead") || began.elapsed() >= self.down;
            lasted && reconciled() > before
        });
        let (alive, _) = self.controller.probe("/healthz").expect("it answers");
        assert_eq!(alive, 200, "{fault}: it is alive");
        let line: String = line.chars().take(90).collect();
        format!("{fault} | {line} | {series} {value} | {condition}")
    }

    /// A second controller, every second write of which is answered with a conflict; it writes
    /// what the first was not allowed to.
    fn conflicts(&mut self) -> String {
        self.controller.process().kill();
        let conflicts = Conflicts::start(&self.world.cluster, self.world.scratch.path());
        let conflicts = conflicts.expect("it starts");
        self.kubectl(&["delete", "asp", POLICY]);
        self.policy();
        let kubeconfig = format!("--kubeconfig={}", conflicts.kubeconfig().display());
        let heir = self.world.controller("heir", &[&kubeconfig]);
        for _ in 0..3 {
            self.world.waster();
        }
        let began = Instant::now();
        let counted = || {
            let of = ["announce", "set_conditions"].map(|action| {
                let labels = format!("{{action=\"{action}\",result=\"conflict\"}}");
                heir.metric(&format!("gpu_autoscaler_effects_total{labels}")).unwrap_or(0.0)
            });
            of.iter().sum::<f64>()
        };
        until_true("conflicts are counted", || counted() > 0.0);
        let (code, body) = heir.probe("/readyz").expect("it answers");
        assert!(body.contains("[+] writes ok"), "a conflict is an answer: {code} {body}");
        for at in 0..self.world.pods {
            self.world.wait_for_event(&format!("waster-{at}"));
        }
        until_true("the condition stands", || self.degraded().is_some_and(|(is, _)| !is));
        self.world.check_events();
        let series = "gpu_autoscaler_effects_total{result=\"conflict\"}";
        let (counted, took) = (counted(), began.elapsed().as_secs_f64());
        format!("conflicts | [+] writes ok | {series} {counted} | False, written | {took:.1} s")
    }
}
