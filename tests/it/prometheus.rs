//! Prometheus as the tests start it.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use tests::prometheus::{Options, Prometheus, PrometheusError, Target};
use tests::wait::until;

const SOON: Duration = Duration::from_secs(60);

#[test]
fn targets_are_scraped_and_may_change() {
    let exporter = exporter("DCGM_FI_DEV_GPU_UTIL{gpu=\"0\",pod=\"train-0\"} 87\n");
    let target = Target {
        address: exporter,
        labels: BTreeMap::from([("pod".into(), "dcgm-exporter-x".into())]),
    };
    let options = Options {
        scrape_interval: Duration::from_secs(1),
        honor_labels: false,
        targets: vec![target],
    };
    let Some(mut prometheus) = Prometheus::start_or_skip(&options) else { return };

    let sample = until("the exporter is scraped", SOON, || {
        prometheus.query("DCGM_FI_DEV_GPU_UTIL").map(|samples| samples.into_iter().next())
    });
    assert_eq!(sample["value"][1], "87");
    assert_eq!(sample["metric"]["pod"], "dcgm-exporter-x");
    assert_eq!(sample["metric"]["exported_pod"], "train-0");

    let scrapes = |prometheus: &Prometheus| {
        let counted = prometheus.query("sum(count_over_time(up[1h]))").expect("an answer");
        let count = counted.first().and_then(|sample| sample["value"][1].as_str());
        count.map_or(0, |count| count.parse::<u32>().expect("a whole number"))
    };
    let before = scrapes(&prometheus);
    assert!(before > 0);

    prometheus.process().kill();
    let gone = prometheus.query("up").expect_err("nobody listens");
    assert!(matches!(gone, PrometheusError::Http { .. }), "{gone}");
    prometheus.start_again().expect("start again");
    assert!(scrapes(&prometheus) >= before, "samples of before the crash are kept");
    until("the exporter is scraped again", SOON, || {
        Ok::<_, String>((scrapes(&prometheus) > before).then_some(()))
    });

    prometheus.set_targets(&[]).expect("write the targets");
    until("the removed target is stale", SOON, || {
        prometheus.query("up").map(|samples| samples.is_empty().then_some(()))
    });
    let refused = prometheus.query("up{").expect_err("no PromQL");
    assert!(matches!(refused, PrometheusError::Refused { .. }), "{refused}");
}

/// Serves `text` as an exporter does, until the test process ends.
fn exporter(text: &'static str) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
    let address = listener.local_addr().expect("bound");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A scraper that hangs up early is no concern of the exporter.
            let _ = answer(&stream, text);
        }
    });
    address
}

fn answer(mut stream: &TcpStream, text: &str) -> std::io::Result<()> {
    let mut request = BufReader::new(stream).lines();
    while request.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let length = text.len();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n{text}"
    )
}
