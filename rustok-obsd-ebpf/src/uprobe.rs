//! Functions of the target itself.

use aya_ebpf::{helpers::bpf_ktime_get_ns, programs::ProbeContext};
use rustok_obsd_ebpf::{Kind, RouteHit, TaskProbe};

use crate::{
    maps,
    task::{Current, thread_pointer},
};

/// axum matched a route.
#[inline(always)]
pub fn on_matched_path(ctx: &ProbeContext, route: Option<u32>, map: Option<u64>) {
    let (Some(route), Some(map)) = (route, map) else { return };
    let Some(current) = Current::at(ctx) else { return };
    let hit = RouteHit {
        kind: Kind::Route as u8,
        pad: [0; 3],
        route,
        tgid: current.tgid,
        tid: current.tid,
        // SAFETY: a helper without arguments.
        time_ns: unsafe { bpf_ktime_get_ns() },
        task: current.task(),
        map,
    };
    maps::submit(hit.as_bytes());
}

/// Tokio begins to poll a task.
#[inline(always)]
pub fn on_task_enter(ctx: &ProbeContext, task: Option<u64>) {
    let Some(task) = task else { return };
    let Some(current) = Current::at(ctx) else { return };
    let Some(thread_pointer) = thread_pointer() else { return };
    let probe = TaskProbe {
        kind: Kind::TaskEnter as u8,
        pad: [0; 3],
        tgid: current.tgid,
        tid: current.tid,
        pad2: 0,
        task,
        thread_pointer,
    };
    maps::submit_now(probe.as_bytes());
}
