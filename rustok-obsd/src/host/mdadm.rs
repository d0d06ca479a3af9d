//! Software RAID.
//!
//! Reads: `/proc/mdstat` (drivers/md/md.c, `md_seq_show`), `block/md*/md/{raid_disks,degraded}` of sysfs. Yields: `node_md_*`.
//! Costs: one failed open without the driver; one file, a folder and two small files per array with it.

use super::{CollectError, Collector, Context, KeptFile, Settings, family::gauge, number, text};
use crate::contract::Family;
use crate::exposition::Encoder;
use std::fs;
use std::path::PathBuf;

const BLOCKS: Family<'static> = gauge("node_md_blocks", &["device"], "Total number of blocks on device.");
const SYNCED: Family<'static> = gauge("node_md_blocks_synced", &["device"], "Number of blocks synced on device.");
const DISKS: Family<'static> =
    gauge("node_md_disks", &["device", "state"], "Number of active/failed/spare disks of device.");
const REQUIRED: Family<'static> = gauge("node_md_disks_required", &["device"], "Total number of disks of device.");
const STATE: Family<'static> = gauge("node_md_state", &["device", "state"], "Indicates the state of md-device.");
const RAID_DISKS: Family<'static> = gauge("node_md_raid_disks", &["device"], "Number of raid disks on device.");
const DEGRADED: Family<'static> = gauge("node_md_degraded", &["device"], "Number of degraded disks on device.");

/// Its families.
pub const FAMILIES: &[Family<'static>] = &[BLOCKS, SYNCED, DISKS, REQUIRED, STATE, RAID_DISKS, DEGRADED];

/// States that node_exporter tells, with the word of the line that shows each; an array that is being reshaped is in none.
const STATES: [(&str, &str); 5] =
    [("active", ""), ("inactive", ""), ("recovering", "recovery"), ("resync", "resync"), ("check", "check")];

#[derive(Debug, PartialEq)]
struct Array<'t> {
    name: &'t str,
    state: &'t str,
    /// Active, failed, spare.
    disks: [u64; 3],
    required: u64,
    blocks: u64,
    synced: u64,
}

struct Mdadm {
    mdstat: KeptFile,
    block: PathBuf,
}

/// Makes it.
pub fn make(settings: &Settings) -> Box<dyn Collector> {
    Box::new(Mdadm { mdstat: settings.kept_procfs("mdstat"), block: settings.sysfs("block") })
}

impl Collector for Mdadm {
    fn collect(&mut self, _: &Context<'_>, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        let arrays = parse(self.mdstat.read()?);
        let mut samples = out.family(&STATE);
        for array in &arrays {
            for (state, _) in STATES {
                samples.put([array.name, state], u64::from(array.state == state));
            }
        }
        let mut samples = out.family(&DISKS);
        for array in &arrays {
            for (state, count) in ["active", "failed", "spare"].into_iter().zip(array.disks) {
                samples.put([array.name, state], count);
            }
        }
        let mut each = |family: &Family<'static>, value: fn(&Array<'_>) -> u64| {
            let mut samples = out.family(family);
            for array in &arrays {
                samples.put([array.name], value(array));
            }
        };
        each(&REQUIRED, |array| array.required);
        each(&BLOCKS, |array| array.blocks);
        each(&SYNCED, |array| array.synced);
        let mut raids = Vec::new();
        for entry in fs::read_dir(&self.block).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let folder = entry.path().join("md");
            if let Some(disks) = name.starts_with("md").then(|| number(&folder.join("raid_disks"))).flatten() {
                // Levels without redundancy have no such attribute.
                raids.push((name, disks, number(&folder.join("degraded")).unwrap_or_default()));
            }
        }
        let mut samples = out.family(&RAID_DISKS);
        for (name, disks, _) in &raids {
            samples.put([name.as_str()], *disks);
        }
        let mut samples = out.family(&DEGRADED);
        for (name, _, degraded) in &raids {
            samples.put([name.as_str()], *degraded);
        }
        Ok(())
    }
}

/// The arrays; what is no array is skipped.
fn parse(text: &[u8]) -> Vec<Array<'_>> {
    let lines: Vec<&str> = text::lines(text).filter_map(text::utf8).collect();
    let is_head = |line: &str| !line.starts_with([' ', '\t']) && line.contains(" : ");
    let heads = lines.iter().enumerate().filter(|(_, line)| is_head(line) && !line.starts_with("Personalities"));
    heads
        .filter_map(|(at, head)| {
            let below = &lines[at + 1..];
            let end = below.iter().position(|line| !line.starts_with([' ', '\t'])).unwrap_or(below.len());
            array(head, &below[..end])
        })
        .collect()
}

/// One array: its line `NAME : STATE [(…)] LEVEL MEMBER[NUMBER](FLAG)…`, and those below it.
fn array<'t>(head: &'t str, below: &[&str]) -> Option<Array<'t>> {
    let mut words = head.split_whitespace();
    let (name, mut state) = (words.next()?, words.nth(1)?);
    let status = below.first()?;
    let blocks = status.split_whitespace().next()?.parse().ok()?;
    let count = |flag: &str| head.matches(flag).count() as u64;
    let members = head.split_whitespace().filter(|word| is_member(word)).count() as u64;
    let (required, active) = if head.contains("raid0") || head.contains("linear") {
        (members, members)
    } else if state == "inactive" {
        (0, 0)
    } else {
        // `[REQUIRED/ACTIVE] [UU_]`
        let counts = status.split_whitespace().find_map(|word| {
            let (required, active) = word.strip_prefix('[')?.strip_suffix(']')?.split_once('/')?;
            Some((required.parse().ok()?, active.parse().ok()?))
        });
        counts?
    };
    let mut synced = blocks;
    for line in &below[1..] {
        if let Some((now, _)) = STATES.into_iter().find(|(_, word)| !word.is_empty() && line.contains(word)) {
            state = now;
            // `(DONE/ALL)`; nothing is done where it is DELAYED or PENDING.
            let done = line.split_once('(').and_then(|(_, rest)| rest.split_once('/')?.0.parse().ok());
            synced = done.unwrap_or_default();
        }
    }
    Some(Array { name, state, disks: [active, count("(F)"), count("(S)")], required, blocks, synced })
}

/// `sda1[0]`, with flags behind it or not.
fn is_member(word: &str) -> bool {
    let number = word.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    number.is_some_and(|(digits, _)| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn garbage_is_skipped_and_no_arrays_are_none() {
        assert_eq!(parse(b"Personalities : [raid1]\nunused devices: <none>\n"), []);
        assert_eq!(
            parse(b"md0 : active\nmd1\n\nmd2 : active raid1 a[0]\nmd3 : active raid1 a[0]\n   x blocks [2/1]\n"),
            []
        );
    }

    #[test]
    fn a_reshape_is_in_no_state_of_node_exporters() {
        let text = b"md1 : active raid5 c[3] b[1] a[0](F)\n      100 blocks level 5 [3/2] [U_U]\n      \
            [==>..]  reshape = 12.6% (37/100) finish=1.0min\n      bitmap: 0/1 pages\n";
        let expected = Array { name: "md1", state: "active", disks: [2, 1, 0], required: 3, blocks: 100, synced: 100 };
        assert_eq!(parse(text), [expected]);
    }
}
