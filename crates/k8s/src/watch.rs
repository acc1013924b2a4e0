//! Watches: what an API server holds, as a stream of `model::Delta`.
//!
//! Each kind is listed and then watched by one task. A list is streamed where the server can, and
//! paged where it cannot. Whatever goes wrong, the task goes on: it resumes where it was, and
//! lists anew when the server has forgotten that place; what disappeared meanwhile is then
//! reported as deleted, exactly.

mod known;
mod resource;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::api::{Api, ApiError, Content, Lines, with_query};
use crate::backoff::{Backoff, jittered};
use known::Known;
pub use resource::Resource;
pub(crate) use resource::collection_of;
use wire::{Frame, Page};

/// One step of a watch.
#[derive(Debug)]
pub struct Part {
    /// Of which watch.
    pub resource: Resource,
    /// What changed.
    pub delta: gpu_autoscaler_model::Delta,
}

/// How a watch is doing.
#[derive(Clone, Debug, Default)]
pub struct WatchHealth {
    /// Everything that exists was delivered at least once.
    pub synced: bool,
    /// The server does not know the kind, so that there is nothing to watch.
    pub absent: bool,
    /// When the server was last heard of.
    pub heard: Option<Instant>,
    /// How often everything was listed.
    pub lists: u64,
    /// How often the watch broke, other than by its regular end.
    pub breaks: u64,
    /// How often the server had forgotten the version to resume from (410 Gone).
    pub expired: u64,
    /// Objects that are known.
    pub objects: usize,
    /// Objects that cannot be read now.
    pub malformed: usize,
    /// One of these, in words.
    pub malformed_first: Option<Arc<str>>,
    /// Why it is not working now, if so.
    pub error: Option<Arc<str>>,
}

/// How a watch behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchSettings {
    /// Objects per page of a list.
    pub page_objects: usize,
    /// How long a watch is asked to last; the server ends it then, and it is resumed.
    pub watch_time: Duration,
    /// Silence after which a new connection is tried. Servers send a bookmark every minute.
    pub silence_max: Duration,
    /// Time for a page of a list, and for the beginning of a watch.
    pub request_time_max: Duration,
    /// Shortest pause after a failure.
    pub backoff_first: Duration,
    /// Longest pause after failures.
    pub backoff_longest: Duration,
    /// Pause before looking again for a kind that the server does not know.
    pub absent_pause: Duration,
}

impl WatchSettings {
    /// For a live cluster.
    pub const DEFAULT: Self = Self {
        page_objects: 500,
        watch_time: Duration::from_secs(290),
        silence_max: Duration::from_secs(100),
        request_time_max: Duration::from_secs(60),
        backoff_first: Duration::from_millis(200),
        backoff_longest: Duration::from_secs(10),
        absent_pause: Duration::from_secs(30),
    };
}

/// How often a list may be begun again because its continuation expired, before it is asked for
/// in one piece.
const LIST_ATTEMPTS: u32 = 3;

/// Why a pass over list and watch ended.
enum End {
    /// Nobody listens any more.
    Closed,
    /// The server has forgotten the version: list anew.
    Gone,
    /// The server does not know the kind.
    Absent,
    /// Something else; resume from the last version.
    Failed(ApiError),
}

impl From<ApiError> for End {
    fn from(error: ApiError) -> Self {
        if error.code() == Some(410) { Self::Gone } else { Self::Failed(error) }
    }
}

/// One watch.
pub struct Watcher {
    api: Api,
    resource: Resource,
    settings: WatchSettings,
    out: mpsc::Sender<Part>,
    health: watch::Sender<WatchHealth>,
    known: Known,
    /// Whether the server may be asked to stream its list; until it refuses.
    streams: bool,
}

impl Watcher {
    /// Over `resource`, into `out`.
    pub fn new(
        api: Api,
        resource: Resource,
        settings: WatchSettings,
        out: mpsc::Sender<Part>,
    ) -> (Self, watch::Receiver<WatchHealth>) {
        let (health, seen) = watch::channel(WatchHealth::default());
        let known = Known::new(resource);
        (Self { api, resource, settings, out, health, known, streams: true }, seen)
    }

