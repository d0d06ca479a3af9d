//! The uprobes of each executable, and which targets use them.
//!
//! Reads: links as they are attached. Yields: what is attached to which file, for one process or for all; links that
//! nobody uses go to the [`Detacher`]. Costs: a few look-ups when a target comes or goes.

use std::collections::{HashMap, HashSet};

use rustok_obsd_ebpf::{Scope, Tag};

use crate::{
    probe::{Detacher, uprobe::Links},
    target::FileIdentity,
};

/// A program that is to be attached to places of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) program: &'static str,
    pub(super) places: Vec<u64>,
}

struct Attached {
    places: Vec<u64>,
    links: Links,
    processes: HashSet<u32>,
}

struct File {
    /// Different from those of all other files: two of them may be one inode below.
    number: u16,
    scope: Scope,
    programs: HashMap<&'static str, Attached>,
}

/// See the module's head.
#[derive(Default)]
pub(super) struct FileProbes {
    files: HashMap<FileIdentity, File>,
    /// Numbers of files to which the first probes are being attached.
    begun: HashMap<FileIdentity, u16>,
    last: u16,
    pub(super) detacher: Detacher,
}

/// What has to be attached for one more target of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) steps: Vec<Step>,
    pub(super) scope: Scope,
    pub(super) tag: Tag,
    /// These targets change from probes of their own to those of the file.
    pub(super) widens: bool,
}

impl FileProbes {
    /// What `pid` lacks of `steps`. The first target of a file has probes of its own where the kernel has such; a second
    /// one makes them those of the file, so that none is attached twice for long.
    pub(super) fn wanted(&mut self, file: FileIdentity, steps: &[Step], for_processes: bool) -> Wanted {
        let number = self.number(file);
        let Some(known) = self.files.get(&file) else {
            let scope = if for_processes { Scope::Process } else { Scope::File };
            return Wanted { steps: steps.to_vec(), scope, tag: Tag::new(number, scope), widens: false };
        };
        let missing = |step: &&Step| !known.programs.contains_key(step.program);
        let mut wanted: Vec<Step> = steps.iter().filter(missing).cloned().collect();
        let widens = known.scope == Scope::Process;
        if widens {
            wanted.extend(
                known.programs.iter().map(|(program, attached)| Step { program, places: attached.places.clone() }),
            );
        }
        Wanted { steps: wanted, scope: Scope::File, tag: Tag::new(number, Scope::File), widens }
    }

    /// The number of a file, a new one where it has none.
    fn number(&mut self, file: FileIdentity) -> u16 {
        if let Some(number) = self.files.get(&file).map(|known| known.number).or_else(|| self.begun.get(&file).copied())
        {
            return number;
        }
        let used = |number: u16| {
            self.files.values().any(|known| known.number == number) || self.begun.values().any(|begun| *begun == number)
        };
        // Far more numbers than files that are observed at a time.
        let next = (1..=i16::MAX.cast_unsigned()).map(|step| 1 + (self.last + step) % i16::MAX.cast_unsigned());
        let number = next.into_iter().find(|number| !used(*number)).unwrap_or(1);
        self.last = number;
        self.begun.insert(file, number);
        number
    }

    /// Nothing is being attached to the file any more.
    pub(super) fn ended(&mut self, file: FileIdentity) {
        self.begun.remove(&file);
    }

    /// Takes over what was attached for `pid`. Yields the other targets that use the probes of the file from now on; those
    /// that they had until now are detached by [`Self::detach`] once the programs know.
    pub(super) fn attached(
        &mut self,
        file: FileIdentity,
        pid: u32,
        scope: Scope,
        links: Vec<(Step, Links)>,
        steps: &[Step],
    ) -> (Vec<u32>, Vec<Links>) {
        let number = self.number(file);
        let known = self.files.entry(file).or_insert_with(|| File { number, scope, programs: HashMap::new() });
        known.scope = scope;
        let (mut others, mut old) = (HashSet::new(), Vec::new());
        for (step, links) in links {
            let Step { program, places } = step;
            match known.programs.get_mut(program) {
                Some(attached) => {
                    others.extend(&attached.processes);
                    old.push(std::mem::replace(&mut attached.links, links));
                }
                None => {
                    known.programs.insert(program, Attached { places, links, processes: HashSet::new() });
                }
            }
        }
        for step in steps {
            if let Some(attached) = known.programs.get_mut(step.program) {
                attached.processes.insert(pid);
            }
        }
        // Nothing that nobody uses, as after the end of all others meanwhile.
        self.sweep(file);
        (others.into_iter().filter(|other| *other != pid).collect(), old)
    }

