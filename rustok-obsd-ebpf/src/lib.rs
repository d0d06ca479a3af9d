//! The records that the kernel programs write and the daemon reads.
//!
//! Reads: nothing. Yields: plain `repr(C)` structs without padding, so that both sides agree to the byte and no
//! uninitialised kernel memory can leave. Costs: nothing at run time.
//!
//! A record in the ring buffer starts with its `kind` (one byte, see [`Kind`]). Times are `bpf_ktime_get_ns`, that is
//! `CLOCK_MONOTONIC` in nanoseconds.
#![no_std]

/// Counts layout changes; the daemon refuses an object that was built with another one.
pub const ABI: u32 = 4;

/// Bytes of payload that one record can carry. A power of two: the verifier follows the mask.
pub const MAX_PAYLOAD: usize = 16_384;

/// Bytes of a statement's text that one record can carry; the last one is never used (see [`MAX_PAYLOAD`]).
pub const MAX_STATEMENT: usize = 16_384;

/// Words of a call's arguments that come along.
pub const CALL_WORDS: usize = 12;

/// Words behind an argument that come along while a layout is sought; a prepared query of sqlx keeps its text in the
/// fourteenth.
pub const SOUGHT_WORDS: usize = 24;

/// Bytes at each of those words that come along.
pub const PREFIX: usize = 16;

/// Bytes of the end of a send or receive that come along when the payload was cut.
pub const TAIL: usize = 8;

/// What a record is; its first byte.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// [`SocketOpen`].
    Open = 1,
    /// [`SocketIo`], a send that returned.
    Send = 2,
    /// [`SocketIo`], a receive that returned.
    Receive = 3,
    /// [`SocketClose`].
    Close = 4,
    /// [`RouteHit`].
    Route = 5,
    /// [`ProcessEvent`], the process replaced its program.
    Exec = 6,
    /// [`ProcessEvent`], the process ended.
    Exit = 7,
    /// [`TaskProbe`].
    TaskEnter = 8,
    /// [`ProcessEvent`], a target forked (`pid` is the child).
    Fork = 9,
    /// [`CallHit`], a database library was called.
    Call = 10,
    /// [`SpawnHit`], a task was spawned.
    Spawn = 11,
}

/// Which function was called.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Point {
    /// The driver takes a statement: its text follows.
    Query = 1,
    /// The driver is done with a statement, read whole or dropped: `words` is its account (sqlx' `QueryLogger`).
    QueryEnd = 2,
    /// The driver read an ErrorResponse or a NoticeResponse: the beginning of its fields follows.
    Notice = 3,
    /// The driver begins a transaction. The first of `words` is 0, or one more than the number of transactions around it.
    Begin = 4,
    /// A transaction is dropped: its ROLLBACK goes out with the next bytes of the connection.
    Rollback = 5,
    /// The object-relational mapper was called with a statement: `words` are the two arguments and what the first
    /// points at. Its text follows where the mapper has it copied on the way to the driver.
    Orm = 6,
    /// The object-relational mapper was asked for a transaction.
    OrmBegin = 7,
    /// A function that takes a statement whose place in the arguments is known: its text follows.
    Statement = 8,
    /// The same, not known yet: [`SOUGHT_WORDS`] words that the argument points at follow, then [`PREFIX`] bytes at each
    /// of them. `text` and `text_len` are the argument itself and the next one.
    Sought = 9,
    /// A function that the configuration names commits a transaction.
    Commit = 10,
}

/// Who opened the connection, as far as the kernel saw it.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The socket is older than the daemon.
    Unknown = 0,
    /// Accepted by the target.
    Server = 1,
    /// Connected by the target.
    Client = 2,
}

/// [`SocketOpen`]: the connection was established before the daemon saw it.
pub const OPEN_MID_STREAM: u8 = 1;
/// [`SocketIo`]: the payload could not be read (a fault, or a system call without a user buffer).
pub const IO_UNREADABLE: u8 = 1;
/// [`SocketIo`]: fewer bytes were captured than were transferred.
pub const IO_TRUNCATED: u8 = 2;

