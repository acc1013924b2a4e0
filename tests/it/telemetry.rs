//! The product's own reading of telemetry against a real Prometheus.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gpu_autoscaler_model::{GpuSample, Interval, Timestamp};
use gpu_autoscaler_telemetry::connection::{
    Authorization, CertificateFiles, Connection, Credentials,
};
use gpu_autoscaler_telemetry::http::{self, ReadError};
use gpu_autoscaler_telemetry::prometheus::history::{Found, History};
use gpu_autoscaler_telemetry::prometheus::{Answer, Line, Prometheus};
use serde_json::json;
use tests::certificates::{Certificate, CertificateAuthority};
use tests::control_plane::ControlPlane;
use tests::controller::Controller;
use tests::error_chain;
use tests::exporter::{Exporter, Gpu};
use tests::prometheus::{Extras, Options, Prometheus as Server, Target};
use tests::scratch::ScratchDir;
use tests::wait::until;

const SOON: Duration = Duration::from_secs(120);

/// The password of the one user of the guarded Prometheus, and bcrypt's hash of it.
const PASSWORD: &str = "correct horse";
const PASSWORD_HASH: &str = "$2b$04$JqqhHbUFTRGlgA8cwA20Yet7wvka84vnVzMIuIYxPR.81GJBOHChu";

/// Exporters of one node each, and how a Prometheus scrapes them.
fn exporters(nodes: u32, gpus: u32) -> (Vec<Exporter>, Options) {
    let exporters: Vec<Exporter> = (0..nodes)
        .map(|node| {
            let exporter = Exporter::start().expect("a port");
            let node = format!("gpu-{node}");
            let gpu = |index| Gpu {
                node: node.clone(),
                index,
                pod: Some(("team".to_owned(), format!("{node}-pod-{index}"))),
                utilization: 25,
                fb_used_mib: 1000,
            };
            exporter.set((0..gpus).map(gpu).collect());
            exporter
        })
        .collect();
    let targets = exporters
        .iter()
        .map(|exporter| Target { address: exporter.address(), labels: BTreeMap::new() });
    let options = Options {
        scrape_interval: Duration::from_secs(1),
        honor_labels: false,
        targets: targets.collect(),
    };
    (exporters, options)
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    Timestamp::from_millis(since.as_millis().try_into().expect("in range")).expect("in range")
}

fn last(length: Duration) -> Interval {
    let end = now();
    Interval { start: end.before(length), end }
}

fn client(server: &Server, credentials: Credentials) -> Prometheus {
    let url = http::address(&server.url()).expect("an address");
    Prometheus::new(Connection::new(credentials), url)
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(future)
}

fn devices(samples: &[GpuSample]) -> usize {
    let devices: std::collections::BTreeSet<&str> =
        samples.iter().map(|sample| sample.device.uuid.as_str()).collect();
    devices.len()
}

/// What the last seconds brought, once that is something of every GPU.
fn read_until_all(history: &mut History, gpus: usize) -> Found {
    until("every GPU has a sample", SOON, || {
        let found =
            run(history.read(last(Duration::from_secs(10)))).map_err(|e| error_chain(&e))?;
        Ok::<_, String>((devices(&found.samples) == gpus).then_some(found))
    })
}

#[test]
fn samples_are_read_as_they_were_scraped_by_instant_range_and_series() {
    let (_exporters, options) = exporters(2, 2);
    let Some(server) = Server::start_or_skip(&options) else { return };
    let prometheus = client(&server, Credentials::default());
    let found = read_until_all(&mut History::new(prometheus.clone()), 4);
    assert_eq!((found.exporters, found.missing.len(), found.silent.len()), (2, 0, 0));
    for sample in &found.samples {
        let holder = sample.holder.as_ref().expect("its pod");
        assert!(holder.pod.name.starts_with(&format!("{}-pod-", sample.node)), "{holder:?}");
        let activity = sample.activity.expect("a counter").ratio;
        assert!((activity.as_f64() - 0.25).abs() < 1e-6);
        assert!(now().since(sample.at) < Duration::from_secs(60), "the time of the scrape");
    }
    let fb = "DCGM_FI_DEV_FB_USED";
    let instant = run(prometheus.instant(now(), fb)).expect("an answer");
    assert_eq!(values(&instant), [1000.0; 4]);
    let step = Duration::from_secs(1);
    let range = run(prometheus.range(last(5 * step), step, &format!("max({fb})")));
    let range = range.expect("an answer");
    assert_eq!(range.found.len(), 1);
    assert!(range.found[0].points.iter().all(|(_, value)| value == &1000.0));
    let series = run(prometheus.series(last(60 * step), fb)).expect("an answer").found;
    assert_eq!(series.len(), 4);
    assert!(series.iter().all(|labels| labels["__name__"] == fb));
    let refused = run(prometheus.instant(now(), "up{")).expect_err("no PromQL");
    assert!(refused.to_string().contains("answers 400: bad_data: "), "{refused}");
}

