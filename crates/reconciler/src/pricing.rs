//! What nodes and parts of them cost per hour.

use gpu_autoscaler_model::{GpuResource, GpuShare, MigGeometry, Node, Pod, Rate};

use crate::Policy;

/// The price of a node; `None` when its type, region or way of payment has none.
pub(crate) fn node_rate(node: &Node, policy: &Policy) -> Option<Rate> {
    let capacity_type = node.capacity_type.or(policy.capacity_type_unlabeled)?;
    let region = node.region.as_deref();
    let price = policy.prices.lookup(node.instance_type.as_ref()?, region, capacity_type)?;
    Some(price.rate)
}

/// Physical GPUs of a node: what its labels say or what it offers, whichever is more, so that the
/// parts of its price never add up to more than it, however labels and capacity disagree.
///
/// Labels stay when a GPU falls off the bus, and are late when a node comes back larger.
pub(crate) fn gpus_of(node: &Node) -> Option<u32> {
    let replicas = node.sharing.map_or(1, |sharing| sharing.replicas.max(1));
    let offered = node.allocatable.gpu_count(&GpuResource::Whole).div_ceil(replicas);
    let shared = node.allocatable.gpu_count(&GpuResource::Shared).div_ceil(replicas);
    node.gpus.max(Some(offered.max(shared)).filter(|gpus| *gpus > 0))
}

/// What `freed` of the GPUs that a pod holds costs, by the part of the node's GPUs that they are:
/// the machine is bought for them.
///
/// `None` when the node has no price or does not tell how many GPUs it has, or when no table gives
/// the part that a slice of its model is.
pub(crate) fn part_rate(node: &Node, pod: &Pod, freed: GpuShare, policy: &Policy) -> Option<Rate> {
    let rate = node_rate(node, policy)?;
    let gpus = u64::from(gpus_of(node)?);
    let replicas = node.sharing.map_or(1, |sharing| u64::from(sharing.replicas));
    let model = || MigGeometry::for_product(node.gpu_model.as_ref()?.as_str());
    let mut total: Option<Rate> = None;
    for held in &pod.requests.gpus {
        let (slices, of_slices) = match &held.resource {
            GpuResource::Whole | GpuResource::Shared => (1, 1),
            GpuResource::Mig(profile) | GpuResource::MigShared(profile) => {
                let geometry = model()?;
                let at = geometry.profile_named(&profile.to_string())?;
                let share = geometry.share_of(&geometry.profiles[at]);
                (u64::from(share.part()), u64::from(share.of()))
            }
        };
        let parts = u64::from(held.count).checked_mul(slices)?;
        let all = gpus.checked_mul(replicas)?.checked_mul(of_slices)?;
        // One division, so that nothing is rounded twice.
        let part = rate
            .share(parts.checked_mul(freed.part().into())?, all.checked_mul(freed.of().into())?)?;
        total = Some(match total {
            Some(sum) => sum.checked_add(part)?,
            None => part,
        });
    }
    total
}