/// A socket of a target, announced once, before its first other record.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketOpen {
    /// [`Kind::Open`].
    pub kind: u8,
    /// [`Role`].
    pub role: u8,
    /// `AF_INET` (2) or `AF_INET6` (10).
    pub family: u8,
    /// [`OPEN_MID_STREAM`].
    pub flags: u8,
    /// Process (thread group), in the daemon's pid namespace's root numbering.
    pub tgid: u32,
    /// Connection: unique for the life of the programs, never 0.
    pub conn: u64,
    /// When the connection was established or first seen.
    pub time_ns: u64,
    /// Kernel address of the `struct sock`: the key of the socket map.
    pub sock: u64,
    /// Local address; IPv4 in the first four bytes.
    pub local_addr: [u8; 16],
    /// Remote address; IPv4 in the first four bytes.
    pub remote_addr: [u8; 16],
    /// Local port, host byte order.
    pub local_port: u16,
    /// Remote port, host byte order.
    pub remote_port: u16,
    /// Network namespace (`ns.inum`), 0 where unknown.
    pub netns: u32,
}

/// One send or receive that moved bytes, ended the stream (receive, 0 bytes) or failed (not by EAGAIN).
/// `captured` bytes of payload follow the struct.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketIo {
    /// [`Kind::Send`] or [`Kind::Receive`].
    pub kind: u8,
    /// [`IO_UNREADABLE`], [`IO_TRUNCATED`].
    pub flags: u8,
    /// Bytes of payload that follow.
    pub captured: u16,
    /// Bytes transferred; 0 is the peer's end of stream, negative an errno.
    pub result: i32,
    /// Process (thread group).
    pub tgid: u32,
    /// Thread.
    pub tid: u32,
    /// Connection, as announced.
    pub conn: u64,
    /// When the system call returned.
    pub time_ns: u64,
    /// Receive: when the data arrived at the socket; 0 where unknown.
    pub ready_ns: u64,
    /// Bytes that went this way on the connection before this record; a jump is a lost record.
    pub offset: u64,
    /// Tokio task, 0 where unknown.
    pub task: u64,
    /// The last bytes transferred, right-aligned, where `IO_TRUNCATED` is set and they could be read, else zero.
    pub tail: [u8; TAIL],
}

/// A socket of a target was closed.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketClose {
    /// [`Kind::Close`].
    pub kind: u8,
    /// Zero.
    pub pad: [u8; 3],
    /// Errno if the connection broke (reset, timed out) rather than being closed, else 0.
    pub error: u32,
    /// Connection.
    pub conn: u64,
    /// When.
    pub time_ns: u64,
    /// Bytes received in total, while the daemon watched.
    pub received: u64,
    /// Bytes sent in total, while the daemon watched.
    pub sent: u64,
}

/// axum matched a route.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteHit {
    /// [`Kind::Route`].
    pub kind: u8,
    /// Zero.
    pub pad: [u8; 3],
    /// axum's `RouteId`.
    pub route: u32,
    /// Process (thread group).
    pub tgid: u32,
    /// Thread.
    pub tid: u32,
    /// When.
    pub time_ns: u64,
    /// Tokio task, 0 where unknown.
    pub task: u64,
    /// Address of the router's `HashMap<RouteId, Arc<str>>` in the process.
    pub map: u64,
}

/// A database library was called. `captured` bytes of text follow the struct.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallHit {
    /// [`Kind::Call`].
    pub kind: u8,
    /// [`Point`].
    pub point: u8,
    /// [`IO_UNREADABLE`], [`IO_TRUNCATED`].
    pub flags: u8,
    /// Zero.
    pub pad: u8,
    /// Bytes of text that follow.
    pub captured: u32,
    /// Process (thread group).
    pub tgid: u32,
    /// Thread.
    pub tid: u32,
    /// When.
    pub time_ns: u64,
    /// Tokio task, 0 where unknown.
    pub task: u64,
    /// Address of the function's first instruction in the process.
    pub place: u64,
    /// Address of the text, 0 where there is none.
    pub text: u64,
    /// Length of the text as the target told it.
    pub text_len: u64,
    /// See [`Point`].
    pub words: [u64; CALL_WORDS],
}

