//! Kernel programs of rustok-obsd.
//!
//! Reads: what the kernel's tracepoints and the target's uprobes hand over. Yields: the records of the library half, in
//! one ring buffer. Costs: a process that is not a target costs one map look-up; a followed send or receive about
//! 300 ns (`cargo xtask bench` measures it). Nothing is ever written to the observed process.
//!
//! Each entry is thin: it takes the hook's arguments and calls the shared body, so that another kind of hook can do the
//! same thing.
#![no_std]
#![no_main]
#![allow(missing_docs, reason = "the program macros emit entry points without the docs above them")]
#![allow(
    clippy::collapsible_match,
    clippy::implicit_saturating_sub,
    clippy::needless_borrows_for_generic_args,
    clippy::needless_pass_by_value,
    reason = "entry points get their context by value; a key or value by value is one more copy on a stack of 512 bytes; \
              branches stay as the verifier has accepted them"
)]

mod call;
mod globals;
mod maps;
mod payload;
mod process;
mod socket;
mod spawn;
mod sql_str;
mod task;
mod transfer;
mod uprobe;

use aya_ebpf::{
    macros::{raw_tracepoint, uprobe as uprobe_program},
    programs::{ProbeContext, RawTracePointContext},
};
use rustok_obsd_ebpf::Point;

/// `sock_send_length(struct sock *sk, int ret, int flags)`, include/trace/events/sock.h, Linux 6.3.
#[raw_tracepoint(tracepoint = "sock_send_length")]
pub fn sock_send_length(ctx: RawTracePointContext) -> i32 {
    transfer::on_transfer::<false>(ctx.arg(0), ctx.arg(1), ctx.arg(2));
    0
}

/// `sock_recv_length(struct sock *sk, int ret, int flags)`, include/trace/events/sock.h, Linux 6.3.
#[raw_tracepoint(tracepoint = "sock_recv_length")]
pub fn sock_recv_length(ctx: RawTracePointContext) -> i32 {
    transfer::on_transfer::<true>(ctx.arg(0), ctx.arg(1), ctx.arg(2));
    0
}

/// `sk_data_ready(const struct sock *sk)`, include/trace/events/sock.h, Linux 6.3.
#[raw_tracepoint(tracepoint = "sk_data_ready")]
pub fn sk_data_ready(ctx: RawTracePointContext) -> i32 {
    socket::on_data_ready(ctx.arg(0));
    0
}

/// `inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)`, Linux 4.16.
#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
pub fn inet_sock_set_state(ctx: RawTracePointContext) -> i32 {
    socket::on_state(ctx.arg(0), ctx.arg(1), ctx.arg(2));
    0
}

/// `tcp_destroy_sock(struct sock *sk)`, Linux 4.16.
#[raw_tracepoint(tracepoint = "tcp_destroy_sock")]
pub fn tcp_destroy_sock(ctx: RawTracePointContext) -> i32 {
    socket::on_destroy(ctx.arg(0));
    0
}

/// `sched_process_exec(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)`.
#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn sched_process_exec(_ctx: RawTracePointContext) -> i32 {
    process::on_exec();
    0
}

/// `sched_process_exit(struct task_struct *p, …)`.
#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn sched_process_exit(_ctx: RawTracePointContext) -> i32 {
    process::on_exit();
    0
}

/// `sched_process_fork(struct task_struct *parent, struct task_struct *child)`.
#[raw_tracepoint(tracepoint = "sched_process_fork")]
pub fn sched_process_fork(ctx: RawTracePointContext) -> i32 {
    process::on_fork(ctx.arg(1));
    0
}

/// `axum::extract::matched_path::set_matched_path_for_request(RouteId, &HashMap<RouteId, Arc<str>>, &mut Extensions)`.
#[uprobe_program]
pub fn axum_matched_path(ctx: ProbeContext) -> u32 {
    uprobe::on_matched_path(&ctx, ctx.arg::<u32>(0), ctx.arg::<u64>(1));
    0
}

/// `tokio::runtime::task::core::TaskIdGuard::enter(Id)`: attached for a moment to calibrate, then taken away.
#[uprobe_program]
pub fn tokio_task_enter(ctx: ProbeContext) -> u32 {
    uprobe::on_task_enter(&ctx, ctx.arg::<u64>(0));
    0
}

