//! The Lease in the cluster, and the loop that keeps it.

use std::time::Duration;

use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use super::{Claim, Election, Leadership, Record, Standing, Timing};
use crate::api::{Api, ApiError, Content};

/// Where the Lease is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Keeps one replica's side of the election.
pub struct Elector {
    api: Api,
    lease: LeaseName,
    identity: String,
    timing: Timing,
    election: Election,
    standing: watch::Sender<Standing>,
    terms: u64,
}

impl Elector {
    /// For the replica that calls itself `identity`, which no other does.
    pub fn new(api: Api, lease: LeaseName, identity: String, timing: Timing) -> (Self, Leadership) {
        let (standing, seen) = watch::channel(Standing::default());
        let election = Election::new(identity.clone(), timing);
        let elector = Self { api, lease, identity, timing, election, standing, terms: 0 };
        (elector, Leadership::new(seen))
    }

    /// Takes part until `stop`, then gives the Lease back, so that another leads at once.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        loop {
            // Not interrupted by `stop`: a renewal without its answer could not be given back.
            let error = self.look().await.err();
            self.publish(error);
            let pause = self.election.pause(Instant::now());
            tokio::select! {
                () = &mut stop => break self.release().await,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Reads the Lease, and claims it when that is possible.
    async fn look(&mut self) -> Result<(), ApiError> {
        // A leader renews what it last wrote and reads only when that has changed.
        if self.election.valid_until().is_none() {
            self.read().await?;
        }
        let Some(claim) = self.election.claim(Instant::now()) else { return Ok(()) };
        match self.write(&claim).await {
            Ok(()) => Ok(()),
            Err(error) if error.code() == Some(409) => self.read().await,
            // Somebody deleted it. On a creation the same answer says that the namespace is
            // missing, which is an error.
            Err(error) if error.code() == Some(404) && claim.over.is_some() => {
                self.election.observe(Instant::now(), None);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    async fn read(&mut self) -> Result<(), ApiError> {
        let path = self.path();
        match self.request(Method::GET, &path, None).await {
            Ok(record) => self.election.observe(Instant::now(), Some(record)),
            Err(error) if error.code() == Some(404) => self.election.observe(Instant::now(), None),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    async fn write(&mut self, claim: &Claim) -> Result<(), ApiError> {
        let sent = Instant::now();
        let now = micros(jiff::Timestamp::now());
        let seconds = self.timing.lease_duration.as_secs().max(1);
        let body = self.body(claim.over.as_deref(), &self.identity, seconds, claim, &now);
        let (method, path) = match claim.over {
            Some(_) => (Method::PUT, self.path()),
            None => (Method::POST, self.collection()),
        };
        let record = self.request(method, &path, Some(&body)).await?;
        self.election.claimed(sent, record);
        Ok(())
    }

    /// Gives the Lease back if it is ours.
    async fn release(self) {
        let was = self.election.valid_until();
        self.standing.send_modify(|standing| standing.valid_until = None);
        let Some(record) = self.election.record().filter(|_| was.is_some()).cloned() else {
            return;
        };
        let claim = Claim {
            over: Some(record.resource_version),
            transitions: record.transitions,
            acquired: Some(record.acquired),
        };
        let now = micros(jiff::Timestamp::now());
        // As client-go: no holder, and the shortest duration that is allowed.
        let body = self.body(claim.over.as_deref(), "", 1, &claim, &now);
        let path = self.path();
        match self.request(Method::PUT, &path, Some(&body)).await {
            Ok(_) => info!(lease = %self.lease.name, "give the lease back"),
            Err(error) => {
                let error = error.chain();
                warn!(lease = %self.lease.name, %error, "cannot give the lease back; it expires");
            }
        }
    }

    fn publish(&mut self, error: Option<ApiError>) {
        let valid_until = self.election.valid_until();
        let error = error.map(|error| error.chain());
        let before = self.standing.borrow().clone();
        let leads = valid_until.is_some_and(|until| Instant::now() < until);
        let led = before.valid_until.is_some();
        if leads && !led {
            self.terms += 1;
            info!(lease = %self.lease.name, identity = %self.identity, "lead");
        }
        if !leads && led {
            warn!(lease = %self.lease.name, identity = %self.identity, "lead no longer");
        }
        if error.is_some() && before.error.is_none() {
            warn!(error = error.as_deref().unwrap_or(""), "cannot keep the lease");
        }
        let holder = self.election.holder().map(str::to_owned);
        let valid_until = valid_until.filter(|_| leads);
        self.standing.send_replace(Standing { valid_until, holder, terms: self.terms, error });
    }

    fn collection(&self) -> String {
        format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases", self.lease.namespace)
    }

    fn path(&self) -> String {
        format!("{}/{}", self.collection(), self.lease.name)
    }

    fn body(
        &self,
        over: Option<&str>,
        holder: &str,
        seconds: u64,
        claim: &Claim,
        now: &str,
    ) -> Value {
        let mut metadata = json!({"name": self.lease.name, "namespace": self.lease.namespace});
        if let Some(version) = over {
            metadata["resourceVersion"] = version.into();
        }
        json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": metadata,
            "spec": {
                "holderIdentity": holder,
                "leaseDurationSeconds": seconds,
                "acquireTime": claim.acquired.as_deref().unwrap_or(now),
                "renewTime": now,
                "leaseTransitions": claim.transitions,
            },
        })
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Record, ApiError> {
        let content = body.map_or(Content::Empty, Content::Json);
        // Two attempts fit into the time between a renewal and its deadline.
        let limit = (self.timing.renew_deadline - self.timing.retry_period) / 2;
        let limit = limit.max(Duration::from_millis(100));
        let answer = self.api.request(method, path, content, limit).await?;
        let lease: LeaseWire = serde_json::from_slice(&answer).map_err(|error| {
            ApiError::Malformed { path: path.to_owned(), why: error.to_string() }
        })?;
        Ok(lease.into())
    }
}

/// RFC 3339 with six decimals, as `MicroTime` wants it.
pub(crate) fn micros(at: jiff::Timestamp) -> String {
    format!("{at:.6}")
}

#[derive(Deserialize)]
struct LeaseWire {
    metadata: LeaseMeta,
    #[serde(default)]
    spec: LeaseSpec,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LeaseMeta {
    resource_version: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct LeaseSpec {
    holder_identity: Option<String>,
    lease_duration_seconds: Option<i64>,
    lease_transitions: Option<i64>,
    acquire_time: Option<String>,
    renew_time: Option<String>,
}

impl From<LeaseWire> for Record {
    fn from(lease: LeaseWire) -> Self {
        let spec = lease.spec;
        // A Lease that somebody wrote by hand may hold anything; an hour is the longest wait.
        let seconds = spec.lease_duration_seconds.unwrap_or(1).clamp(1, 3600);
        Self {
            holder: spec.holder_identity.unwrap_or_default(),
            duration: Duration::from_secs(seconds.unsigned_abs()),
            transitions: u32::try_from(spec.lease_transitions.unwrap_or(0)).unwrap_or(0),
            acquired: spec.acquire_time.unwrap_or_default(),
            renewed: spec.renew_time.unwrap_or_default(),
            resource_version: lease.metadata.resource_version,
        }
    }
}
