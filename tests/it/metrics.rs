//! What the running controller exposes and answers, held against its own documents.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::{fs, thread};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message as _;
use serde_json::{Value, json};
use tests::control_plane::Options;
use tests::controller::Controller;
use tests::exporter::Gpu;
use tests::manifests::{SHAPES, gpu_node, gpu_pod, list};
use tests::program::Program;
use tests::wait::poll;

use crate::controller::{SOON, World, until_true};

/// The metrics that `docs/metrics.md` marks as published; a test of the controller holds that page
/// against the program.
fn published() -> Vec<String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    let page = fs::read_to_string(page).expect("the page");
    let rows = page.lines().filter(|line| line.contains("| published |"));
    let names = rows.filter_map(|row| row.strip_prefix("| `")?.split('`').next());
    names.map(str::to_owned).collect()
}

/// Every value that each series was seen with.
#[derive(Default)]
struct Seen(BTreeMap<String, BTreeSet<String>>);

impl Seen {
    fn look(&mut self, controller: &Controller) {
        let (code, text) = controller.get("/metrics").expect("it answers");
        assert_eq!(code, 200);
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (series, value) = line.rsplit_once(' ').expect("a series and a value");
            self.0.entry(series.to_owned()).or_default().insert(value.to_owned());
        }
    }

    /// With how many values that series of a metric was seen that moved most.
    fn values_of(&self, name: &str) -> usize {
        let of_name = |series: &str| {
            let rest = series.strip_prefix(name);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['{', '_']))
        };
        let series = self.0.iter().filter(|(series, _)| of_name(series));
        series.map(|(_, values)| values.len()).max().unwrap_or(0)
    }

    /// Of `names`, those of which no series was seen with two values, and with how many.
    fn unmoved<'n>(&self, names: &'n [String]) -> Vec<(&'n str, usize)> {
        let counted = names.iter().map(|name| (name.as_str(), self.values_of(name)));
        counted.filter(|(_, values)| *values < 2).collect()
    }
}

#[test]
fn every_published_metric_has_samples_whose_values_move() {
    let Some(mut world) = World::start_with(1, &Options::default()) else { return };
    let names = published();
    assert!(names.len() > 10, "{names:?}");
    let collector = Collector::start();
    let endpoint = format!("--otlp-endpoint=http://{}", collector.address);
    let mut controller = world.controller("metrics", &[&endpoint]);
    let mut seen = Seen::default();
    until_true("it judges", || controller.metric("gpu_autoscaler_gpus").is_some());
    seen.look(&controller);

    // Idle GPUs, then busy ones; pods that hold them, one that waits, a node of another kind.
    let free = |utilization| {
        let gpus = (1..SHAPES[0].gpus).map(move |index| Gpu {
            node: "gpu-0".to_owned(),
            index,
            pod: None,
            utilization,
            fb_used_mib: 0,
        });
        gpus.collect::<Vec<_>>()
    };
    world.waster();
    free(0).into_iter().for_each(|gpu| world.exporter.add(gpu));
    world.wait_for_event("waster-0");
    seen.look(&controller);
    validate_api(&controller);
    world.cluster.create(&list([gpu_pod("default", "waits", 99)])).expect("created");
    let mut spot = gpu_node("spot-0", &SHAPES[2]);
    spot["metadata"]["labels"]["karpenter.sh/capacity-type"] = json!("spot");
    let mut further = gpu_node("gpu-1", &SHAPES[3]);
    further["metadata"]["labels"]["karpenter.sh/capacity-type"] = json!("on-demand");
    world.cluster.create(&list([spot, further])).expect("created");
    let held = |utilization| Gpu {
        node: "gpu-0".to_owned(),
        index: 0,
        pod: Some(("default".to_owned(), "waster-0".to_owned())),
        utilization,
        fb_used_mib: 20_000,
    };
    world.exporter.set([vec![held(30)], free(95)].concat());
    let node = "gpu_autoscaler_node_count{capacity_type=\"spot\"}";
    until_true("the new nodes are judged", || {
        seen.look(&controller);
        controller.metric(node) == Some(1.0)
    });

    // A write that is not answered.
    world.cluster.create(&list([gpu_pod("default", "late", 1)])).expect("created");
    until_true("the late pod is known", || {
        let status = controller.status().expect("a status");
        let pods = status["pods"].as_array().expect("a list");
        pods.iter().any(|pod| pod["pod"] == "late" && pod["node"].is_string())
    });
    let status = controller.status().expect("a status");
    let pods = status["pods"].as_array().expect("a list");
    let late = pods.iter().find(|pod| pod["pod"] == "late").expect("it is there");
    world.cluster.kill(Program::KubeApiserver);
    let late = Gpu {
        node: late["node"].as_str().expect("bound").to_owned(),
        index: 7,
        pod: Some(("default".to_owned(), "late".to_owned())),
        utilization: 0,
        fb_used_mib: 0,
    };
    world.exporter.set([vec![held(60), late], free(95)].concat());
    let all_move = poll(SOON, || {
        seen.look(&controller);
        Ok::<_, std::convert::Infallible>(seen.unmoved(&names).is_empty().then_some(()))
    });
    let unmoved = seen.unmoved(&names);
    assert_eq!(all_move, Ok(Some(())), "names and how many values were seen: {unmoved:?}");
    println!("{} published metrics have samples whose values move", names.len());

    // What was not sent yet is sent at the end.
    assert!(controller.process().terminate(SOON), "SIGTERM is enough");
    let spans = collector.spans();
    let wanted = ["reconcile", "perform effect", "request"];
    for name in wanted {
        assert!(spans.contains_key(name), "no span `{name}` among {spans:?}");
    }
    println!("spans were sent: {spans:?}");
}

