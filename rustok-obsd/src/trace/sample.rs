//! Decides which traces are kept and makes their ids.
//!
//! Reads: the caller's trace context. Yields: a trace id for what is kept. Costs: some nanoseconds, no allocation.
//!
//! Samplers: <https://opentelemetry.io/docs/specs/otel/trace/sdk/#built-in-samplers>.

use crate::config::Sampler;
use crate::exchange::TraceParent;
use std::hash::{BuildHasher, RandomState};

/// W3C Trace Context: the caller keeps this trace.
const SAMPLED: u8 = 1;

/// A sampler, ready to decide.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sampling {
    /// Follow the caller where there is one.
    parent_based: bool,
    /// Keep a trace if the lower 63 bits of its id (shifted as OpenTelemetry's SDKs do) are below this.
    bound: u64,
}

impl Sampling {
    pub(super) fn new(sampler: Sampler, ratio: f64) -> Self {
        let parent_based = matches!(
            sampler,
            Sampler::ParentBasedAlwaysOn | Sampler::ParentBasedAlwaysOff | Sampler::ParentBasedTraceIdRatio
        );
        let ratio = match sampler {
            Sampler::AlwaysOn | Sampler::ParentBasedAlwaysOn => 1.0,
            Sampler::AlwaysOff | Sampler::ParentBasedAlwaysOff => 0.0,
            Sampler::TraceIdRatio | Sampler::ParentBasedTraceIdRatio => ratio.clamp(0.0, 1.0),
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "0 to 2^63, rounded as the SDKs do"
        )]
        let bound = (ratio * (1u64 << 63) as f64) as u64;
        Self { parent_based, bound }
    }

    /// The trace's id if it is kept: the caller's, else a new one.
    pub(super) fn decide(&self, parent: Option<&TraceParent>, ids: &mut Ids) -> Option<[u8; 16]> {
        let keep = match parent {
            Some(parent) if self.parent_based => parent.flags & SAMPLED != 0,
            Some(parent) => self.keeps(&parent.trace_id),
            None => {
                let trace_id = ids.trace_id();
                return self.keeps(&trace_id).then_some(trace_id);
            }
        };
        parent.filter(|_| keep).map(|parent| parent.trace_id)
    }

    /// The same rule as the SDKs of Rust, Go and Java, so that all services of a trace agree.
    fn keeps(&self, trace_id: &[u8; 16]) -> bool {
        let [.., a, b, c, d, e, f, g, h] = *trace_id;
        u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 1 < self.bound
    }
}

/// Random ids: xoshiro256++ (Blackman, Vigna: <https://prng.di.unimi.it/>), seeded by the operating system. Ids need
/// to be unique, not secret.
#[derive(Clone, Debug)]
pub(super) struct Ids([u64; 4]);

impl Ids {
    pub(super) fn seeded() -> Self {
        // Every `RandomState` has keys from the system's random source.
        let state = RandomState::new();
        Self([state.hash_one(1u8), state.hash_one(2u8), state.hash_one(3u8), state.hash_one(4u8) | 1])
    }

    fn next(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.0;
        let result = a.wrapping_add(*d).rotate_left(23).wrapping_add(*a);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        result
    }

    fn nonzero(&mut self) -> u64 {
        loop {
            let number = self.next();
            if number != 0 {
                return number;
            }
        }
    }

    pub(super) fn trace_id(&mut self) -> [u8; 16] {
        let high = u128::from(self.next()) << 64;
        (high | u128::from(self.nonzero())).to_be_bytes()
    }

