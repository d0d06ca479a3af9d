//! Randomness of the kernel.
//!
//! Reads: `/proc/sys/kernel/random/{entropy_avail,poolsize}` (drivers/char/random.c). Yields: `node_entropy_available_bits`,
//! `node_entropy_pool_size_bits`. Costs: two small files.

use super::family::gauge;
use super::{CollectError, Collector, Context, KeptFile, Settings, text};
use crate::contract::Family;
use crate::exposition::Encoder;

/// Its families.
pub const FAMILIES: &[Family<'static>] = &[
    gauge("node_entropy_available_bits", &[], "Bits of available entropy."),
    gauge("node_entropy_pool_size_bits", &[], "Bits of entropy pool."),
];

struct Entropy([KeptFile; 2]);

/// Makes it.
pub fn make(settings: &Settings) -> Box<dyn Collector> {
    let file = |name: &str| settings.kept_procfs(name);
    Box::new(Entropy(["sys/kernel/random/entropy_avail", "sys/kernel/random/poolsize"].map(file)))
}

impl Collector for Entropy {
    fn collect(&mut self, _: &Context<'_>, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        for (file, family) in self.0.iter_mut().zip(FAMILIES) {
            let bits = text::u64(file.read()?.trim_ascii());
            out.family(family).put([], bits.ok_or_else(|| CollectError::format(file.path(), "is no number"))?);
        }
        Ok(())
    }
}