/// A task was spawned.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpawnHit {
    /// [`Kind::Spawn`].
    pub kind: u8,
    /// Zero.
    pub pad: [u8; 3],
    /// Process (thread group).
    pub tgid: u32,
    /// Thread.
    pub tid: u32,
    /// Zero.
    pub pad2: u32,
    /// When.
    pub time_ns: u64,
    /// The task that spawned it, 0 where there is none or it is unknown.
    pub parent: u64,
    /// The new task.
    pub child: u64,
}

/// Where a function's arguments hold a statement's text: key of the map of layouts.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PlaceKey {
    /// Address of the function's first instruction in the process.
    pub place: u64,
    /// Process (thread group).
    pub tgid: u32,
    /// Zero.
    pub pad: u32,
}

/// Where a function's arguments hold a statement's text.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Layout {
    /// Which argument: 0 to 5.
    pub argument: u8,
    /// 1: the argument is the text's address, and the next argument its length. 0: it points at a struct.
    pub direct: u8,
    /// Word of the struct that holds the text's address.
    pub pointer: u8,
    /// Word of the struct that holds its length.
    pub length: u8,
    /// 1 where the place is known; 0 while it is sought.
    pub known: u32,
}

/// A process event.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessEvent {
    /// [`Kind::Exec`], [`Kind::Exit`] or [`Kind::Fork`].
    pub kind: u8,
    /// Zero.
    pub pad: [u8; 3],
    /// Process (thread group).
    pub pid: u32,
    /// Parent process, for [`Kind::Fork`]; else 0.
    pub parent: u32,
    /// Zero.
    pub pad2: u32,
    /// When.
    pub time_ns: u64,
}

/// Calibration of Tokio's slot: `TaskIdGuard::enter(id)` was called.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskProbe {
    /// [`Kind::TaskEnter`].
    pub kind: u8,
    /// Zero.
    pub pad: [u8; 3],
    /// Process (thread group).
    pub tgid: u32,
    /// Thread.
    pub tid: u32,
    /// Zero.
    pub pad2: u32,
    /// The id passed.
    pub task: u64,
    /// The thread's TLS base (`fsbase`, `tpidr_el0`).
    pub thread_pointer: u64,
}

/// Per process: what the programs do for it. Key: tgid.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// Offset of Tokio's task id from the thread pointer; 0 means unknown, no reading.
    pub task_slot: i64,
    /// Low 16 bits: where a task's vtable holds the offset of its id from its header
    /// (`tokio::runtime::task::raw::Vtable::id_offset`); 0 means unknown, no reading. Next 16 bits: the [`Tag`] of the
    /// uprobes that count for it. High 32 bits: tgid of the target that the process is, or descends from.
    pub flags: u64,
}

/// For whom a uprobe is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// One process.
    Process,
    /// Every process that runs the file.
    File,
}

/// The cookie of a uprobe, and of the processes for which it counts. Several may be on one instruction: while a target goes
/// from probes of its own to those of its file, and where files of several containers are one inode below. The one whose
/// cookie is the process's own counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tag(pub u16);

impl Tag {
    /// Nothing counts.
    pub const NONE: Self = Self(0);

    /// The tag of the file with this number, 1 to 32 767.
    #[must_use]
    pub const fn new(file: u16, scope: Scope) -> Self {
        Self(file << 1 | matches!(scope, Scope::File) as u16)
    }
}

impl Target {
    /// In [`Self::flags`]: the bit of the tag that says that uprobes of the whole file count ([`Scope::File`]).
    pub const WHOLE_FILE: u64 = 1 << 16;

    /// What the programs do for a target itself; `place` as in [`Self::flags`].
    #[must_use]
    pub const fn new(tgid: u32, task_slot: i64, place: u16, tag: Tag) -> Self {
        Self { task_slot, flags: place as u64 | (tag.0 as u64) << 16 | (tgid as u64) << 32 }
    }

    /// The tag of the uprobes that count.
    #[must_use]
    #[inline(always)]
    pub const fn tag(&self) -> u64 {
        self.flags >> 16 & 0xffff
    }

    /// The target that the process is, or descends from.
    #[must_use]
    #[inline(always)]
    pub const fn family(&self) -> u32 {
        (self.flags >> 32) as u32
    }

    /// Where a task's vtable holds the offset of its id; 0 means unknown.
    #[must_use]
    #[inline(always)]
    pub const fn place(&self) -> u64 {
        self.flags & 0xffff
    }

