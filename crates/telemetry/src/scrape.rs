//! DCGM exporters scraped directly.

use std::sync::Arc;

use gpu_autoscaler_model::{GpuSample, NodeName, Scrape, ScrapeCounts, ScrapeFailure, Timestamp};
use reqwest::{Client, Url};
use tracing::debug;

use crate::dcgm::{self, Origin};
use crate::exposition;
use crate::http::{self, Limits, ReadError, Shown};

/// An exporter, and the node that it speaks of where that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Where its text is, such as `http://10.0.0.7:9400/metrics`.
    pub url: Url,
    /// Its node.
    pub node: Option<NodeName>,
}

impl Target {
    /// Its host and port, which is what Prometheus' label `instance` holds unless told otherwise:
    /// an exporter that is read both ways is one.
    fn exporter(&self) -> Arc<str> {
        let host = self.url.host_str().unwrap_or_default();
        match self.url.port_or_known_default() {
            Some(port) => format!("{host}:{port}").into(),
            None => host.into(),
        }
    }
}

/// Reads one exporter, and notes how that went. `at` is the time that its samples get.
pub async fn scrape(client: &Client, target: &Target, at: Timestamp) -> (Vec<GpuSample>, Scrape) {
    let shown = Shown::of(&target.url);
    let read = http::read(client.get(target.url.clone()), &shown, Limits::SCRAPE).await;
    let (samples, result) = match read {
        Ok(body) => {
            let (node, exporter) = (target.node.clone(), target.exporter());
            let (samples, counts) = read_text(&body, &Origin { at, node, exporter });
            (samples, Ok(counts))
        }
        Err(error) => (Vec::new(), Err(read_failure(&error))),
    };
    (samples, Scrape { at, target: shown.to_string().into(), result })
}

/// The chain of causes in one line.
pub fn read_failure(error: &ReadError) -> ScrapeFailure {
    let mut why = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        why.push_str(": ");
        why.push_str(&inner.to_string());
        cause = inner.source();
    }
    ScrapeFailure { why: why.into() }
}

/// Reads exposition text; what was dropped is logged, each line at debug level, and counted.
pub fn read_text(text: &[u8], origin: &Origin) -> (Vec<GpuSample>, ScrapeCounts) {
    let mut faults = 0_u32;
    let series = exposition::parse(text).filter_map(|line| match line {
        Ok(series) => Some(series),
        Err(fault) => {
            debug!(%fault, "drop line");
            faults = faults.saturating_add(1);
            None
        }
    });
    let (samples, dropped) = dcgm::samples(series, origin);
    for dropped in &dropped {
        debug!(%dropped, "drop series");
    }
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let counts = ScrapeCounts {
        samples: count(samples.len()),
        dropped: faults.saturating_add(count(dropped.len())),
    };
    (samples, counts)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers one connection with `reply`, then closes.
    async fn serve(reply: Vec<u8>) -> Target {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let port = listener.local_addr().expect("bound").port();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a caller");
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(&reply).await;
        });
        let url = http::address(&format!("http://user:secret@127.0.0.1:{port}/metrics?token=x"));
        Target { url: url.expect("valid"), node: Some("n1".into()) }
    }

    async fn reply(text: &[u8]) -> (Vec<GpuSample>, Scrape) {
        let target = serve(text.to_vec()).await;
        scrape(&http::client().expect("client"), &target, Timestamp::EPOCH).await
    }

    fn why(scrape: &Scrape) -> String {
        scrape.result.as_ref().expect_err("a failure").why.to_string()
    }

    #[tokio::test]
    async fn text_becomes_samples_and_faults_are_counted() {
        let (samples, scrape) = reply(
            b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n\
              DCGM_FI_DEV_GPU_UTIL{UUID=\"GPU-1\",Hostname=\"pod\"} 5\n\
              DCGM_FI_DEV_GPU_UTIL{UUID=\"GPU-2\"} 500\nbroken{\n",
        )
        .await;
        assert_eq!(samples.len(), 2);
        assert_eq!(samples[0].node.as_str(), "n1", "what the reader knows comes first");
        assert_eq!(scrape.result, Ok(ScrapeCounts { samples: 2, dropped: 2 }));
    }

    #[tokio::test]
    async fn failures_say_what_and_hide_credentials() {
        let (_, scrape) = reply(b"HTTP/1.1 503 Service Unavailable\r\n\r\nwarming up").await;
        assert!(why(&scrape).contains("answers 503: warming up"), "{}", why(&scrape));
        let (_, scrape) = reply(b"HTTP/1.1 302 Found\r\nlocation: http://x/\r\n\r\n").await;
        assert!(why(&scrape).contains("answers 302"), "{}", why(&scrape));
        let (_, scrape) = reply(b"nonsense").await;
        assert!(!why(&scrape).contains("secret") && !why(&scrape).contains("token"));
        assert!(why(&scrape).contains("does not answer"), "{}", why(&scrape));
    }

    #[tokio::test]
    async fn an_endless_body_is_cut_off() {
        let mut text = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
        text.resize(text.len() + Limits::SCRAPE.body_bytes + 1, b'x');
        let (_, scrape) = reply(&text).await;
        assert!(why(&scrape).contains("more than 16777216 bytes"), "{}", why(&scrape));
    }

    #[test]
    fn only_http_is_an_address() {
        for bad in ["", "file:///etc/passwd", "u:p@host", "ftp://x", "127.0.0.1:9090"] {
            let error = http::address(bad).expect_err(bad).to_string();
            assert!(!error.contains("u:p"), "{error}");
        }
    }
}