    /// Watches until nobody listens.
    pub async fn run(mut self) {
        let mut backoff = Backoff::new(self.settings.backoff_first, self.settings.backoff_longest);
        // The version to resume from; `None` lists.
        let mut version: Option<String> = None;
        loop {
            let began = Instant::now();
            let end = match version.take() {
                None => self.list().await.map(|listed| version = Some(listed)),
                Some(from) => {
                    let mut at = from;
                    let result = self.watch(&mut at).await;
                    version = Some(at);
                    result
                }
            };
            match end {
                Ok(()) => {
                    self.health.send_modify(|health| health.error = None);
                    // A server that ends every watch at once must not be asked in a tight loop.
                    if began.elapsed() < self.settings.backoff_first && version.is_some() {
                        tokio::time::sleep(self.settings.backoff_first / 4).await;
                    } else {
                        backoff.reset();
                    }
                }
                Err(End::Closed) => return,
                Err(End::Gone) => {
                    info!(kind = %self.resource, "list anew: the version has expired");
                    self.health.send_modify(|health| health.expired += 1);
                    version = None;
                    tokio::time::sleep(backoff.pause()).await;
                }
                Err(End::Absent) => {
                    version = None;
                    self.absent().await;
                    tokio::time::sleep(self.settings.absent_pause).await;
                }
                Err(End::Failed(error)) => {
                    if began.elapsed() > self.settings.backoff_longest {
                        // It worked for a while: this is a new failure, not the same again.
                        backoff.reset();
                    }
                    let pause = self.failed(&error).max(backoff.pause());
                    tokio::time::sleep(pause.min(Duration::from_secs(60))).await;
                }
            }
            if self.out.is_closed() {
                return;
            }
        }
    }

    /// Reports everything that exists; returns the version that it is of.
    async fn list(&mut self) -> Result<String, End> {
        self.health.send_modify(|health| health.lists += 1);
        if self.streams {
            match self.list_streamed().await {
                Err(End::Failed(error)) if refuses_streaming(&error) => {
                    let error = error.chain();
                    debug!(kind = %self.resource, %error, "page the list: it cannot be streamed");
                    self.streams = false;
                }
                other => return other,
            }
        }
        for _ in 0..LIST_ATTEMPTS {
            match self.list_paged(self.settings.page_objects).await {
                Err(End::Gone) => continue,
                other => return other,
            }
        }
        self.list_paged(0).await
    }

    async fn list_streamed(&mut self) -> Result<String, End> {
        let seconds = self.settings.watch_time.as_secs().max(1).to_string();
        let mut parameters = self.resource.selectors().to_vec();
        parameters.extend([
            ("watch", "1"),
            ("sendInitialEvents", "true"),
            ("resourceVersionMatch", "NotOlderThan"),
            ("allowWatchBookmarks", "true"),
            ("timeoutSeconds", &seconds),
        ]);
        let path = with_query(self.resource.path(), &parameters);
        // A server that cannot stream may fall silent instead of refusing: that must show soon.
        let mut lines = self.api.lines(&path, self.settings.request_time_max).await?;
        let silence = self.settings.silence_max.min(Duration::from_secs(10));
        self.known.begin_list();
        loop {
            let Some(line) = lines.next(silence).await? else {
                let why = "the streamed list ended early".to_owned();
                return Err(End::Failed(ApiError::Malformed { path, why }));
            };
            match self.frame(&line)? {
                Frame::Object { deleted, object } => {
                    self.take(deleted, object).await?;
                }
                Frame::Bookmark { version, initial_end: true } => {
                    self.finish_list().await?;
                    // The server goes on to watch on this stream; a new one is opened for that,
                    // so that both ways of listing end alike.
                    return Ok(version);
                }
                Frame::Bookmark { .. } | Frame::Unknown => {}
            }
        }
    }

    async fn list_paged(&mut self, limit: usize) -> Result<String, End> {
        let limit = limit.to_string();
        let mut next: Option<String> = None;
        self.known.begin_list();
        loop {
            let mut parameters = self.resource.selectors().to_vec();
            if limit != "0" {
                parameters.push(("limit", &limit));
            }
            if let Some(token) = &next {
                parameters.push(("continue", token));
            }
            let path = with_query(self.resource.path(), &parameters);
            let time = self.settings.request_time_max;
            let answer = self.api.request(http::Method::GET, &path, Content::Empty, time).await;
            let answer = match answer {
                Err(error) if error.code() == Some(404) => return Err(End::Absent),
                other => other?,
            };
            let page = Page::read(&answer).map_err(|error| {
                End::Failed(ApiError::Malformed { path, why: error.to_string() })
            })?;
            for item in page.items {
                self.take(false, item.get()).await?;
            }
            match page.metadata.next {
                Some(token) if !token.is_empty() => next = Some(token),
                _ => {
                    self.finish_list().await?;
                    return Ok(page.metadata.resource_version);
                }
            }
        }
    }