/// Takes spans as an OpenTelemetry collector does: OTLP, protocol buffers over HTTP.
struct Collector {
    address: SocketAddr,
    spans: Arc<Mutex<BTreeMap<String, usize>>>,
}

impl Collector {
    fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let this = Self { address: listener.local_addr().expect("bound"), spans: Arc::default() };
        let spans = Arc::clone(&this.spans);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let request = receive(stream).expect("a request of OTLP");
                let of_resource = request.resource_spans.into_iter();
                let of_scope = of_resource.flat_map(|resource| resource.scope_spans);
                let mut spans = spans.lock().expect("no holder panics");
                for span in of_scope.flat_map(|scope| scope.spans) {
                    assert!(span.end_time_unix_nano >= span.start_time_unix_nano);
                    *spans.entry(span.name).or_default() += 1;
                }
            }
        });
        this
    }

    /// How many spans of each name came.
    fn spans(&self) -> BTreeMap<String, usize> {
        self.spans.lock().expect("no holder panics").clone()
    }
}

/// Reads one request and answers that all of it was taken.
fn receive(mut stream: TcpStream) -> io::Result<ExportTraceServiceRequest> {
    let mut lines = BufReader::new(stream.try_clone()?);
    let (mut line, mut length) = (String::new(), 0);
    lines.read_line(&mut line)?;
    assert!(line.starts_with("POST /v1/traces "), "{line}");
    while line != "\r\n" {
        line.clear();
        lines.read_line(&mut line)?;
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
    }
    let mut body = vec![0; length];
    lines.read_exact(&mut body)?;
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\n";
    write!(stream, "{head}Content-Length: 0\r\nConnection: close\r\n\r\n")?;
    ExportTraceServiceRequest::decode(body.as_slice()).map_err(io::Error::other)
}

/// Asks every route of the description that the controller serves, and holds the answers against
/// it.
fn validate_api(controller: &Controller) {
    let (code, text) = controller.get("/api/v1/openapi.json").expect("it answers");
    assert_eq!(code, 200);
    let document: Value = serde_json::from_str(&text).expect("JSON");
    let paths = document["paths"].as_object().expect("paths");
    for (template, operations) in paths {
        let path = template.replace("{namespace}", "default").replace("{pod}", "waster-0");
        let (code, text) = controller.get(&path).expect("it answers");
        assert_eq!(code, 200, "{path}: {text}");
        let answer: Value = serde_json::from_str(&text).expect("JSON");
        let content = &operations["get"]["responses"]["200"]["content"]["application/json"];
        let mut schema = content["schema"].clone();
        schema["components"] = document["components"].clone();
        let validator = jsonschema::draft202012::new(&schema).expect("a schema");
        let errors: Vec<String> = validator.iter_errors(&answer).map(|e| e.to_string()).collect();
        assert!(errors.is_empty(), "{path}: {errors:?}");
    }
    println!("{} routes answer as they are described", paths.len());
}
