//! Performs effects, one after another, and hands their receipts back.

use std::sync::Arc;

use gpu_autoscaler_k8s::effects::Performer;
use gpu_autoscaler_model::{Effect, Receipt, ReceiptResult};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::{Instrument as _, info_span};

use crate::clock;
use crate::health::{FAILED_TOLD, WriteHealth};
use crate::metrics::Metrics;

/// Effects that wait for their turn; at the default rate as many as fit into their deadline.
pub const QUEUE_MAX: usize = 1024;

/// Performs what comes until the sender is gone; what waits then is not begun any more.
pub async fn run(
    mut performer: Performer,
    mut effects: mpsc::Receiver<Effect>,
    receipts: mpsc::Sender<Receipt>,
    metrics: Arc<Metrics>,
    health: watch::Sender<WriteHealth>,
) {
    while let Some(effect) = effects.recv().await {
        if effects.is_closed() {
            return;
        }
        let receipt = if clock::now() > effect.deadline {
            let why = "waited for its turn beyond its deadline".into();
            let result = ReceiptResult::Unanswered { why };
            Receipt { effect: effect.id, at: clock::now(), result }
        } else {
            let span = info_span!("perform effect", id = %effect.id);
            let performed = performer.perform(&effect, clock::now).instrument(span).await;
            metrics.effect(&effect, &performed);
            note(effect.action.as_str(), &performed.receipt.result, &health);
            performed.receipt
        };
        if receipts.send(receipt).await.is_err() {
            return;
        }
    }
}

/// A conflict, or an object that is gone, is an answer: writing works.
fn note(action: &'static str, result: &ReceiptResult, health: &watch::Sender<WriteHealth>) {
    let failed = match result {
        ReceiptResult::Refused { why } | ReceiptResult::Unanswered { why } => Some(why),
        ReceiptResult::NotSent => return,
        ReceiptResult::Applied
        | ReceiptResult::AlreadyApplied
        | ReceiptResult::Conflict
        | ReceiptResult::Gone => None,
    };
    let failed = failed.map(|why| (Instant::now() + FAILED_TOLD, Arc::clone(why)));
    health.send_modify(|health| match failed {
        Some(failed) => drop(health.failed.insert(action, failed)),
        None => drop(health.failed.remove(action)),
    });
}
