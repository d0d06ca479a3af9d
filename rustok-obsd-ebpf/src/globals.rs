//! Constants of this kernel and this configuration, set by the daemon before loading.
//!
//! Rust has no CO-RE relocations: the daemon takes the offsets from `/sys/kernel/btf/vmlinux`. They lie in `.rodata`,
//! which is frozen before the verifier runs, so that it sees them as known values and drops dead branches.

rustok_obsd_ebpf::globals! {
    /// Offset of `sock.sk_protocol`.
    SK_PROTOCOL: u32 = 0, sk_protocol;
    /// Size of `sock.sk_protocol` in bits: 8 before Linux 5.6, 16 since.
    SK_PROTOCOL_BITS: u32 = 16, sk_protocol_bits;
    /// Offset of `sock.sk_err`.
    SK_ERR: u32 = 0, sk_err;
    /// Offset of `sock_common.skc_state`.
    SKC_STATE: u32 = 0, skc_state;
    /// Offset of `sock_common.skc_daddr`.
    SKC_DADDR: u32 = 0, skc_daddr;
    /// Offset of `sock_common.skc_rcv_saddr`.
    SKC_RCV_SADDR: u32 = 0, skc_rcv_saddr;
    /// Offset of `sock_common.skc_v6_daddr`, 0 in a kernel without IPv6.
    SKC_V6_DADDR: u32 = 0, skc_v6_daddr;
    /// Offset of `sock_common.skc_v6_rcv_saddr`.
    SKC_V6_RCV_SADDR: u32 = 0, skc_v6_rcv_saddr;
    /// Offset of `sock_common.skc_dport`.
    SKC_DPORT: u32 = 0, skc_dport;
    /// Offset of `sock_common.skc_num`.
    SKC_NUM: u32 = 0, skc_num;
    /// Offset of `sock_common.skc_family`.
    SKC_FAMILY: u32 = 0, skc_family;
    /// Offset of `sock_common.skc_net`, 0 where namespaces are not built in.
    SKC_NET: u32 = 0, skc_net;
    /// Offset of `net.ns.inum`.
    NET_INUM: u32 = 0, net_inum;
    /// Offset of `task_struct.tgid`.
    TASK_TGID: u32 = 0, task_tgid;
    /// Offset of the thread pointer in `task_struct`: `thread.fsbase` on x86-64, `thread.uw.tp_value` on aarch64.
    TASK_THREAD_POINTER: u32 = 0, task_thread_pointer;
    /// Most payload bytes of one receive.
    RECEIVE_LIMIT: u32 = 8191, receive_limit;
    /// Most payload bytes of one send.
    SEND_LIMIT: u32 = 2048, send_limit;
    /// Most payload bytes of consecutive receives, until a send.
    RECEIVE_BURST: u32 = 32768, receive_burst;
    /// Most payload bytes of consecutive sends, until a receive.
    SEND_BURST: u32 = 8192, send_burst;
    /// Most payload bytes of one send of a client: its requests are what matters of it.
    CLIENT_SEND_LIMIT: u32 = 16383, client_send_limit;
    /// Most bytes of a statement's text.
    STATEMENT_LIMIT: u32 = 16383, statement_limit;
    /// Bytes that wait in the ring before the daemon is woken; less waits for its next look.
    WAKEUP_BYTES: u64 = 65536, wakeup_bytes;
}

/// The daemon overrides this symbol and so refuses an object of another layout. Its name carries
/// [`rustok_obsd_ebpf::ABI`].
#[unsafe(no_mangle)]
static ABI_4: u32 = rustok_obsd_ebpf::ABI;
