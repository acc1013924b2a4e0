//! Requests to an API server, every one bounded in time and in size.

use std::fmt::Write as _;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use kube::client::Body;
use serde::Deserialize;

/// Time for an ordinary request.
pub const REQUEST_TIME_MAX: Duration = Duration::from_secs(10);

/// Largest answer to a request; 500 pods of a page are about 5 MB.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// Longest line of a watch; etcd holds no object above 1.5 MiB by default.
const LINE_BYTES_MAX: usize = 16 << 20;

/// Why a request brought nothing.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// No answer in time. Whether the request was performed is not known.
    #[error("the API server does not answer `{path}` within {} ms", limit.as_millis())]
    Timeout {
        /// What was asked.
        path: String,
        /// The time that it had.
        limit: Duration,
    },
    /// No connection, or one that broke. Whether the request was performed is not known.
    #[error("the API server cannot be reached for `{path}`")]
    Transport {
        /// What was asked.
        path: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The server answered with an error.
    #[error("the API server answers `{path}` with {} {}: {}", status.code, status.reason, status.message)]
    Status {
        /// What was asked.
        path: String,
        /// What it answered.
        status: Status,
    },
    /// An answer that is too large or cannot be read.
    #[error("the API server's answer to `{path}` cannot be read: {why}")]
    Malformed {
        /// What was asked.
        path: String,
        /// Why.
        why: String,
    },
}

impl ApiError {
    /// The HTTP status, where the server answered.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Status { status, .. } => Some(status.code),
            _ => None,
        }
    }

    /// The error and its causes in one line.
    pub fn chain(&self) -> String {
        crate::decode::clip(&chain(self), 1024)
    }
}

/// An error and its causes in one line. Some libraries print a cause with the error that has it;
/// it is not said twice.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let said = inner.to_string();
        if !text.ends_with(&said) {
            let _ = write!(text, ": {said}");
        }
        cause = inner.source();
    }
    text
}

/// What the server says of a request that failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    /// HTTP status.
    pub code: u16,
    /// One word, such as `AlreadyExists`.
    pub reason: String,
    /// In words.
    pub message: String,
    /// More of it.
    pub details: Option<StatusDetails>,
}

/// More of what the server says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StatusDetails {
    /// When to come back, in seconds.
    pub retry_after_seconds: Option<u64>,
    /// Single causes.
    pub causes: Option<Vec<StatusCause>>,
}

/// One cause of a failed request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct StatusCause {
    /// One word, such as `NamespaceTerminating`.
    pub reason: String,
}

impl Status {
    /// Whether one of the causes is `reason`.
    pub fn has_cause(&self, reason: &str) -> bool {
        let causes = self.details.as_ref().and_then(|details| details.causes.as_ref());
        causes.into_iter().flatten().any(|cause| cause.reason == reason)
    }

    /// When to come back.
    pub fn retry_after(&self) -> Option<Duration> {
        self.details.as_ref()?.retry_after_seconds.map(Duration::from_secs)
    }
}

/// What a request carries.
#[derive(Clone, Copy, Debug)]
pub enum Content<'a> {
    /// Nothing.
    Empty,
    /// An object.
    Json(&'a serde_json::Value),
    /// A change in the form of RFC 7386.
    MergePatch(&'a serde_json::Value),
}

/// A connection to an API server. Cloning shares it.
#[derive(Clone)]
pub struct Api {
    client: kube::Client,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Api")
    }
}

impl Api {
    /// Over `client`, which must not retry by itself: whether a write may be repeated is decided
    /// by its precondition.
    pub fn new(client: kube::Client) -> Self {
        Self { client }
    }

    /// Performs one request and returns the body of its answer.
    ///
    /// # Errors
    /// [`ApiError`]; every variant but `Status` leaves open whether the request was performed.
    pub async fn request(
        &self,
        method: Method,
        path: &str,
        content: Content<'_>,
        limit: Duration,
    ) -> Result<Bytes, ApiError> {
        let answer = async {
            let response = self.send(method, path, content).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|source| transport(path, source))?.to_bytes();
            if status.is_success() { Ok(body) } else { Err(refusal(path, status, &body)) }
        };
        match tokio::time::timeout(limit, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(ApiError::Timeout { path: path.to_owned(), limit }),
        }
    }

    /// Gets `path` as `T`.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn get<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        let body = self.request(Method::GET, path, Content::Empty, REQUEST_TIME_MAX).await?;
        serde_json::from_slice(&body)
            .map_err(|error| ApiError::Malformed { path: path.to_owned(), why: error.to_string() })
    }

    /// The time by the server's clock, as RFC 9110 writes it in the `Date` header; `None` where a
    /// proxy has taken that out.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn date(&self) -> Result<Option<String>, ApiError> {
        const PATH: &str = "/version";
        let limit = REQUEST_TIME_MAX;
        let sent = tokio::time::timeout(limit, self.send(Method::GET, PATH, Content::Empty)).await;
        let response = sent.map_err(|_| ApiError::Timeout { path: PATH.to_owned(), limit })??;
        let date = response.headers().get(http::header::DATE);
        Ok(date.and_then(|value| value.to_str().ok()).map(str::to_owned))
    }

    /// Whether whoever asks may do `verb` to `resource` of `group` in all namespaces.
    ///
    /// # Errors
    /// [`ApiError`].
    ///
    /// Source: `SelfSubjectAccessReview` of `authorization.k8s.io/v1`.
    pub async fn may(&self, verb: &str, group: &str, resource: &str) -> Result<bool, ApiError> {
        const PATH: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
        #[derive(Deserialize)]
        struct Review {
            status: Answer,
        }
        #[derive(Deserialize)]
        struct Answer {
            allowed: bool,
        }
        let review = serde_json::json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {
                "resourceAttributes": { "verb": verb, "group": group, "resource": resource },
            },
        });
        let content = Content::Json(&review);
        let body = self.request(Method::POST, PATH, content, REQUEST_TIME_MAX).await?;
        let read: Result<Review, _> = serde_json::from_slice(&body);
        let malformed = |error: serde_json::Error| ApiError::Malformed {
            path: PATH.into(),
            why: error.to_string(),
        };
        Ok(read.map_err(malformed)?.status.allowed)
    }

    /// Opens a stream of lines.
    ///
    /// # Errors
    /// [`ApiError`]; the beginning of the answer must come within `limit`.
    pub async fn lines(&self, path: &str, limit: Duration) -> Result<Lines, ApiError> {
        let answer = async {
            let response = self.send(Method::GET, path, Content::Empty).await?;
            let status = response.status();
            if status.is_success() {
                return Ok(Lines {
                    path: path.to_owned(),
                    body: response.into_body(),
                    buffer: BytesMut::new(),
                });
            }
            let body = Limited::new(response.into_body(), 1 << 20).collect().await;
            let body = body.map_err(|source| transport(path, source))?.to_bytes();
            Err(refusal(path, status, &body))
        };
        match tokio::time::timeout(limit, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(ApiError::Timeout { path: path.to_owned(), limit }),
        }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        content: Content<'_>,
    ) -> Result<Response<Body>, ApiError> {
        let (media, body) = match content {
            Content::Empty => (None, Vec::new()),
            Content::Json(value) => (Some("application/json"), value.to_string().into_bytes()),
            Content::MergePatch(value) => {
                (Some("application/merge-patch+json"), value.to_string().into_bytes())
            }
        };
        let mut request = Request::builder().method(method).uri(path);
        request = request.header(http::header::ACCEPT, "application/json");
        if let Some(media) = media {
            request = request.header(http::header::CONTENT_TYPE, media);
        }
        let request = request.body(Body::from(body)).map_err(|error| transport(path, error))?;
        self.client.send(request).await.map_err(|error| transport(path, error))
    }
}