    pub(super) fn span_id(&mut self) -> [u8; 8] {
        self.nonzero().to_be_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn parent(flags: u8, low: u64) -> TraceParent {
        TraceParent { trace_id: u128::from(low | 1).to_be_bytes(), parent_id: [1; 8], flags }
    }

    #[test]
    fn every_sampler_decides_as_the_specification_says() {
        let (low, high) = (2, u64::MAX);
        // Sampler, ratio, without a parent (None: depends on the id), sampled parent, unsampled parent; the parents'
        // trace ids lie below and above the ratio.
        for (sampler, ratio, root, sampled, unsampled) in [
            (Sampler::AlwaysOn, 0.0, Some(true), [true, true], [true, true]),
            (Sampler::AlwaysOff, 1.0, Some(false), [false, false], [false, false]),
            (Sampler::TraceIdRatio, 0.0, Some(false), [false, false], [false, false]),
            (Sampler::TraceIdRatio, 0.5, None, [true, false], [true, false]),
            (Sampler::TraceIdRatio, 1.0, Some(true), [true, true], [true, true]),
            (Sampler::ParentBasedAlwaysOn, 0.0, Some(true), [true, true], [false, false]),
            (Sampler::ParentBasedAlwaysOff, 1.0, Some(false), [true, true], [false, false]),
            (Sampler::ParentBasedTraceIdRatio, 0.0, Some(false), [true, true], [false, false]),
            (Sampler::ParentBasedTraceIdRatio, 0.5, None, [true, true], [false, false]),
            (Sampler::ParentBasedTraceIdRatio, 1.0, Some(true), [true, true], [false, false]),
        ] {
            let sampling = Sampling::new(sampler, ratio);
            let mut ids = Ids::seeded();
            let roots = (0..1000).filter(|_| sampling.decide(None, &mut ids).is_some()).count();
            match root {
                Some(true) => assert_eq!(roots, 1000, "{sampler:?} {ratio}"),
                Some(false) => assert_eq!(roots, 0, "{sampler:?} {ratio}"),
                None => assert!((400..600).contains(&roots), "{sampler:?} {ratio}: {roots}"),
            }
            for (flags, expected) in [(1, sampled), (0, unsampled), (0xff, sampled), (0xfe, unsampled)] {
                for (id, expected) in [low, high].into_iter().zip(expected) {
                    let parent = parent(flags, id);
                    let decided = sampling.decide(Some(&parent), &mut ids);
                    assert_eq!(decided, expected.then_some(parent.trace_id), "{sampler:?} {ratio} {flags} {id}");
                }
            }
        }
    }

    #[test]
    fn a_ratio_keeps_its_share_of_new_traces() {
        let mut ids = Ids::seeded();
        for ratio in [0.001, 0.1, 0.25, 0.9] {
            let sampling = Sampling::new(Sampler::ParentBasedTraceIdRatio, ratio);
            let total = 200_000.0;
            let kept = (0..200_000).filter(|_| sampling.decide(None, &mut ids).is_some()).count() as f64;
            // Six standard deviations: a false alarm in 500 million runs.
            let bound = 6.0 * (total * ratio * (1.0 - ratio)).sqrt();
            assert!((kept - total * ratio).abs() < bound, "{ratio}: {kept}");
        }
    }

    #[test]
    fn ids_are_distinct_and_never_zero_and_differ_between_threads() {
        let (mut first, mut second) = (Ids::seeded(), Ids::seeded());
        let mut seen = HashSet::new();
        for _ in 0..100_000 {
            for ids in [&mut first, &mut second] {
                assert!(seen.insert(u64::from_be_bytes(ids.span_id())));
                let trace_id = u128::from_be_bytes(ids.trace_id());
                assert!(trace_id as u64 != 0 && trace_id >> 64 != 0);
            }
        }
        assert!(!seen.contains(&0));
    }

    #[test]
    fn the_generator_yields_the_published_sequence() {
        // xoshiro256++ from the state 1, 2, 3, 4, as rand_xoshiro's reference test has it.
        let mut ids = Ids([1, 2, 3, 4]);
        for expected in [41_943_041, 58_720_359, 3_588_806_011_781_223, 3_591_011_842_654_386] {
            assert_eq!(ids.next(), expected);
        }
    }
}
