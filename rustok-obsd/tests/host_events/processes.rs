//! Processes: each told once, with the sums that `wait4` tells.

use std::process::{Command, Stdio};

use rustok_obsd::events::{CpuTime, EventThread, ProcessId, Totals};

use crate::{
    helper::{self, Ended, Role},
    watch::{As, Kept, Watch},
};

const RING: u32 = 1 << 20;

/// Forks that the kernel may run under one number within the test: none, but other tests' children share it.
fn exits(watch: &Watch, pid: u32) -> Vec<(ProcessId, u32, Totals, String)> {
    watch.all(|event| match event {
        Kept::Exit { process, parent, totals, comm } if process.pid == pid => {
            Some((*process, *parent, *totals, comm.clone()))
        }
        _ => None,
    })
}

fn execs(watch: &Watch, pid: u32) -> Vec<(ProcessId, u32, String)> {
    watch.all(|event| match event {
        Kept::Exec { process, parent, comm } if process.pid == pid => Some((*process, *parent, comm.clone())),
        _ => None,
    })
}

fn freed(watch: &Watch, process: ProcessId) -> Totals {
    watch.wait(|event| match event {
        Kept::Freed { process: known, totals, .. } if *known == process => Some(*totals),
        _ => None,
    })
}

fn shell(script: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]).stdin(Stdio::null());
    command
}

/// What the events tell of a process is what the kernel told its parent.
fn compare(what: &str, ended: &Ended, exit: &Totals, freed: &Totals) -> u64 {
    let Ended { pid, user_us, system_us, .. } = *ended;
    let micros = |time: CpuTime| (time.user_ns / 1000, time.system_ns / 1000);
    // What `wait4` told is what the kernel remembers to have told, to the microsecond.
    assert_eq!(micros(freed.told), (user_us, system_us), "{what} {pid}: {freed:?}");
    let (told, total) = ((user_us + system_us) * 1000, freed.cpu().user_ns + freed.cpu().system_ns);
    // `wait4` may find the child on its last way off the CPU.
    assert!(total + 2000 >= told && total <= told + 1_000_000, "{what} {pid}: {total} ns, wait4 {told} ns");
    let counts = |totals: &Totals| {
        [totals.minor_faults, totals.major_faults, totals.voluntary_switches, totals.involuntary_switches]
    };
    let [minor, major, voluntary, involuntary] = counts(freed);
    assert_eq!((minor, major), (ended.minor_faults, ended.major_faults), "{what} {pid}");
    // The last switch is that away from the dead.
    assert!(voluntary.abs_diff(ended.voluntary_switches) <= 1, "{what} {pid}: {freed:?} {ended:?}");
    assert!(involuntary.abs_diff(ended.involuntary_switches) <= 1, "{what} {pid}: {freed:?} {ended:?}");
    for (early, late) in counts(exit).into_iter().zip(counts(freed)) {
        assert!(early <= late, "{what} {pid}: {exit:?} {freed:?}");
    }
    assert!(exit.runtime_ns <= freed.runtime_ns, "{what} {pid}: {exit:?} {freed:?}");
    assert!(exit.read_bytes <= freed.read_bytes && exit.write_bytes <= freed.write_bytes);
    told
}

/// Runs a process, finds it in the events, and returns what `wait4` told and the two ends told of time.
fn check(watch: &Watch, what: &str, command: &mut Command, replaced: usize, name: &str) -> [u64; 3] {
    let ended = helper::run(command);
    assert_eq!(ended.status, 0, "{what}");
    // The kernel told of the end before it told the parent: a drain of now has it.
    let exits = exits(watch, ended.pid);
    let [(process, parent, exit, comm)] = &exits[..] else { panic!("{what}: {exits:?}") };
    assert_eq!((*parent, comm.as_str()), (std::process::id(), name), "{what}");
    let execs = execs(watch, ended.pid);
    assert_eq!(execs.len(), 1 + replaced, "{what}: {execs:?}");
    assert!(execs.iter().all(|(known, parent, _)| known == process && *parent == std::process::id()), "{what}");
    assert_eq!(execs.last().unwrap().2, name, "{what}");
    let freed = freed(watch, *process);
    let told = compare(what, &ended, exit, &freed);
    let time = exit.cpu();
    [told, time.user_ns + time.system_ns, freed.cpu().user_ns + freed.cpu().system_ns]
}

fn run_all(watch: &Watch, rounds: usize) {
    let exe = std::env::current_exe().unwrap();
    let name = exe.file_name().unwrap().to_string_lossy().chars().take(15).collect::<String>();
    let mut sums = std::collections::BTreeMap::<String, [u64; 3]>::new();
    for _ in 0..rounds {
        for (role, replaced, name) in [
            (Role::Nothing, 0, name.as_str()),
            (Role::Burn, 0, &name),
            (Role::Threads, 0, &name),
            (Role::Killed, 0, &name),
            (Role::LeaderFirst, 0, &name),
            (Role::ExecInThread, 1, "sh"),
        ] {
            let times = check(watch, &format!("{role:?}"), &mut helper::command(role), replaced, name);
            let sum = sums.entry(format!("{role:?}")).or_default();
            sum.iter_mut().zip(times).for_each(|(sum, time)| *sum += time);
        }
        for (script, replaced, name) in [("exit 0", 0, "sh"), ("exec sh -c 'exec true'", 2, "true")] {
            let times = check(watch, script, &mut shell(script), replaced, name);
            let sum = sums.entry(script.into()).or_default();
            sum.iter_mut().zip(times).for_each(|(sum, time)| *sum += time);
        }
    }
    for (what, [told, exit, freed]) in sums {
        println!(
            "{what}: of {told} ns told by wait4: exit {:.3}, freed {:.6}",
            exit as f64 / told as f64,
            freed as f64 / told as f64
        );
    }
    watch.assert_whole();
    watch.print_costs();
}

#[test]
fn every_process_is_told_once_with_the_sums_of_wait4() {
    let Some(watch) = Watch::start("every_process_is_told_once_with_the_sums_of_wait4", As::Now, RING) else { return };
    run_all(&watch, 38);
}

#[test]
fn every_process_is_told_once_by_a_kernel_that_does_not_tell_the_last_thread() {
    let name = "every_process_is_told_once_by_a_kernel_that_does_not_tell_the_last_thread";
    let Some(watch) = Watch::start(name, As::Before, RING) else { return };
    run_all(&watch, 10);
}

#[test]
fn many_at_once_are_all_told_by_the_thread() {
    let Some(watch) = Watch::start("many_at_once_are_all_told_by_the_thread", As::Now, RING) else { return };
    let thread = EventThread::start(watch.events.clone()).unwrap();
    let children: Vec<_> = (0..100).map(|_| helper::command(Role::Threads).spawn().unwrap().id()).collect();
    let ended: Vec<_> = children.into_iter().map(helper::wait).collect();
    // Its last look comes before it ends.
    thread.stop();
    for ended in ended {
        let told = watch.kept(|event| match event {
            Kept::Exit { process, totals, .. } if process.pid == ended.pid => Some(*totals),
            _ => None,
        });
        assert_eq!(told.len(), 1, "{ended:?}");
        assert!(told[0].runtime_ns <= (ended.user_us + ended.system_us + 1000) * 1000, "{ended:?} {told:?}");
    }
    watch.assert_whole();
}