fn transport(path: &str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ApiError {
    ApiError::Transport { path: path.to_owned(), source: source.into() }
}

fn refusal(path: &str, code: StatusCode, body: &[u8]) -> ApiError {
    let mut status: Status = serde_json::from_slice(body).unwrap_or_else(|_| Status {
        // A proxy in between, or a server that is going down, does not speak JSON.
        message: crate::decode::clip(&String::from_utf8_lossy(body), 256),
        ..Status::default()
    });
    status.code = code.as_u16();
    ApiError::Status { path: path.to_owned(), status }
}

/// The lines of a watch.
pub struct Lines {
    path: String,
    body: Body,
    buffer: BytesMut,
}

impl Lines {
    /// The next line that is not empty; `None` at the end of the stream.
    ///
    /// # Errors
    /// [`ApiError::Timeout`] when nothing comes for `silence_max`, [`ApiError::Transport`] when
    /// the stream breaks, [`ApiError::Malformed`] for a line beyond all bounds.
    pub async fn next(&mut self, silence_max: Duration) -> Result<Option<Bytes>, ApiError> {
        let mut searched = 0;
        loop {
            if let Some(at) = self.buffer[searched..].iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(searched + at + 1).freeze();
                searched = 0;
                if line.len() > 1 {
                    return Ok(Some(line));
                }
                continue;
            }
            searched = self.buffer.len();
            if searched > LINE_BYTES_MAX {
                let why = format!("a line has more than {LINE_BYTES_MAX} bytes");
                return Err(ApiError::Malformed { path: self.path.clone(), why });
            }
            match tokio::time::timeout(silence_max, self.body.frame()).await {
                Err(_) => {
                    let path = self.path.clone();
                    return Err(ApiError::Timeout { path, limit: silence_max });
                }
                Ok(None) if self.buffer.is_empty() => return Ok(None),
                // A last line that was cut off: what it said will be said again.
                Ok(None) => return Ok(None),
                Ok(Some(Err(error))) => return Err(transport(&self.path, error)),
                Ok(Some(Ok(frame))) => {
                    if let Ok(bytes) = frame.into_data() {
                        self.buffer.extend_from_slice(&bytes);
                    }
                }
            }
        }
    }
}

/// `path` with `parameters` as its query.
pub(crate) fn with_query(path: &str, parameters: &[(&str, &str)]) -> String {
    let mut text = path.to_owned();
    for (index, (name, value)) in parameters.iter().enumerate() {
        text.push(if index == 0 { '?' } else { '&' });
        text.push_str(name);
        text.push('=');
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                text.push(char::from(byte));
            } else {
                let _ = write!(text, "%{byte:02X}");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_escaped() {
        let path = with_query("/api/v1/pods", &[("fieldSelector", "a!=b,c=d"), ("limit", "5")]);
        assert_eq!(path, "/api/v1/pods?fieldSelector=a%21%3Db%2Cc%3Dd&limit=5");
    }

    #[test]
    fn a_cause_is_said_once() {
        #[derive(Debug, thiserror::Error)]
        enum Failed {
            #[error("list pods: {0}")]
            Outer(#[source] Box<Failed>),
            #[error("connect")]
            Middle(#[source] std::io::Error),
        }
        let refused = std::io::Error::other("refused");
        let error = Failed::Outer(Box::new(Failed::Middle(refused)));
        assert_eq!(chain(&error), "list pods: connect: refused");
    }

    #[test]
    fn an_answer_that_is_no_json_is_still_shown() {
        let error = refusal("/x", StatusCode::BAD_GATEWAY, b"upstream gone");
        assert_eq!(error.to_string(), "the API server answers `/x` with 502 : upstream gone");
        assert_eq!(error.code(), Some(502));
    }
}
