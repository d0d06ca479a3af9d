//! Processes: each told once, with the sums that `wait4` tells.

use std::process::{Command, Stdio};

use rustok_obsd::events::{CpuTime, EventThread, ProcessId, Totals};

use crate::{
    helper::{self, Ended, Role},
    watch::{As, Kept, Watch},
};

const RING: u32 = 1 << 20;

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

fn freed(watch: &Watch, process: ProcessId) -> Option<Totals> {
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

/// Times of one kind of process, added up.
#[derive(Default)]
struct Sum {
    /// Processes whose final sums were told.
    freed: u64,
    /// What `wait4` told of these, ns.
    told: u64,
    /// What their ends told.
    at_exit: u64,
    /// What their final sums told.
    at_last: u64,
}

/// Runs a process and finds it in the events.
fn check(watch: &Watch, what: &str, command: &mut Command, replaced: usize, name: &str, sum: &mut Sum) {
    let ended = helper::run(command);
    assert_eq!(ended.status, 0, "{what}");
    // The kernel told of the end before it told the parent: a drain of now has it.
    let exits = exits(watch, ended.pid);
    let [(process, parent, exit, comm)] = &exits[..] else { panic!("{what}: {exits:?}") };
    assert_eq!((*parent, comm.as_str()), (std::process::id(), name), "{what}");
    let execs = execs(watch, ended.pid);
    assert_eq!(execs.len(), 1 + replaced, "{what}: {execs:?}");
    assert!(execs.iter().all(|(known, parent, _)| known == process && *parent == std::process::id()), "{what}");
    assert_eq!(execs[replaced].2, name, "{what}");
    let Some(freed) = freed(watch, *process) else {
        // Then the end alone has to do: it never tells more than there was.
        let told = (ended.user_us + ended.system_us + 1) * 1000;
        assert!(exit.runtime_ns <= told && exit.minor_faults <= ended.minor_faults, "{what}: {exit:?} {ended:?}");
        println!("{what} {process:?} was not told as freed");
        return;
    };
    sum.freed += 1;
    sum.told += compare(what, &ended, exit, &freed);
    sum.at_exit += exit.cpu().user_ns + exit.cpu().system_ns;
    sum.at_last += freed.cpu().user_ns + freed.cpu().system_ns;
}

fn run_all(watch: &Watch, rounds: u64) {
    let exe = std::env::current_exe().expect("a path");
    let own: String = exe.file_name().expect("a name").to_string_lossy().chars().take(15).collect();
    let roles = [Role::Nothing, Role::Burn, Role::Threads, Role::Killed, Role::LeaderFirst, Role::ExecInThread];
    let scripts = [("exit 0", 0, "sh"), ("exec sh -c 'exec true'", 2, "true")];
    let mut sums: [Sum; 8] = Default::default();
    for _ in 0..rounds {
        let (of_roles, of_scripts) = sums.split_at_mut(roles.len());
        for (role, sum) in roles.into_iter().zip(of_roles) {
            let (replaced, name) = if role == Role::ExecInThread { (1, "sh") } else { (0, own.as_str()) };
            check(watch, &format!("{role:?}"), &mut helper::command(role), replaced, name, sum);
        }
        for ((script, replaced, name), sum) in scripts.into_iter().zip(of_scripts) {
            check(watch, script, &mut shell(script), replaced, name, sum);
        }
    }
    let names = roles.map(|role| format!("{role:?}")).into_iter().chain(scripts.map(|(script, ..)| script.into()));
    for (name, sum) in names.zip(&sums) {
        let part = |time: u64| time as f64 / sum.told as f64;
        println!(
            "{name}: {} ms told by wait4; when they ended {:.3} of it, when they were freed {:.4}",
            sum.told / 1_000_000,
            part(sum.at_exit),
            part(sum.at_last)
        );
        assert!((0.999..1.05).contains(&part(sum.at_last)), "{name}");
    }
    // A process that was busy has most of its time in the first record already.
    assert!(sums[1].at_exit as f64 > 0.9 * sums[1].told as f64);
    let (freed, all) = (sums.iter().map(|sum| sum.freed).sum::<u64>(), 8 * rounds);
    assert!(freed * 20 >= all * 19, "{freed} of {all} were told as freed");
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
    run_all(&watch, 8);
}

#[test]
fn a_process_has_the_start_and_the_end_that_proc_tells() {
    let test = "a_process_has_the_start_and_the_end_that_proc_tells";
    let Some(watch) = Watch::start(test, As::Now, RING) else { return };
    // SAFETY: no memory is passed.
    let ticks = u64::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) }).unwrap();
    for _ in 0..20 {
        let pid = helper::command(Role::Burn).spawn().unwrap().id();
        let ended = helper::wait_and_leave(pid);
        // A zombie is in /proc still, and its end in the events already.
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        assert_eq!(fields[0], "Z", "{stat}");
        let number = |field: usize| fields[field - 3].parse::<u64>().unwrap();
        let exits = exits(&watch, pid);
        let [(process, parent, exit, _)] = &exits[..] else { panic!("{exits:?}") };
        assert_eq!((process.start_ticks(ticks), u64::from(*parent)), (number(22), number(4)), "{stat}");
        let told = (number(14) + number(15) + 2) * 1_000_000_000 / ticks;
        assert!(exit.runtime_ns <= told && exit.minor_faults <= number(10), "{stat} {exit:?}");
        assert_eq!(ended, pid);
        helper::wait(pid);
    }
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
