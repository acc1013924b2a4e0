//! Bounded reading over HTTP.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::{Client, ClientBuilder, RequestBuilder, Url};
use thiserror::Error;

/// How much and how long is read at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of the whole exchange, from connecting to the last byte.
    pub time: Duration,
    /// Of a body, in bytes.
    pub body_bytes: usize,
}

impl Limits {
    /// An exporter of a node with 16 GPUs in 112 instances writes about 1 MiB.
    pub const SCRAPE: Self = Self { time: Duration::from_secs(10), body_bytes: 16 << 20 };
    /// A part of a fleet's last minutes; what is larger is asked for in smaller parts.
    pub const QUERY: Self = Self { time: Duration::from_secs(30), body_bytes: 64 << 20 };
}

/// An address without what must not be shown: credentials and query.
#[derive(Clone, PartialEq, Eq)]
pub struct Shown(String);

impl Shown {
    /// Of `url`.
    pub fn of(url: &Url) -> Self {
        let mut url = url.clone();
        // Both fail only for addresses that can hold neither.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        url.set_query(None);
        url.set_fragment(None);
        Self(url.into())
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why nothing could be read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// Not an address that can be asked.
    #[error("`{text}` is no http:// or https:// address")]
    Address {
        /// What it is, without what follows an `@`.
        text: String,
    },
    /// The client could not be made, as when the system's certificates cannot be read.
    #[error("set up the HTTP client")]
    Client(#[source] reqwest::Error),
    /// A file of credentials cannot be read.
    #[error("read `{}`", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file of credentials cannot be used. What it holds is not shown.
    #[error("`{}` {what}", path.display())]
    Secret {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// No connection, or it broke off.
    #[error("{address} does not answer")]
    Connection {
        /// Whom.
        address: Shown,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// It took too long.
    #[error("{address} did not answer within {} s", limit.as_secs())]
    Time {
        /// Whom.
        address: Shown,
        /// The limit.
        limit: Duration,
    },
    /// An answer that is no success.
    #[error("{address} answers {status}: {body}")]
    Status {
        /// Whom.
        address: Shown,
        /// The HTTP status.
        status: u16,
        /// The start of its body.
        body: String,
    },
    /// More than is read.
    #[error("{address} sends more than {limit} bytes")]
    Size {
        /// Whom.
        address: Shown,
        /// The limit.
        limit: usize,
    },
    /// A body that is not what was asked for.
    #[error("{address} sends no {expected}: {found}")]
    Body {
        /// Whom.
        address: Shown,
        /// What was asked for.
        expected: &'static str,
        /// What is wrong with it.
        found: String,
    },
}

/// Reads an address: `http` and `https` only, so that nothing is read from files.
///
/// # Errors
/// [`ReadError::Address`] for anything else.
pub fn address(text: &str) -> Result<Url, ReadError> {
    let refuse = || {
        let shown = text.rsplit('@').next().unwrap_or_default();
        ReadError::Address { text: shown.chars().take(128).collect() }
    };
    let url = Url::parse(text).map_err(|_| refuse())?;
    if matches!(url.scheme(), "http" | "https") && url.has_host() { Ok(url) } else { Err(refuse()) }
}

/// A client that follows no redirect: an exporter has no business sending us elsewhere.
///
/// # Errors
/// [`ReadError::Client`] when it cannot be made.
pub fn client() -> Result<Client, ReadError> {
    client_builder().build().map_err(ReadError::Client)
}

pub(crate) fn client_builder() -> ClientBuilder {
    Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(Duration::from_secs(5))
        .user_agent(concat!("gpu-autoscaler/", env!("CARGO_PKG_VERSION")))
}

/// Sends the request and reads the body within the limits.
///
/// # Errors
/// [`ReadError::Connection`], [`ReadError::Time`], [`ReadError::Status`], [`ReadError::Size`].
pub async fn read(
    request: RequestBuilder,
    address: &Shown,
    limits: Limits,
) -> Result<Vec<u8>, ReadError> {
    match tokio::time::timeout(limits.time, exchange(request, address, limits)).await {
        Ok(result) => result,
        Err(_) => Err(ReadError::Time { address: address.clone(), limit: limits.time }),
    }
}

async fn exchange(
    request: RequestBuilder,
    address: &Shown,
    limits: Limits,
) -> Result<Vec<u8>, ReadError> {
    // The address inside reqwest's own text would show credentials.
    let broken = |source: reqwest::Error| ReadError::Connection {
        address: address.clone(),
        source: source.without_url(),
    };
    let mut response = request.send().await.map_err(broken)?;
    let status = response.status();
    let limit = if status.is_success() { limits.body_bytes } else { 4096 };
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(broken)? {
        if body.len() + chunk.len() > limit {
            if status.is_success() {
                return Err(ReadError::Size { address: address.clone(), limit });
            }
            break;
        }
        body.extend_from_slice(&chunk);
    }
    if status.is_success() {
        return Ok(body);
    }
    let body = String::from_utf8_lossy(&body).trim().chars().take(1000).collect();
    Err(ReadError::Status { address: address.clone(), status: status.as_u16(), body })
}