    /// Whether `program` is attached for `pid`.
    pub(super) fn is_attached(&self, file: FileIdentity, program: &str, pid: u32) -> bool {
        let attached = self.files.get(&file).and_then(|known| known.programs.get(program));
        attached.is_some_and(|attached| attached.processes.contains(&pid))
    }

    /// Whether `program` is attached to the file, for whichever process.
    pub(super) fn has(&self, file: FileIdentity, program: &str) -> bool {
        self.files.get(&file).is_some_and(|known| known.programs.contains_key(program))
    }

    /// The tag of the file's probes.
    pub(super) fn tag(&self, file: FileIdentity) -> Tag {
        self.files.get(&file).map_or(Tag::NONE, |known| Tag::new(known.number, known.scope))
    }

    /// `pid` ended or no longer needs `program`.
    pub(super) fn release(&mut self, file: FileIdentity, pid: u32, program: Option<&str>) {
        let Some(known) = self.files.get_mut(&file) else { return };
        for (name, attached) in &mut known.programs {
            if program.is_none_or(|program| program == *name) {
                attached.processes.remove(&pid);
            }
        }
        self.sweep(file);
    }

    /// Detaches links that others have taken the place of.
    pub(super) fn detach(&self, links: Vec<Links>) {
        self.detacher.close(links.into_iter().flat_map(Links::into_descriptors));
    }

    /// Detaches everything.
    pub(super) fn clear(&mut self) {
        let files = std::mem::take(&mut self.files);
        let links = files.into_values().flat_map(|known| known.programs.into_values()).map(|attached| attached.links);
        self.detach(links.collect());
    }

    /// Detaches what no process of the file uses.
    fn sweep(&mut self, file: FileIdentity) {
        let Some(known) = self.files.get_mut(&file) else { return };
        let unused: Vec<&'static str> = known
            .programs
            .iter()
            .filter(|(_, attached)| attached.processes.is_empty())
            .map(|(name, _)| *name)
            .collect();
        let links = unused.iter().filter_map(|name| known.programs.remove(name)).map(|attached| attached.links);
        let links: Vec<Links> = links.collect();
        if known.programs.is_empty() {
            self.files.remove(&file);
        }
        self.detach(links);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> FileIdentity {
        let path = std::path::Path::new("/proc/self/exe");
        crate::target::Executable::open(path).unwrap().identity()
    }

    fn steps() -> Vec<Step> {
        vec![Step { program: "a", places: vec![1, 2] }, Step { program: "b", places: vec![3] }]
    }

    fn attach(probes: &mut FileProbes, pid: u32, steps: &[Step]) -> (Wanted, Vec<u32>) {
        let wanted = probes.wanted(file(), steps, true);
        let links = wanted.steps.iter().map(|step| (step.clone(), Links::default())).collect();
        let (others, old) = probes.attached(file(), pid, wanted.scope, links, steps);
        probes.ended(file());
        probes.detach(old);
        (wanted, others)
    }

    #[test]
    fn the_first_target_has_probes_of_its_own_and_the_second_one_makes_them_the_files() {
        let mut probes = FileProbes::default();
        let (wanted, others) = attach(&mut probes, 1, &steps());
        assert_eq!((wanted.scope, wanted.widens, wanted.steps.len(), others), (Scope::Process, false, 2, vec![]));
        assert_eq!(probes.tag(file()), wanted.tag, "what was attached is what counts");
        let (wanted, others) = attach(&mut probes, 2, &steps());
        assert_eq!((wanted.scope, wanted.widens, wanted.steps.len(), others), (Scope::File, true, 2, vec![1]));
        assert_eq!(probes.tag(file()), wanted.tag);
        // Everything is there for a third one.
        let (wanted, others) = attach(&mut probes, 3, &steps());
        assert_eq!((wanted.scope, wanted.widens, wanted.steps.len(), others), (Scope::File, false, 0, vec![]));
        assert!((1..=3).all(|pid| probes.is_attached(file(), "a", pid)));
        probes.release(file(), 1, Some("a"));
        assert!(!probes.is_attached(file(), "a", 1) && probes.is_attached(file(), "b", 1));
        for pid in 1..=3 {
            probes.release(file(), pid, None);
        }
        assert!(probes.files.is_empty());
    }

    #[test]
    fn a_program_that_the_first_target_did_not_want_is_attached_for_the_second_one() {
        let mut probes = FileProbes::default();
        attach(&mut probes, 1, &steps()[..1]);
        let (wanted, _) = attach(&mut probes, 2, &steps());
        let mut programs: Vec<_> = wanted.steps.iter().map(|step| step.program).collect();
        programs.sort_unstable();
        assert_eq!(programs, ["a", "b"]);
        assert!(!probes.is_attached(file(), "b", 1) && probes.is_attached(file(), "b", 2));
    }
}
