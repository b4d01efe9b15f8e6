//! Source hashing (net/netfilter/ipvs/ip_vs_sh.c): 256 buckets, of which each real server in turn takes as many side by
//! side as its weight says; the client's hash names the bucket (see `buckets`).
//!
//! As in the kernel a real server of weight 0 takes one bucket, whose clients find nobody unless they may fall back, and
//! weights are not scaled down: with one above 255 at the head of the list nobody else gets any. The hash is keyed
//! (`secret`), the kernel's is not.

use super::buckets::Candidate;

const BUCKETS: usize = 256;

/// By bucket, the index of a real server; empty where there are none.
pub(super) fn buckets(candidates: &[Candidate]) -> Vec<u32> {
    let shares = candidates.iter().zip(0..).flat_map(|(candidate, index)| {
        let count = usize::try_from(candidate.weight.0.max(1)).unwrap_or(BUCKETS);
        std::iter::repeat_n(index, count.min(BUCKETS))
    });
    if candidates.is_empty() { Vec::new() } else { shares.cycle().take(BUCKETS).collect() }
}