fn values(answer: &Answer<Vec<Line>>) -> Vec<f64> {
    answer.found.iter().flat_map(|line| line.points.iter().map(|(_, value)| *value)).collect()
}

#[test]
fn a_server_that_gives_little_at_once_is_asked_for_less() {
    let (_exporters, options) = exporters(6, 50);
    // Ten seconds are up to 1,650 samples of one exporter, and 9,900 of all.
    let arguments = vec!["--query.max-samples=2500".to_owned()];
    let extras = Extras { arguments, ..Extras::default() };
    let Some(server) = Server::start_with_or_skip(&options, &extras) else { return };
    let prometheus = client(&server, Credentials::default());
    let all = r#"{__name__=~"DCGM_FI_.*"}[10s]"#;
    let refused = until("ten seconds of all are too much at once", SOON, || {
        let answer = run(prometheus.instant(now(), all)).map_err(|error| error.to_string());
        Ok::<_, Infallible>(answer.err().filter(|why| why.contains("answers 422")))
    });
    assert!(refused.contains("execution: query processing would load too many samples"));
    let found = read_until_all(&mut History::new(prometheus), 300);
    assert_eq!((found.exporters, found.missing), (6, vec![]));
}

#[test]
fn a_store_behind_prometheus_that_is_away_makes_answers_partial() {
    let (_exporters, options) = exporters(1, 2);
    // Nobody listens on a port of 1.
    let remote_read = Some("http://127.0.0.1:1/read".to_owned());
    let extras = Extras { remote_read, ..Extras::default() };
    let Some(server) = Server::start_with_or_skip(&options, &extras) else { return };
    let mut history = History::new(client(&server, Credentials::default()));
    let found = read_until_all(&mut history, 2);
    assert_eq!(devices(&found.samples), 2, "what is known is used");
    let missing = &found.missing[0];
    assert_eq!(missing.exporters, 1);
    assert!(missing.why.contains("remote"), "{missing:?}");
}

/// A Prometheus that wants a client certificate and a password, and files that prove who asks.
struct Guarded {
    server: Server,
    scratch: ScratchDir,
    authority: CertificateAuthority,
    _exporters: Vec<Exporter>,
}

impl Guarded {
    fn start() -> Option<Self> {
        let authority = CertificateAuthority::generate().expect("an authority");
        let scratch = ScratchDir::create("guarded").expect("a folder");
        let file = |name: &str, text: &str| scratch.write(name, text).expect("writable");
        let server = authority.server(&["127.0.0.1"]).expect("a certificate");
        let web = json!({
            "tls_server_config": {
                "cert_file": file("server.crt", &server.certificate_pem),
                "key_file": file("server.key", &server.key_pem),
                "client_auth_type": "RequireAndVerifyClientCert",
                "client_ca_file": file("ca.crt", &authority.certificate_pem()),
            },
            "basic_auth_users": { "autoscaler": PASSWORD_HASH },
        });
        let (exporters, options) = exporters(1, 2);
        let extras = Extras { web: Some(web), ..Extras::default() };
        let server = Server::start_with_or_skip(&options, &extras)?;
        file("password", &format!("{PASSWORD}\n"));
        let this = Self { server, scratch, authority, _exporters: exporters };
        this.show(&this.authority.client("controller").expect("a certificate"));
        Some(this)
    }

    /// Puts a client certificate where it is looked for.
    fn show(&self, certificate: &Certificate) {
        self.scratch.write("client.crt", &certificate.certificate_pem).expect("writable");
        self.scratch.write("client.key", &certificate.key_pem).expect("writable");
    }

    fn file(&self, name: &str) -> PathBuf {
        self.scratch.join(name)
    }

