//! Interrupts by CPU.
//!
//! Reads: `/proc/interrupts` (kernel/irq/proc.c). Yields: `node_interrupts_total`. Costs: one file of a line per interrupt and
//! a column per CPU; off by default for its many series.

use super::family::counter;
use super::{CollectError, Collector, Context, KeptFile, Settings, text};
use crate::config::collector::{Collectors, Filter};
use crate::contract::Family;
use crate::exposition::Encoder;

/// Its family.
pub const FAMILIES: &[Family<'static>] =
    &[counter("node_interrupts_total", &["cpu", "type", "info", "devices"], "Interrupt details.")];

/// One line's labels, from what stands before and after its numbers.
struct Interrupt {
    name: String,
    tail: Vec<u8>,
    info: String,
    devices: String,
    wanted: bool,
}

impl Interrupt {
    fn new(filter: &Filter, name: &str, tail: &[u8]) -> Self {
        let description = String::from_utf8_lossy(tail);
        let mut words: Vec<&str> = description.split_ascii_whitespace().collect();
        // A numbered one has its controller, then its devices; the others are described by all words.
        let devices =
            if text::u64(name.as_bytes()).is_some() && !words.is_empty() { words.split_off(1) } else { Vec::new() };
        let (info, devices) = (words.join(" "), devices.join(" "));
        let wanted = filter.wants(&format!("{name};{info};{devices}"));
        Self { name: name.to_owned(), tail: tail.to_owned(), info, devices, wanted }
    }
}

struct Interrupts {
    file: KeptFile,
    filter: Filter,
    zeros: bool,
    known: Vec<Interrupt>,
}

/// Makes it.
pub fn make(settings: &Settings) -> Box<dyn Collector> {
    let options = &settings.options;
    Box::new(Interrupts {
        file: settings.kept_procfs("interrupts"),
        filter: Collectors::filter(&options.interrupts_name_include, &options.interrupts_name_exclude),
        zeros: options.interrupts_include_zeros,
        known: Vec::new(),
    })
}

/// The numbers of the CPUs in the head of the file: those that are off line are not there.
pub(super) fn cpus(head: &[u8]) -> impl Iterator<Item = &str> {
    text::words(head).filter_map(|word| text::utf8(word)?.strip_prefix("CPU"))
}

impl Collector for Interrupts {
    fn collect(&mut self, _: &Context<'_>, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        let mut lines = text::lines(self.file.read()?);
        let head = lines.next().unwrap_or_default();
        let count = cpus(head).count();
        let mut samples = out.family(&FAMILIES[0]);
        let mut at = 0;
        for line in lines {
            // On some machines no blank follows the colon.
            let Some(colon) = memchr::memchr(b':', line) else { continue };
            let Some(name) = text::utf8(line[..colon].trim_ascii()) else { continue };
            let numbers = &line[colon + 1..];
            // `ERR` and `MIS` have one number for all CPUs and no description.
            let Some(last) = text::words(numbers).nth(count.saturating_sub(1)) else { continue };
            let tail = &numbers[last.as_ptr_range().end as usize - numbers.as_ptr() as usize..];
            if tail.trim_ascii().is_empty() {
                continue;
            }
            if self.known.get(at).is_none_or(|known| known.name != name || known.tail != tail) {
                self.known.truncate(at);
                self.known.push(Interrupt::new(&self.filter, name, tail));
            }
            let known = &self.known[at];
            at += 1;
            if !known.wanted {
                continue;
            }
            for (cpu, number) in cpus(head).zip(text::words(numbers)) {
                match text::u64(number) {
                    Some(0) if !self.zeros => {}
                    Some(number) => samples.put([cpu, name, &known.info, &known.devices], number),
                    None => {}
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::config::collector::Pattern;
    use crate::host::testing::Tree;

    #[test]
    fn cpus_that_are_off_line_keep_their_numbers_and_filters_see_all_three_parts() {
        let tree = Tree::new("interrupts", |settings| {
            settings.options.interrupts_name_exclude = Pattern::parse("^9;.*;acpi$").unwrap();
            settings.options.interrupts_include_zeros = false;
        });
        let text = "     CPU0 CPU2\n  1:7 8  IR-IO-APIC    1-edge  i8042\n  9: 1 2  GIC acpi\nNMI: 0 5  Non-maskable  interrupts\nERR: 3\n";
        tree.write("proc/interrupts", text);
        let expected = "node_interrupts_total{cpu=\"0\",type=\"1\",info=\"IR-IO-APIC\",devices=\"1-edge i8042\"} 7\n\
                        node_interrupts_total{cpu=\"2\",type=\"1\",info=\"IR-IO-APIC\",devices=\"1-edge i8042\"} 8\n\
                        node_interrupts_total{cpu=\"2\",type=\"NMI\",info=\"Non-maskable interrupts\",devices=\"\"} 5\n";
        assert_eq!(tree.text(), expected);
        tree.write("proc/interrupts", "CPU0\n  1: 9  IR-IO-APIC 1-edge other\n");
        let expected = "node_interrupts_total{cpu=\"0\",type=\"1\",info=\"IR-IO-APIC\",devices=\"1-edge other\"} 9\n";
        assert_eq!(tree.text(), expected);
    }
}
