//! CPU time and throttling of a cgroup.
//!
//! Reads: v1 `cpuacct.usage_percpu` (ns), `cpuacct.stat` (ticks), `cpu.stat` (ns); v2 `cpu.stat` (µs). Yields: [`Cpu`].
//! Costs: two small files in v1, one in v2; one more where there is a quota.

use super::files::{Files, Reader, Source};
use crate::host::text;

/// CPU time.
#[derive(Debug, Default)]
pub struct Cpu {
    /// Of each CPU, ns; empty in v2.
    pub per_cpu: Vec<u64>,
    /// Of all, ns.
    pub total_ns: Option<u64>,
    /// In user mode, ns.
    pub user_ns: Option<u64>,
    /// In the kernel, ns.
    pub system_ns: Option<u64>,
    /// Throttling, where there is a quota.
    pub throttling: Option<Throttling>,
}

/// What the quota did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Throttling {
    /// Periods.
    pub periods: u64,
    /// Those in which it ran out.
    pub throttled: u64,
    /// Time without CPU, ns.
    pub throttled_ns: u64,
    /// Periods with bursts.
    pub bursts: u64,
    /// Time beyond the quota, ns.
    pub burst_ns: u64,
}

impl Cpu {
    /// Reads it.
    pub fn read(&mut self, id: &str, files: &mut Files, reader: &mut Reader, tick_ns: u64, quota: bool) {
        self.per_cpu.clear();
        (self.total_ns, self.user_ns, self.system_ns, self.throttling) = (None, None, None, None);
        if reader.is_v2(Source::CpuUsage) {
            let wants = quota && reader.is_v2(Source::CpuThrottling);
            if let Some(text) = reader.read(id, files, Source::CpuUsage) {
                self.parse_v2(text);
                self.throttling = wants.then(|| throttling(text));
            }
            return;
        }
        if let Some(text) = reader.read(id, files, Source::CpuUsage) {
            self.per_cpu.extend(text::words(text.trim_ascii_end()).filter_map(text::u64));
            self.total_ns = Some(self.per_cpu.iter().sum());
        }
        if let Some(text) = reader.read(id, files, Source::CpuModes) {
            for (name, value) in text::fields(text) {
                let ns = text::u64(value).map(|ticks| ticks.saturating_mul(tick_ns));
                match name {
                    b"user" => self.user_ns = ns,
                    b"system" => self.system_ns = ns,
                    _ => {}
                }
            }
        }
        if quota {
            self.throttling = reader.read(id, files, Source::CpuThrottling).map(throttling);
        }
    }

    fn parse_v2(&mut self, text: &[u8]) {
        for (name, value) in text::fields(text) {
            let ns = || text::u64(value).map(|us| us.saturating_mul(1000));
            match name {
                b"usage_usec" => self.total_ns = ns(),
                b"user_usec" => self.user_ns = ns(),
                b"system_usec" => self.system_ns = ns(),
                _ => {}
            }
        }
    }
}

fn throttling(text: &[u8]) -> Throttling {
    let mut found = Throttling::default();
    for (name, value) in text::fields(text) {
        let Some(value) = text::u64(value) else { continue };
        let us = value.saturating_mul(1000);
        match name {
            b"nr_periods" => found.periods = value,
            b"nr_throttled" => found.throttled = value,
            b"throttled_time" => found.throttled_ns = value,
            b"throttled_usec" => found.throttled_ns = us,
            b"nr_bursts" => found.bursts = value,
            b"burst_time" => found.burst_ns = value,
            b"burst_usec" => found.burst_ns = us,
            _ => {}
        }
    }
    found
}

/// What it may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuSpec {
    /// Shares, of v1's scale.
    pub shares: Option<u64>,
    /// Period, µs.
    pub period: Option<u64>,
    /// Quota in each period, µs.
    pub quota: Option<u64>,
}

impl CpuSpec {
    /// Reads it.
    #[must_use]
    pub fn read(id: &str, files: &mut Files, reader: &mut Reader) -> Self {
        let number = |text: &[u8]| text::u64(text.trim_ascii());
        if reader.is_v2(Source::CpuQuota) {
            let shares = reader.read(id, files, Source::CpuShares).and_then(number).map(shares);
            let mut found = Self { shares, ..Self::default() };
            if let Some(text) = reader.read(id, files, Source::CpuQuota) {
                let mut words = text::words(text.trim_ascii()).map(text::u64);
                found.quota = words.next().flatten();
                found.period = words.next().flatten();
            }
            return found;
        }
        // −1 is none.
        let quota = reader.read(id, files, Source::CpuQuota).and_then(number);
        Self {
            shares: reader.read(id, files, Source::CpuShares).and_then(number),
            period: reader.read(id, files, Source::CpuPeriod).and_then(number),
            quota: quota.filter(|quota| *quota > 0),
        }
    }
}

/// Shares of a weight: 1 to 10 000 becomes 2 to 262 144, as the kubelet and cAdvisor have it.
fn shares(weight: u64) -> u64 {
    2 + weight.saturating_sub(1).saturating_mul(262_142) / 9999
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_become_shares() {
        assert_eq!([1, 100, 10_000].map(shares), [2, 2597, 262_144]);
    }

    #[test]
    fn both_versions_of_cpu_stat_are_understood() {
        let v1 = throttling(b"nr_periods 10\nnr_throttled 3\nthrottled_time 1500\nnr_bursts 2\nburst_time 70\n");
        assert_eq!(v1, Throttling { periods: 10, throttled: 3, throttled_ns: 1500, bursts: 2, burst_ns: 70 });
        let v2 = b"usage_usec 5\nuser_usec 3\nsystem_usec 2\nnr_periods 10\nnr_throttled 3\nthrottled_usec 4\nnr_bursts 2\nburst_usec 1\n";
        let expected = Throttling { periods: 10, throttled: 3, throttled_ns: 4000, bursts: 2, burst_ns: 1000 };
        assert_eq!(throttling(v2), expected);
    }
}
