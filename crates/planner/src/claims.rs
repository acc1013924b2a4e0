//! Which pods use a claim, of a volume or of devices.

use std::collections::BTreeMap;

use gpu_autoscaler_model::{ClaimName, Constraints, ObjectKey, Pod, Uid};

/// The active pods of each claim, and whether each has a node.
#[derive(Clone, Debug, Default)]
pub struct ClaimUsers {
    by_claim: BTreeMap<ObjectKey, BTreeMap<Uid, bool>>,
}

impl ClaimUsers {
    /// Takes in a pod that came, changed or went; `claims` are those of one kind.
    pub fn note(
        &mut self,
        before: Option<&Pod>,
        after: Option<&Pod>,
        claims: fn(&Constraints) -> &[ClaimName],
    ) {
        let key = |pod: &Pod, claim: &ClaimName| {
            ObjectKey::new(pod.key.namespace.clone(), claim.name.clone())
        };
        if let Some(pod) = before {
            for claim in claims(&pod.constraints) {
                let key = key(pod, claim);
                if let Some(users) = self.by_claim.get_mut(&key) {
                    users.remove(&pod.uid);
                    if users.is_empty() {
                        self.by_claim.remove(&key);
                    }
                }
            }
        }
        if let Some(pod) = after.filter(|pod| pod.is_active()) {
            for claim in claims(&pod.constraints) {
                let users = self.by_claim.entry(key(pod, claim)).or_default();
                users.insert(pod.uid.clone(), pod.node.is_some());
            }
        }
    }

    /// Of the users of `claim` other than `pod`, whether each has a node.
    pub fn others<'a>(
        &'a self,
        claim: &ObjectKey,
        pod: &'a Uid,
    ) -> impl Iterator<Item = bool> + 'a {
        let users = self.by_claim.get(claim).into_iter().flatten();
        users.filter(move |(uid, _)| *uid != pod).map(|(_, bound)| *bound)
    }

    /// Whether no claim has a user.
    pub fn is_empty(&self) -> bool {
        self.by_claim.is_empty()
    }
}
