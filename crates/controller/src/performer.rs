//! Performs effects, one after another, and hands their receipts back.

use std::sync::Arc;

use gpu_autoscaler_k8s::effects::Performer;
use gpu_autoscaler_model::{Effect, Receipt, ReceiptResult};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::clock;
use crate::health::WriteHealth;
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
            let performed = performer.perform(&effect, clock::now).await;
            metrics.effect(&effect, &performed);
            note(&performed.receipt.result, &health);
            performed.receipt
        };
        if receipts.send(receipt).await.is_err() {
            return;
        }
    }
}

/// A conflict, or an object that is gone, is an answer: writing works.
fn note(result: &ReceiptResult, health: &watch::Sender<WriteHealth>) {
    let failed = match result {
        ReceiptResult::Refused { why } | ReceiptResult::Unanswered { why } => Some(why),
        ReceiptResult::NotSent => return,
        ReceiptResult::Applied
        | ReceiptResult::AlreadyApplied
        | ReceiptResult::Conflict
        | ReceiptResult::Gone => None,
    };
    let failed = failed.map(|why| (Instant::now(), Arc::clone(why)));
    health.send_replace(WriteHealth { failed });
}