    /// Follows changes from the version in `at`, which is kept up to date.
    async fn watch(&mut self, at: &mut String) -> Result<(), End> {
        let time = jittered(self.settings.watch_time.mul_f64(0.9), self.settings.watch_time);
        let seconds = time.as_secs().max(1).to_string();
        let mut parameters = self.resource.selectors().to_vec();
        let from = at.clone();
        parameters.extend([
            ("watch", "1"),
            ("allowWatchBookmarks", "true"),
            ("resourceVersion", &from),
            ("timeoutSeconds", &seconds),
        ]);
        let path = with_query(self.resource.path(), &parameters);
        let mut lines = self.open(&path).await?;
        loop {
            let line = match lines.next(self.settings.silence_max).await {
                Ok(Some(line)) => line,
                Ok(None) => return Ok(()),
                // Quiet, or dead without a word: a new connection tells. Events have no bookmarks,
                // because servers do not cache them.
                Err(ApiError::Timeout { .. }) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            match self.frame(&line)? {
                Frame::Object { deleted, object } => {
                    if let Some(version) = self.take(deleted, object).await? {
                        *at = version;
                    }
                }
                Frame::Bookmark { version, .. } => *at = version,
                Frame::Unknown => {}
            }
        }
    }

    async fn open(&self, path: &str) -> Result<Lines, End> {
        match self.api.lines(path, self.settings.request_time_max).await {
            Err(error) if error.code() == Some(404) => Err(End::Absent),
            other => {
                let lines = other?;
                self.heard();
                Ok(lines)
            }
        }
    }

    fn frame<'a>(&self, line: &'a [u8]) -> Result<Frame<'a>, End> {
        self.heard();
        Frame::read(line, self.resource.path()).map_err(End::from)
    }

    fn heard(&self) {
        self.health.send_modify(|health| {
            health.heard = Some(Instant::now());
            health.error = None;
        });
    }

    /// Reports one object; returns its version.
    async fn take(&mut self, deleted: bool, object: &str) -> Result<Option<String>, End> {
        let (delta, version) = self.known.take(deleted, object);
        self.emit(delta).await?;
        Ok(version)
    }

    async fn finish_list(&mut self) -> Result<(), End> {
        let gone = self.known.end_list();
        self.emit(Some(gone)).await?;
        self.health.send_modify(|health| {
            health.synced = true;
            health.absent = false;
        });
        Ok(())
    }

    async fn emit(&mut self, delta: Option<gpu_autoscaler_model::Delta>) -> Result<(), End> {
        let known = &self.known;
        self.health.send_modify(|health| {
            health.objects = known.objects();
            health.malformed = known.malformed();
            health.malformed_first = known.malformed_first();
        });
        let Some(delta) = delta.filter(|delta| !delta.is_empty()) else { return Ok(()) };
        let part = Part { resource: self.resource, delta };
        self.out.send(part).await.map_err(|_| End::Closed)
    }

    /// Notes a failure; returns the pause that the server asks for.
    fn failed(&self, error: &ApiError) -> Duration {
        let asked = match error {
            ApiError::Status { status, .. } => status.retry_after().unwrap_or_default(),
            _ => Duration::ZERO,
        };
        let text: Arc<str> = error.chain().into();
        let before = self.health.borrow().error.clone();
        if before.is_none() {
            warn!(kind = %self.resource, error = %text, "watch broke");
        }
        self.health.send_modify(|health| {
            health.breaks += 1;
            health.error = Some(text);
        });
        asked
    }

    /// Nothing to watch counts as all of nothing seen.
    async fn absent(&mut self) {
        self.known.begin_list();
        let _ = self.finish_list().await;
        self.health.send_modify(|health| health.absent = true);
    }
}

/// Whether the server means that it cannot stream a list: it refuses the parameters (422), fails
/// within the stream (500, where its etcd knows no progress requests), or falls silent.
fn refuses_streaming(error: &ApiError) -> bool {
    match error {
        ApiError::Status { status, .. } => matches!(status.code, 400 | 403 | 404 | 405 | 422 | 500),
        ApiError::Malformed { .. } | ApiError::Timeout { .. } => true,
        ApiError::Transport { .. } => false,
    }
}

#[cfg(test)]
mod tests;