/// `sqlx_core::logger::QueryLogger::new(&str, LogSettings)`, from sqlx 0.9 on `new(SqlStr, LogSettings)`: once for each
/// statement, when the driver takes it.
#[uprobe_program]
pub fn sqlx_query(ctx: ProbeContext) -> u32 {
    sql_str::on_query(&ctx, ctx.arg::<u64>(1), ctx.arg::<u64>(2));
    0
}

/// `sqlx_core::transaction::begin_ansi_transaction_sql(depth: usize)`: once for each transaction without options.
#[uprobe_program]
pub fn sqlx_begin_sql(ctx: ProbeContext) -> u32 {
    call::on_begin(&ctx, ctx.arg::<u64>(1));
    0
}

/// `sqlx_core::logger::QueryLogger::finish(&self)`: once for each statement, when it is read whole or dropped.
#[uprobe_program]
pub fn sqlx_query_end(ctx: ProbeContext) -> u32 {
    call::on_struct(Point::QueryEnd, &ctx, ctx.arg::<u64>(0));
    0
}

/// `<sqlx_postgres::message::response::Notice as BackendMessage>::decode_body(Bytes)`.
#[uprobe_program]
pub fn sqlx_notice(ctx: ProbeContext) -> u32 {
    call::on_notice(&ctx, ctx.arg::<u64>(1));
    0
}

/// `<sqlx_postgres::transaction::PgTransactionManager as TransactionManager>::begin`.
#[uprobe_program]
pub fn sqlx_begin(ctx: ProbeContext) -> u32 {
    call::on_call(Point::Begin, &ctx);
    0
}

/// `<sqlx_postgres::transaction::PgTransactionManager as TransactionManager>::start_rollback`.
#[uprobe_program]
pub fn sqlx_rollback(ctx: ProbeContext) -> u32 {
    call::on_call(Point::Rollback, &ctx);
    0
}

/// A function that the configuration names, which commits a transaction.
#[uprobe_program]
pub fn commit(ctx: ProbeContext) -> u32 {
    call::on_call(Point::Commit, &ctx);
    0
}

/// `<sea_orm::DatabaseConnection as ConnectionTrait>::{execute, query_one, query_all, execute_unprepared}` and the like:
/// the wait for a pooled connection begins.
#[uprobe_program]
pub fn sea_orm_call(ctx: ProbeContext) -> u32 {
    call::on_orm(&ctx, ctx.arg::<u64>(1), ctx.arg::<u64>(2));
    0
}

/// `<sea_orm::DatabaseConnection as ConnectionTrait>::{execute_raw, query_one_raw, query_all_raw}(&self, Statement)` and
/// `StreamTrait::stream_raw`, sea-orm 2: the wait for a pooled connection begins.
#[uprobe_program]
pub fn sea_orm_raw(ctx: ProbeContext) -> u32 {
    call::on_orm_text(&ctx, ctx.arg::<u64>(1));
    0
}

/// `<sea_orm::DatabaseConnection as TransactionTrait>::begin`.
#[uprobe_program]
pub fn sea_orm_begin(ctx: ProbeContext) -> u32 {
    call::on_call(Point::OrmBegin, &ctx);
    0
}

/// A function that takes a statement somewhere in an argument.
#[uprobe_program]
pub fn statement(ctx: ProbeContext) -> u32 {
    call::on_statement(&ctx);
    0
}

/// `tokio::runtime::task::list::OwnedTasks<S>::bind_inner(&self, Task<S>, Notified<S>)` and
/// `tokio::runtime::blocking::pool::Spawner::spawn_task(&self, Task, &Handle)`: a task was made.
#[uprobe_program]
pub fn tokio_spawn(ctx: ProbeContext) -> u32 {
    spawn::on_spawn(&ctx, ctx.arg::<u64>(1));
    0
}

/// The helpers `bpf_task_pt_regs`, `bpf_probe_read_*` and `bpf_get_current_task_btf` are for GPL-compatible programs.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
pub static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Makes the verifier reject a program in which a panic can be reached.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
