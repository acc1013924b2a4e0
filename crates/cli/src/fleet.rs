//! The fleet as a command sees it: gathered, judged by the loop's own function, made ready to print.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use gpu_autoscaler_controller::api::{Explanation, Status};
use gpu_autoscaler_model::{ObjectKey, PriceBook, Refusal, View};
use gpu_autoscaler_reconciler::{Outcome, Policy, State, reconcile};
use gpu_autoscaler_telemetry::http::{self, Limits, Shown};
use schemars::JsonSchema;
use serde::Serialize;

use crate::exit::{Exit, Hint};
use crate::gather::{self, Basis};
use crate::input::{self, shown};
use crate::progress::Step;
use crate::source::{self, Source, SourceArgs};

/// Longest answer that is waited for.
pub const LIMITS: Limits = Limits { time: Duration::from_secs(30), body_bytes: 1 << 30 };

/// What is known of a fleet, and how.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Fleet {
    /// From where, in words.
    pub source: String,
    /// On what usage is known.
    pub basis: Basis,
    /// What could not be read, each with its reason: the rest is partial.
    pub gaps: Vec<String>,
    /// Pods for which nothing is decided. A controller does not tell of them.
    pub refused: Vec<Refused>,
    /// What the loop found.
    #[serde(flatten)]
    pub status: Status,
    /// The same in the loop's own types; a controller keeps them to itself.
    #[serde(skip)]
    view: Option<View>,
}

/// A pod for which nothing is decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Refused {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub pod: String,
    /// Why.
    pub reason: String,
}

impl From<&Refusal> for Refused {
    fn from(refusal: &Refusal) -> Self {
        Self {
            namespace: refusal.pod.namespace.to_string(),
            pod: refusal.pod.name.to_string(),
            reason: refusal.why.to_string(),
        }
    }
}

impl Fleet {
    /// Reads the source that `args` name and judges it once, by `policy` and the price sheet that
    /// `args` name; a controller has judged by its own.
    pub fn read(args: &SourceArgs, policy: Policy) -> Result<Self> {
        let policy = priced(policy, args)?;
        let fleet = match args.source() {
            Source::Dump => Self::judged(gather::dump(args, &policy)?, &policy).0,
            Source::Server(server) => ask(&server)?,
            Source::Cluster => {
                let gathered = source::runtime()?.block_on(gather::cluster(args, &policy))?;
                Self::judged(gathered, &policy).0
            }
        };
        fleet.warn();
        Ok(fleet)
    }

    /// Names on standard error what could not be read.
    pub fn warn(&self) {
        for gap in &self.gaps {
            eprintln!("warning: {gap}");
        }
    }

    /// What the loop says of what was gathered, as at its first tick.
    pub fn judged(gathered: gather::Gathered, policy: &Policy) -> (Self, Outcome) {
        let outcome = reconcile(gathered.now, &mut State::new(), &gathered.seen, policy);
        let fleet = Self {
            source: gathered.source,
            basis: gathered.basis,
            gaps: gathered.gaps,
            refused: outcome.report.refusals.iter().map(Refused::from).collect(),
            status: Status::from(&outcome.view),
            view: Some(outcome.view.clone()),
        };
        (fleet, outcome)
    }

    /// Keeps what is of one namespace. Sums stay those of the fleet.
    pub fn keep_namespace(&mut self, namespace: &str) {
        self.refused.retain(|refused| refused.namespace == namespace);
        self.status.pods.retain(|pod| pod.namespace == namespace);
        self.status.waiting.retain(|waiting| waiting.namespace == namespace);
        self.status.findings.retain(|finding| finding.namespace == namespace);
        self.status.unknown.retain(|u| u.namespace.as_deref() == Some(namespace));
        self.status.namespaces.retain(|one| one.namespace == namespace);
    }

    /// Adds a part of the question that cannot be answered, and names it on standard error.
    pub fn note(&mut self, gap: String) {
        eprintln!("warning: {gap}");
        self.gaps.push(gap);
    }

    /// GPU pods of that name, of one namespace or of all.
    pub fn pods_named(&self, namespace: Option<&str>, name: &str) -> Vec<ObjectKey> {
        let pods = self.status.pods.iter().map(|pod| (&pod.namespace, &pod.pod));
        let refused = self.refused.iter().map(|refused| (&refused.namespace, &refused.pod));
        let waiting = self.status.waiting.iter().map(|waiting| (&waiting.namespace, &waiting.pod));
        let mut found: Vec<ObjectKey> = pods
            .chain(refused)
            .chain(waiting)
            .filter(|(of, pod)| namespace.is_none_or(|namespace| namespace == *of) && *pod == name)
            .map(|(namespace, pod)| ObjectKey::new(namespace.as_str(), pod.as_str()))
            .collect();
        found.sort();
        found.dedup();
        found
    }

    /// All that is known of one pod; `None` for one that is not known, and of a controller, which
    /// has to be asked.
    pub fn explain(&self, policy: &Policy, pod: &ObjectKey) -> Option<Explanation> {
        Explanation::of(self.view.as_ref()?, &policy.waste, pod)
    }

    /// Partly where something could not be read.
    pub fn exit(&self) -> Exit {
        if self.gaps.is_empty() { Exit::Done } else { Exit::Partly }
    }

    /// The line that says what stands below is about.
    pub fn heading(&self) -> String {
        let mut text = format!("Source:             {}\n", self.source);
        match &self.status.at {
            Some(at) => text.push_str(&format!("Judged at:          {at}\n")),
            None => text.push_str("Nothing was judged yet: the controller has just started.\n"),
        }
        if self.basis == Basis::Snapshot {
            text.push_str("Basis:              one reading, taken to have lasted for the window\n");
        }
        if !self.gaps.is_empty() {
            text.push_str("Partial:            what is missing is named on standard error\n");
        }
        text
    }
}

/// With the prices of the sheet that `args` name over those of the list.
pub fn priced(mut policy: Policy, args: &SourceArgs) -> Result<Policy> {
    if let Some(file) = &args.prices {
        let text = input::read_utf8(file)?;
        let book = PriceBook::with_sheet(&text).with_context(|| format!("read {}", shown(file)))?;
        policy.prices = Arc::new(book);
    }
    Ok(policy)
}

fn ask(server: &str) -> Result<Fleet> {
    let mut url = http::address(server).context("read `--server`")?;
    url.set_path(&format!("{}/api/v1/status", url.path().trim_end_matches('/')));
    let address = Shown::of(&url);
    let _asking = Step::begin(&format!("asking {address}"));
    let body = source::runtime()?
        .block_on(async { http::read(http::client()?.get(url), &address, LIMITS).await })
        .context(Hint::new(
            "is the controller running, and is its port forwarded? \
             kubectl -n gpu-autoscaler-system port-forward deploy/gpu-autoscaler-controller 8080",
        ))?;
    let status = serde_json::from_slice(&body).with_context(|| {
        format!(
            "read the answer of {address}; is it a controller of this release ({})?",
            env!("CARGO_PKG_VERSION")
        )
    })?;
    Ok(Fleet {
        source: format!("controller at {server}"),
        basis: Basis::Series,
        gaps: Vec::new(),
        refused: Vec::new(),
        status,
        view: None,
    })
}
