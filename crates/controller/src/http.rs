//! HTTP servers, every connection bounded in number and in time.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tracing::{Instrument as _, debug, field, info_span, warn};

use crate::health::Health;
use crate::metrics::Metrics;

/// Connections at once; more wait.
const CONNECTIONS_MAX: usize = 256;

/// Time to send a request's header.
const HEADER_TIME_MAX: Duration = Duration::from_secs(5);

/// Time to answer a request.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);

/// Time that a connection may last.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(300);

/// Largest header of a request, in bytes.
const HEADER_BYTES_MAX: usize = 16 << 10;

/// Opens a listener.
///
/// # Errors
/// The address is taken, or not ours.
pub async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    match TcpListener::bind(address).await {
        // A machine without IPv6 has no `[::]`.
        Err(error) if address.ip().is_unspecified() => {
            let only_v4 = SocketAddr::from(([0, 0, 0, 0], address.port()));
            TcpListener::bind(only_v4).await.map_err(|_| error)
        }
        other => other,
    }
}

/// Time to finish what is being answered when the process ends.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(5);

/// Serves `router` until `stop`; what is being answered then is finished, within seconds.
pub async fn serve(listener: TcpListener, router: Router, stop: impl Future<Output = ()>) {
    let router = router.layer(middleware::from_fn(within_time));
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let (closing, _) = watch::channel(false);
    let mut open = JoinSet::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        let accept = async {
            let slot = Arc::clone(&slots).acquire_owned().await.expect("it is never closed");
            (slot, listener.accept().await)
        };
        let (slot, stream) = tokio::select! {
            () = &mut stop => break,
            Some(_) = open.join_next() => continue,
            (slot, accepted) = accept => match accepted {
                Ok((stream, _)) => (slot, stream),
                Err(error) => {
                    // Out of file descriptors, most likely: give others the time to close some.
                    warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        let closing = closing.subscribe();
        let connection = connection(stream, router.clone(), closing);
        open.spawn(async move {
            let _slot = slot;
            let ended = tokio::time::timeout(CONNECTION_TIME_MAX, connection).await;
            if let Ok(Err(error)) = ended {
                debug!(%error, "connection ended");
            }
        });
    }
    drop(listener);
    let _ = closing.send(true);
    let all_closed = async { while open.join_next().await.is_some() {} };
    if tokio::time::timeout(CLOSE_TIME_MAX, all_closed).await.is_err() {
        debug!(connections = open.len(), "connections cut off");
    }
}

/// Serves one connection; when `closing` is set, the answer under way is its last.
async fn connection(
    stream: TcpStream,
    router: Router,
    mut closing: watch::Receiver<bool>,
) -> hyper::Result<()> {
    let mut server = hyper::server::conn::http1::Builder::new();
    server
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME_MAX)
        .max_buf_size(HEADER_BYTES_MAX)
        .max_headers(64);
    let service = TowerToHyperService::new(router);
    let mut connection = std::pin::pin!(server.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        ended = &mut connection => return ended,
        _ = closing.wait_for(|set| *set) => connection.as_mut().graceful_shutdown(),
    }
    connection.await
}

async fn within_time(request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>();
    // The route, not the path: names of spans are a closed set.
    let route = route.map_or("none", MatchedPath::as_str).to_owned();
    let span = info_span!("request", %route, status = field::Empty);
    let answer = next.run(request).instrument(span.clone());
    match tokio::time::timeout(ANSWER_TIME_MAX, answer).await {
        Ok(response) => {
            span.record("status", response.status().as_u16());
            response
        }
        Err(_) => (StatusCode::GATEWAY_TIMEOUT, "not answered in time\n").into_response(),
    }
}

/// `/metrics`.
pub fn metrics_routes(metrics: Arc<Metrics>, health: Arc<Health>) -> Router {
    let text = move || {
        metrics.observe(&health);
        let text = metrics.text();
        async move {
            const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, OPEN_METRICS)], text)
        }
    };
    Router::new().route("/metrics", get(text))
}

/// `/healthz` and `/readyz`.
pub fn probe_routes(health: Arc<Health>) -> Router {
    let ready = Arc::clone(&health);
    let answer = |(good, text): (bool, String)| {
        let code = if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        async move { (code, text) }
    };
    Router::new()
        .route("/healthz", get(move || answer(health.alive())))
        .route("/readyz", get(move || answer(ready.ready())))
}

#[cfg(test)]
mod tests {
    use gpu_autoscaler_analysis::Thresholds;
    use gpu_autoscaler_model::View;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::api::Status;
    use crate::routes;

    async fn server() -> SocketAddr {
        let (_, view) = watch::channel(Arc::new(View::default()));
        let listener = listen(([127, 0, 0, 1], 0).into()).await.expect("loopback");
        let address = listener.local_addr().expect("bound");
        let router = routes::router(view, Thresholds::published());
        tokio::spawn(serve(listener, router, std::future::pending()));
        address
    }

    async fn exchange(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer).await;
        answer
    }

    #[tokio::test]
    async fn the_status_is_served_as_json() {
        let address = server().await;
        let request = "GET /api/v1/status HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        let answer = exchange(address, request).await;
        let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        let status: Status = serde_json::from_str(body).expect("a status");
        assert_eq!((status.generation, status.at), (0, None));
    }

    #[tokio::test]
    async fn other_methods_other_paths_and_huge_headers_are_refused() {
        let address = server().await;
        let post = "POST /api/v1/status HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        assert!(exchange(address, post).await.starts_with("HTTP/1.1 405"));
        let other = "GET /etc HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        assert!(exchange(address, other).await.starts_with("HTTP/1.1 404"));
        let huge = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(2 * HEADER_BYTES_MAX));
        assert!(exchange(address, &huge).await.starts_with("HTTP/1.1 431"));
    }

    #[tokio::test]
    async fn what_is_being_answered_is_finished_when_the_server_stops() {
        let (begun, mut begins) = watch::channel(false);
        let (go, going) = watch::channel(false);
        let slow = move || {
            let (begun, mut going) = (begun.clone(), going.clone());
            async move {
                begun.send_replace(true);
                let _ = going.wait_for(|set| *set).await;
                "finished"
            }
        };
        let listener = listen(([127, 0, 0, 1], 0).into()).await.expect("loopback");
        let address = listener.local_addr().expect("bound");
        let (stop, mut stopped) = watch::channel(false);
        let stopping = async move { drop(stopped.wait_for(|set| *set).await) };
        let router = Router::new().route("/slow", get(slow));
        let server = tokio::spawn(serve(listener, router, stopping));
        let asking = tokio::spawn(async move {
            exchange(address, "GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await
        });
        begins.wait_for(|set| *set).await.expect("it is asked");
        stop.send_replace(true);
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
        go.send_replace(true);
        let answer = asking.await.expect("no panic");
        assert!(answer.ends_with("finished"), "{answer}");
        server.await.expect("it ends");
    }
}
