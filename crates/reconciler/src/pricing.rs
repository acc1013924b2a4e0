//! What nodes and parts of them cost per hour.

use gpu_autoscaler_model::{GpuResource, Node, Pod, Rate};

use crate::Policy;

/// The price of a node; `None` when its type, region or way of payment has none.
pub(crate) fn node_rate(node: &Node, policy: &Policy) -> Option<Rate> {
    let capacity_type = node.capacity_type.or(policy.capacity_type_unlabeled)?;
    let region = node.region.as_deref();
    let price = policy.prices.lookup(node.instance_type.as_ref()?, region, capacity_type)?;
    Some(price.rate)
}

/// The part of the node's price that a pod's GPUs stand for, by the number of GPUs: the machine
/// is bought for them.
///
/// `None` when the node has no price, or does not tell how many GPUs it has.
pub(crate) fn pod_rate(node: &Node, pod: &Pod, policy: &Policy) -> Option<Rate> {
    let rate = node_rate(node, policy)?;
    let gpus = u64::from(node.gpus?);
    let replicas = node.sharing.map_or(1, |sharing| u64::from(sharing.replicas));
    let mut total: Option<Rate> = None;
    for held in &pod.requests.gpus {
        let count = u64::from(held.count);
        let part = match &held.resource {
            GpuResource::Whole | GpuResource::Shared => {
                rate.share(count, gpus.checked_mul(replicas)?)?
            }
            // What part of a device a slice is stands in the tables of its model.
            GpuResource::Mig(_) | GpuResource::MigShared(_) => return None,
        };
        total = Some(match total {
            Some(sum) => sum.checked_add(part)?,
            None => part,
        });
    }
    total
}
