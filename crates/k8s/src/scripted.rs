//! A server that answers as a test tells it, and fails on what it was not told.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, StreamBody};
use kube::client::Body;

use crate::api::Api;

/// One answer.
pub(crate) struct Reply {
    status: u16,
    chunks: Vec<String>,
    end: End,
}

enum End {
    Close,
    Break,
    Hang,
}

impl Reply {
    pub fn ok(body: impl ToString) -> Self {
        Self::status(200, body)
    }

    pub fn status(status: u16, body: impl ToString) -> Self {
        Self { status, chunks: vec![body.to_string()], end: End::Close }
    }

    /// Lines of a watch, in chunks that do not end where the lines do.
    pub fn lines(lines: &[serde_json::Value]) -> Self {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let chunks = text.as_bytes().chunks(37);
        let chunks = chunks.map(|chunk| String::from_utf8_lossy(chunk).into_owned()).collect();
        Self { status: 200, chunks, end: End::Close }
    }

    pub fn then_hang(mut self) -> Self {
        self.end = End::Hang;
        self
    }

    pub fn then_break(mut self) -> Self {
        self.end = End::Break;
        self
    }
}

/// What was asked: method, path with query, body.
pub(crate) type Asked = (String, String, String);

#[derive(Clone)]
pub(crate) struct Server {
    replies: Arc<Mutex<VecDeque<Reply>>>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    /// Gives `replies` in order; hangs once there are no more.
    pub fn new(replies: Vec<Reply>) -> Self {
        Self { replies: Arc::new(Mutex::new(replies.into())), asked: Arc::default() }
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("no test panics while it holds this").clone()
    }

    pub fn api(&self) -> Api {
        let this = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let this = this.clone();
            async move { Ok::<_, Infallible>(this.answer(request).await) }
        });
        Api::new(kube::Client::new(service, "default"))
    }

    async fn answer(
        &self,
        request: Request<Body>,
    ) -> Response<UnsyncBoxBody<Bytes, std::io::Error>> {
        let (head, body) = request.into_parts();
        let body = body.collect_bytes().await.expect("a body in memory");
        let body = String::from_utf8_lossy(&body).into_owned();
        let asked = (head.method.to_string(), head.uri.to_string(), body);
        self.asked.lock().expect("no test panics while it holds this").push(asked);
        let reply = self.replies.lock().expect("no test panics while it holds this").pop_front();
        let Some(reply) = reply else { std::future::pending().await };
        let chunks = reply.chunks.into_iter().map(|text| Ok(Frame::data(Bytes::from(text))));
        let broken = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        let body = match reply.end {
            End::Close => stream::iter(chunks).boxed(),
            End::Break => stream::iter(chunks.chain([Err(broken)])).boxed(),
            End::Hang => stream::iter(chunks).chain(stream::pending()).boxed(),
        };
        let body = StreamBody::new(body).boxed_unsync();
        Response::builder().status(reply.status).body(body).expect("a valid status")
    }
}
