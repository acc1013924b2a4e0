//! Against a scripted server: answers that a real one cannot be made to give. What a real one
//! gives is tested in `tests/it/telemetry.rs`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use gpu_autoscaler_model::Ratio;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Barrier;

use super::history::{Found, History};
use super::*;
use crate::connection::{Authorization, Credentials};

/// Answers each connection with what `script` makes of the request; remembers the requests.
struct Scripted {
    base: Url,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Scripted {
    async fn start(script: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let port = listener.local_addr().expect("bound").port();
        let requests: Arc<Mutex<Vec<String>>> = Arc::default();
        let (seen, script) = (Arc::clone(&requests), Arc::new(script));
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.expect("a caller");
                let (seen, script) = (Arc::clone(&seen), Arc::clone(&script));
                tokio::spawn(async move {
                    let request = whole_request(&mut stream).await;
                    let reply = script(&request);
                    seen.lock().expect("no panic").push(request);
                    let _ = stream.write_all(reply.as_bytes()).await;
                });
            }
        });
        let base = http::address(&format!("http://someone:word@127.0.0.1:{port}/prefix"));
        Self { base: base.expect("valid"), requests }
    }

    fn prometheus(&self, credentials: Credentials) -> Prometheus {
        Prometheus::new(Connection::new(credentials), self.base.clone())
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().expect("no panic").clone()
    }
}

/// Head and body, percent-decoded as far as the scripts look at it.
async fn whole_request(stream: &mut tokio::net::TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let read = stream.read(&mut chunk).await.unwrap_or(0);
        bytes.extend_from_slice(&chunk[..read]);
        let text = String::from_utf8_lossy(&bytes);
        let whole = text.split_once("\r\n\r\n").is_some_and(|(head, body)| {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            body.len() >= length.and_then(|length| length.parse().ok()).unwrap_or(0)
        });
        if whole || read == 0 {
            return text.replace("%3A", ":").replace("%7C", "|").replace("%5C%5C", "\\");
        }
    }
}

fn reply(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn success(kind: &str, result: &[String], warnings: &str) -> String {
    let result = result.join(",");
    let body = format!(
        r#"{{"status":"success","warnings":[{warnings}],
            "data":{{"resultType":"{kind}","result":[{result}]}}}}"#
    );
    reply("200 OK", &body)
}

/// Plays a Prometheus with these exporters, whose GPUs are half busy; what `fault` answers comes
/// before that.
async fn fleet(
    exporters: usize,
    fault: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
) -> Scripted {
    let name = |n: usize| format!("10.0.0.{n}:9400");
    Scripted::start(move |request| {
        if request.contains("group+by") {
            let listed =
                |n| format!(r#"{{"metric":{{"instance":"{}"}},"value":[9,"1"]}}"#, name(n));
            return success("vector", &(0..exporters).map(listed).collect::<Vec<_>>(), "");
        }
        fault(request).unwrap_or_else(|| {
            let asked = |n: &usize| request.contains(&format!("10\\.0\\.0\\.{n}:9400"));
            let series = (0..exporters).filter(asked).map(|n| {
                format!(
                    r#"{{"metric":{{"__name__":"DCGM_FI_PROF_SM_ACTIVE","UUID":"GPU-{n}",
                        "Hostname":"n{n}","instance":"{}"}},"values":[[8,"0.5"]]}}"#,
                    name(n)
                )
            });
            success("matrix", &series.collect::<Vec<_>>(), "")
        })
    })
    .await
}

async fn read(server: &Scripted) -> Result<Found, ReadError> {
    let start = Timestamp::EPOCH;
    let interval = Interval { start, end: start.after(Duration::from_secs(10)) };
    History::new(server.prometheus(Credentials::default())).read(interval).await
}

#[tokio::test]
async fn short_queries_are_got_and_long_ones_posted() {
    let server = Scripted::start(|_| success("vector", &[], "")).await;
    let prometheus = server.prometheus(Credentials::default());
    prometheus.instant(Timestamp::EPOCH, "up").await.expect("an answer");
    let long = format!("up{{job=\"{}\"}}", "x".repeat(ADDRESS_BYTES_MAX));
    prometheus.instant(Timestamp::EPOCH, &long).await.expect("an answer");
    let requests = server.requests();
    assert!(requests[0].starts_with("GET /prefix/api/v1/query?query=up&time=0.000&"));
    assert!(requests[1].starts_with("POST /prefix/api/v1/query HTTP/1.1\r\n"), "{}", requests[1]);
    assert!(requests[1].ends_with("&time=0.000&timeout=29s"), "{}", requests[1]);
}