    /// The map value as plain words.
    #[must_use]
    pub const fn words(self) -> [u64; 2] {
        [self.task_slot.cast_unsigned(), self.flags]
    }
}

/// What to copy of a connection's bytes; set by the daemon once it knows the protocol.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capture {
    /// Payload up to the bounds.
    Payload = 0,
    /// Records without payload.
    Counts = 1,
    /// No records; bytes are counted and told at close.
    Off = 2,
}

/// Per-CPU counters of the programs, by index.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// Records lost because the ring was full.
    RingFull = 0,
    /// Receives and sends dropped because they returned EAGAIN.
    WouldBlock = 1,
    /// Sockets that could not be tracked because the map was full or racing.
    SocketMapFull = 2,
    /// Payloads that could not be read.
    Unreadable = 3,
    /// Task ids that could not be read although the slot is known.
    TaskUnreadable = 4,
    /// Sends and receives of targets on sockets of another kind (UDP, Unix), not followed.
    OtherSocket = 5,
    /// Records written to the ring: what was written and what was lost is all there was.
    Submitted = 6,
    /// Spawned tasks whose id could not be read.
    SpawnUnreadable = 7,
    /// Of those that the full ring refused: receives that began with an HTTP/1 request line. So many requests have no
    /// details, and the total stays exact.
    RequestRefused = 8,
    /// Children of targets that are not followed: the target has [`MAX_CHILDREN`] of them already, or the map is full.
    ChildRefused = 9,
}

/// Number of [`Counter`]s.
pub const COUNTERS: u32 = 10;

/// Processes followed at a time, targets and their children together.
pub const MAX_FOLLOWED: u32 = 16_384;

/// Targets at a time.
pub const MAX_TARGETS: u32 = 1024;

/// Forked children followed for one target at a time: a target that forks without end leaves room for others.
pub const MAX_CHILDREN: u32 = 64;

/// Whether received bytes begin with the line of an HTTP/1 request, by the first four of them (RFC 9110 and RFC 5789).
#[inline(always)]
#[must_use]
pub const fn begins_request(start: [u8; 4]) -> bool {
    matches!(&start, b"GET " | b"HEAD" | b"POST" | b"PUT " | b"DELE" | b"CONN" | b"OPTI" | b"TRAC" | b"PATC")
}

macro_rules! impl_record {
    ($($name:ident: $size:literal),* $(,)?) => {$(
        const _: () = assert!(size_of::<$name>() == $size, "the record has padding or changed its size");
        impl $name {
            /// Reads the record from the start of `bytes`, `None` where they are too few.
            #[must_use]
            pub fn read(bytes: &[u8]) -> Option<(Self, &[u8])> {
                let (head, rest) = bytes.split_at_checked(size_of::<Self>())?;
                // SAFETY: the struct is plain integers and arrays of them, valid for any bytes, and `head` has its size.
                Some((unsafe { head.as_ptr().cast::<Self>().read_unaligned() }, rest))
            }

            /// The record's bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8] {
                // SAFETY: the struct has no padding (asserted above), so that each of its bytes is initialised.
                unsafe { core::slice::from_raw_parts(core::ptr::from_ref(self).cast(), size_of::<Self>()) }
            }
        }
    )*};
}

/// Declares constants of one object that the daemon sets before it loads it: a static in `.rodata` under a symbol, and the
/// function that reads it.
#[macro_export]
macro_rules! globals {
    ($($(#[$doc:meta])* $name:ident: $ty:ty = $value:expr, $get:ident;)*) => {$(
        #[unsafe(no_mangle)]
        static $name: $ty = $value;

        $(#[$doc])*
        #[inline(always)]
        pub fn $get() -> $ty {
            // SAFETY: a static is always readable. Volatile, since the daemon replaces the value after compilation.
            unsafe { core::ptr::read_volatile(&raw const $name) }
        }
    )*};
}

pub mod host_event;

impl_record! {
    SocketOpen: 72,
    SocketIo: 64,
    SocketClose: 40,
    RouteHit: 40,
    ProcessEvent: 24,
    TaskProbe: 32,
    CallHit: 152,
    SpawnHit: 40,
    PlaceKey: 16,
    Layout: 8,
    Target: 16,
}
