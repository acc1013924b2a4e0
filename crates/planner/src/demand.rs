//! The distribution of requests that packing prepares for.

use std::collections::BTreeMap;

use crate::request::{GpuRequest, Request};

/// How often each request was seen, or is expected.
///
/// Weights are counts, so that a demand learned from arrivals is exact and merges by addition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    counts: BTreeMap<Request, u64>,
    total: u64,
}

/// A request that stands for a part of the demand.
#[derive(Clone, Debug)]
pub struct TypicalRequest<'a> {
    /// The request; its host memory is that of the first of the requests that it stands for.
    pub request: &'a Request,
    /// Its part of all typical requests; the parts sum to 1.
    pub share: f64,
}

impl Demand {
    /// Adds one request.
    pub fn observe(&mut self, request: &Request) {
        *self.counts.entry(request.clone()).or_default() += 1;
        self.total += 1;
    }

    /// Takes away one request that was added; one that was not changes nothing.
    pub fn forget(&mut self, request: &Request) {
        let Some(count) = self.counts.get_mut(request) else { return };
        *count -= 1;
        self.total -= 1;
        if *count == 0 {
            self.counts.remove(request);
        }
    }

    /// How many requests were added.
    pub fn len(&self) -> u64 {
        self.total
    }

    /// Whether none was.
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// Each distinct request with its count, in the order of the requests.
    pub fn iter(&self) -> impl Iterator<Item = (&Request, u64)> {
        self.counts.iter().map(|(request, &count)| (request, count))
    }

    /// The most frequent requests that together make up `coverage` of the demand.
    ///
    /// Requests that differ in host memory alone count as one. Among equally frequent ones the
    /// larger comes first.
    ///
    /// Source: `typicalPods` of the FGD simulator (Weng et al., USENIX ATC 2023), where
    /// `coverage` is 0.95.
    pub fn typical(&self, coverage: f64) -> Vec<TypicalRequest<'_>> {
        let mut merged: Vec<(&Request, u64)> = Vec::new();
        let mut seen: BTreeMap<(u64, &GpuRequest, &[std::sync::Arc<str>]), usize> = BTreeMap::new();
        for (request, &count) in &self.counts {
            let key = (request.cpu_milli, &request.gpu, request.models.as_slice());
            let position = *seen.entry(key).or_insert_with(|| {
                merged.push((request, 0));
                merged.len() - 1
            });
            merged[position].1 += count;
        }
        merged.sort_by(|(a, count_a), (b, count_b)| {
            let size = |r: &Request| (r.gpu_milli(), r.cpu_milli);
            count_b.cmp(count_a).then_with(|| size(b).cmp(&size(a))).then_with(|| a.cmp(b))
        });
        let mut taken = 0_u64;
        let enough = merged.iter().take_while(|(_, count)| {
            let go_on = (taken as f64) < coverage * self.total as f64;
            taken += count;
            go_on
        });
        let kept = enough.count();
        let sum: u64 = merged[..kept].iter().map(|(_, count)| count).sum();
        merged[..kept]
            .iter()
            .map(|&(request, count)| TypicalRequest { request, share: count as f64 / sum as f64 })
            .collect()
    }
}