    fn credentials(&self) -> Credentials {
        Credentials {
            authorization: Some(Authorization::Basic {
                username: "autoscaler".to_owned(),
                password_file: self.file("password"),
            }),
            certificate: Some(CertificateFiles {
                certificate_file: self.file("client.crt"),
                key_file: self.file("client.key"),
            }),
            authority_file: Some(self.file("ca.crt")),
            org_id: None,
        }
    }
}

#[test]
fn a_guarded_prometheus_is_read_and_rotated_files_are_followed() {
    let Some(guarded) = Guarded::start() else { return };
    let prometheus = client(&guarded.server, guarded.credentials());
    let ask = || run(prometheus.instant(now(), "vector(1)"));
    assert_eq!(values(&ask().expect("an answer")), [1.0]);

    guarded.scratch.write("password", "battery staple").expect("writable");
    let refused = ask().expect_err("a wrong password");
    assert!(matches!(refused, ReadError::Status { status: 401, .. }), "{refused}");
    assert!(!format!("{refused:?}").contains("staple"));
    guarded.scratch.write("password", PASSWORD).expect("writable");
    ask().expect("the right password again");

    let stranger = CertificateAuthority::generate().expect("an authority");
    guarded.show(&stranger.client("controller").expect("a certificate"));
    let refused = ask().expect_err("a certificate that the server does not trust");
    assert!(matches!(refused, ReadError::Connection { .. }), "{refused}");
    guarded.show(&guarded.authority.client("renewed").expect("a certificate"));
    ask().expect("the renewed certificate");

    let no_certificate = Credentials { certificate: None, ..guarded.credentials() };
    let refused = run(client(&guarded.server, no_certificate).instant(now(), "vector(1)"));
    assert!(matches!(refused, Err(ReadError::Connection { .. })), "{refused:?}");
    let other_authority = guarded.scratch.write("other.crt", &stranger.certificate_pem());
    let other_authority = Credentials {
        authority_file: Some(other_authority.expect("writable")),
        ..guarded.credentials()
    };
    let refused = run(client(&guarded.server, other_authority).instant(now(), "vector(1)"));
    let refused = error_chain(&refused.expect_err("a server that is not trusted"));
    assert!(refused.contains("certificate"), "{refused}");
    guarded.scratch.write("client.key", "no key").expect("writable");
    let refused = ask().expect_err("no key");
    assert!(matches!(refused, ReadError::Secret { .. }), "{refused}");
}

#[test]
fn a_controller_reads_a_guarded_prometheus_and_shows_no_secret() {
    let Some(guarded) = Guarded::start() else { return };
    let Some(cluster) = ControlPlane::start_or_skip(&Default::default()) else { return };
    let flag = |name: &str, file: &str| format!("--{name}={}", guarded.file(file).display());
    let flags = [
        format!("--prometheus-url={}", guarded.server.url()),
        "--prometheus-username=autoscaler".to_owned(),
        flag("prometheus-password-file", "password"),
        flag("prometheus-cert-file", "client.crt"),
        flag("prometheus-key-file", "client.key"),
        flag("prometheus-ca-file", "ca.crt"),
        "--zap-log-level=debug".to_owned(),
    ];
    let mut controller =
        Controller::start(&cluster, guarded.scratch.path(), "guarded", &flags).expect("it starts");
    let wait_for = |line: &str| {
        until(line, SOON, || {
            let probed = controller.probe("/readyz").ok();
            Ok::<_, Infallible>(probed.filter(|(_, body)| body.contains(line)))
        })
    };
    wait_for("[+] telemetry ok");
    guarded.scratch.write("password", "battery staple").expect("writable");
    let (_, body) = wait_for("answers 401");
    assert!(!body.contains("staple") && !body.contains(PASSWORD), "{body}");
    guarded.scratch.write("password", PASSWORD).expect("writable");
    wait_for("[+] telemetry ok");

    let process = controller.process();
    let log = fs::read_to_string(process.log()).expect("readable");
    let command = fs::read_to_string(format!("/proc/{}/cmdline", process.pid()));
    let command = command.expect("it runs");
    for secret in [PASSWORD, "battery staple", "PRIVATE KEY"] {
        assert!(!log.contains(secret) && !command.contains(secret), "`{secret}` is shown");
    }
}