#[tokio::test]
async fn what_is_too_much_at_once_is_read_in_smaller_parts() {
    let server = fleet(8, |request| {
        let asked = request.matches("10\\.0\\.0\\.").count();
        (asked > 2).then(|| {
            let why = "query processing would load too many samples into memory";
            let body = format!(r#"{{"status":"error","errorType":"execution","error":"{why}"}}"#);
            reply("422 Unprocessable Entity", &body)
        })
    })
    .await;
    let found = read(&server).await.expect("read");
    assert_eq!((found.samples.len(), found.exporters, found.missing), (8, 8, vec![]));
    assert_eq!(server.requests().len(), 1 + 1 + 2 + 4, "a list, and halves of halves");
}

#[tokio::test]
async fn a_part_that_fails_costs_no_other_and_is_named() {
    let server = fleet(150, |request| {
        request.contains("10\\.0\\.0\\.149:").then(|| reply("503 Service Unavailable", "starting"))
    })
    .await;
    let found = read(&server).await.expect("a part");
    let failed = found.missing[0].exporters;
    assert_eq!((found.samples.len() + failed, found.missing.len()), (150, 1));
    assert!(found.missing[0].why.ends_with("answers 503: starting"), "{:?}", found.missing);
    assert!(!found.missing[0].why.contains("word"), "{:?}", found.missing);
    let half = Ratio::new(0.5).expect("valid");
    assert!(found.samples.iter().all(|one| one.activity.is_some_and(|a| a.ratio == half)));
}

#[tokio::test]
async fn the_past_is_read_in_steps_and_a_part_that_fails_is_named() {
    let server = fleet(150, |request| {
        request.contains("10\\.0\\.0\\.149:").then(|| reply("503 Service Unavailable", "starting"))
    })
    .await;
    let history = History::new(server.prometheus(Credentials::default()));
    let start = Timestamp::EPOCH;
    let hour = Interval { start, end: start.after(Duration::from_secs(3600)) };
    let found = history.read_stepped(hour, Duration::from_secs(30)).await.expect("read");
    // Of two queries, for a hundred and for fifty, the first is not answered.
    assert_eq!((found.samples.len(), found.exporters), (50, 150));
    assert_eq!((found.missing[0].exporters, found.missing.len()), (100, 1));
    for sample in &found.samples {
        let number = sample.device.uuid.as_str().trim_start_matches("GPU-");
        assert_eq!(*sample.exporter, format!("10.0.0.{number}:9400"));
    }
    let requests = server.requests();
    let listed = "group+by+(instance)+(last_over_time({__name__=~";
    let decoded = |request: &String| {
        ["%28", "(", "%29", ")", "%7B", "{", "%3D", "=", "%7E", "~"]
            .chunks(2)
            .fold(request.clone(), |text, pair| text.replace(pair[0], pair[1]))
    };
    assert!(decoded(&requests[0]).contains(listed), "{}", decoded(&requests[0]));
    for request in &requests[1..] {
        assert!(request.starts_with("POST /prefix/api/v1/query_range "), "{request}");
        let request = decoded(request);
        assert!(request.contains("query=last_over_time({__name__=~"), "{request}");
        assert!(request.contains("&start=0.000&end=3600.000&step=30&"), "{request}");
        assert!(!request.contains("DCGM_FI_DEV_GPU_TEMP"), "{request}");
    }
}

#[tokio::test]
async fn where_every_part_fails_nothing_is_read() {
    let server = fleet(3, |_| Some(reply("503 Service Unavailable", ""))).await;
    let error = read(&server).await.expect_err("nothing");
    assert!(matches!(error, ReadError::Status { status: 503, .. }), "{error}");
}

#[tokio::test]
async fn warnings_make_an_answer_partial() {
    let server = fleet(2, |_| {
        let labels = r#""__name__":"DCGM_FI_PROF_SM_ACTIVE","UUID":"GPU-0","Hostname":"n0""#;
        let series = format!(r#"{{"metric":{{{labels}}},"values":[[8,"0.5"]]}}"#);
        Some(success("matrix", &[series], r#""store 10.1.1.1 is away""#))
    })
    .await;
    let found = read(&server).await.expect("read");
    assert_eq!(found.samples.len(), 1);
    assert_eq!((found.missing[0].exporters, &*found.missing[0].why), (2, "store 10.1.1.1 is away"));
}

#[tokio::test]
async fn queries_under_way_are_bounded() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let highest = Arc::clone(&most);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let port = listener.local_addr().expect("bound").port();
    // Nobody is answered before four ask; a fifth would be seen by the counter.
    let four = Arc::new(Barrier::new(4));
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("a caller");
            let (now, most, four) = (Arc::clone(&now), Arc::clone(&most), Arc::clone(&four));
            tokio::spawn(async move {
                let request = whole_request(&mut stream).await;
                let listed = request.contains("group+by");
                let body = if listed {
                    let line = |n| format!(r#"{{"metric":{{"instance":"{n}"}},"value":[9,"1"]}}"#);
                    success("vector", &(0..800).map(line).collect::<Vec<_>>(), "")
                } else {
                    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    four.wait().await;
                    now.fetch_sub(1, Ordering::SeqCst);
                    success("matrix", &[], "")
                };
                let _ = stream.write_all(body.as_bytes()).await;
            });
        }
    });
    let base = http::address(&format!("http://127.0.0.1:{port}")).expect("valid");
    let server = Scripted { base, requests: Arc::default() };
    let found = read(&server).await.expect("read");
    assert_eq!((found.exporters, found.missing), (800, vec![]));
    assert_eq!(highest.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn a_rotated_token_is_read_again_and_never_shown() {
    let folder = std::env::temp_dir().join(format!("gpu-autoscaler-token-{}", std::process::id()));
    std::fs::write(&folder, "first-secret\n").expect("writable");
    let server = Scripted::start(|request| {
        if request.contains("authorization: Bearer second-secret") {
            success("vector", &[], "")
        } else {
            reply("401 Unauthorized", "no")
        }
    })
    .await;
    let prometheus = server.prometheus(Credentials {
        authorization: Some(Authorization::Bearer { token_file: folder.clone() }),
        org_id: Some("team-a".into()),
        ..Credentials::default()
    });
    let error = prometheus.instant(Timestamp::EPOCH, "up").await.expect_err("a wrong token");
    assert!(matches!(error, ReadError::Status { status: 401, .. }), "{error}");
    std::fs::write(&folder, "second-secret").expect("writable");
    prometheus.instant(Timestamp::EPOCH, "up").await.expect("the new token");
    let requests = server.requests();
    assert!(requests[1].contains("x-scope-orgid: team-a\r\n"), "{}", requests[1]);
    let sent = requests[1].matches("authorization: ").count();
    assert_eq!(sent, 1, "the address' own credentials are not sent beside: {}", requests[1]);

    std::fs::write(&folder, "two\nlines-of-secret").expect("writable");
    let error = prometheus.instant(Timestamp::EPOCH, "up").await.expect_err("no token");
    std::fs::remove_file(&folder).expect("it was there");
    let shown = format!("{error} {error:?} {prometheus:?}");
    assert!(error.to_string().ends_with("` holds several lines"), "{error}");
    assert!(!shown.contains("secret"), "{shown}");
    let error = prometheus.instant(Timestamp::EPOCH, "up").await.expect_err("no file");
    assert!(error.to_string().starts_with("read `"), "{error}");
}

#[tokio::test]
async fn answers_that_are_none_are_refused_with_what_they_say() {
    for (body, expected) in [
        ("<html>sign in</html>", "expected value at line 1 column 1"),
        (r#"{"status":"success"}"#, "no data"),
        (r#"{"status":"error","errorType":"bad_data","error":"no such thing"}"#, "no such thing"),
        (
            r#"{"data":{"resultType":"scalar","result":[1,"2"]}}"#,
            "the result is no vector at line 1 column 49",
        ),
    ] {
        let server = Scripted::start(move |_| reply("200 OK", body)).await;
        let prometheus = server.prometheus(Credentials::default());
        let error = prometheus.instant(Timestamp::EPOCH, "up").await.expect_err("no answer");
        assert!(error.to_string().ends_with(expected), "{error}");
    }
}

#[test]
fn names_are_quoted_for_the_regular_expression_and_for_promql() {
    assert_eq!(quoted(&one_of(["a.b:1", "c\"d", ""])), r#""a\\.b:1|c\"d|""#);
}
