//! Each system call that moves bytes over a socket: what was captured is what was moved.

use std::{
    fs::File,
    io::{IoSlice, IoSliceMut, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::fd::AsRawFd as _,
    process,
};

use rustok_obsd::{
    capture::{pipeline, record},
    probe::{Kernel, Loaded, ProbeBoard, Programs, Settings, State, loader},
};
use rustok_obsd_ebpf::{IO_TRUNCATED, IO_UNREADABLE, SocketIo};
use test_support::{Skip, skip};

/// What the kernel told of one transfer.
struct Transfer {
    received: bool,
    io: SocketIo,
    data: Vec<u8>,
}

struct Own {
    programs: Programs,
    ring: rustok_obsd::capture::ring::Ring,
    client: TcpStream,
    server: TcpStream,
}

impl Own {
    /// Follows this very process, on a connection with itself.
    fn follow() -> Result<Self, Skip> {
        let kernel = Kernel::inspect();
        let board = ProbeBoard::default();
        let loaded = Programs::load(loader::OBJECT, &kernel, Settings::default(), &board);
        let Loaded { programs, capture, mut targets, .. } = loaded.map_err(|error| Skip::new(error.to_string()))?;
        if let Some(failed) = board.all().into_iter().find(|probe| probe.state != State::Attached) {
            return Err(Skip::new(format!("{}: {}", failed.probe, failed.reason)));
        }
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let client = TcpStream::connect(listener.local_addr().expect("its address")).expect("a connection");
        let (server, _) = listener.accept().expect("the other end");
        targets.targets.insert(process::id(), [0, 0], 0).expect("follow ourselves");
        let (ring, _) = pipeline::split(capture);
        Ok(Self { programs, ring, client, server })
    }

    /// The transfers since the last time.
    fn take(&mut self) -> Vec<Transfer> {
        let mut transfers = Vec::new();
        let mut take = |entry: &[u8]| match record::Record::parse(entry).expect("a record") {
            record::Record::Send(io, data) => transfers.push(Transfer { received: false, io, data: data.to_vec() }),
            record::Record::Receive(io, data) => transfers.push(Transfer { received: true, io, data: data.to_vec() }),
            _ => {}
        };
        while self.ring.drain(64, &mut take) > 0 {}
        transfers.retain(|transfer| transfer.io.tgid == process::id());
        transfers
    }

    /// One transfer of each direction, whose bytes are these.
    fn assert_moved(&mut self, call: &str, bytes: &[u8]) {
        let transfers = self.take();
        let told: Vec<_> =
            transfers.iter().map(|transfer| (transfer.received, transfer.io.result, transfer.io.flags)).collect();
        let len = i32::try_from(bytes.len()).expect("short");
        assert_eq!(told, [(false, len, 0), (true, len, 0)], "{call}");
        for transfer in transfers {
            assert_eq!(transfer.data, bytes, "{call}, received: {}", transfer.received);
        }
    }
}

/// The parts of a head and a body, as hyper sends them.
const PARTS: [&[u8]; 4] = [b"HTTP/1.1 200 OK\r\n", b"", b"content-length: 5\r\n\r\n", b"hello"];

fn whole() -> Vec<u8> {
    PARTS.concat()
}

fn message(vectors: &mut [libc::iovec]) -> libc::msghdr {
    // SAFETY: plain integers and pointers, for which zero is a value.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = vectors.as_mut_ptr();
    message.msg_iovlen = vectors.len();
    message
}

#[test]
fn every_call_that_moves_bytes_is_captured_with_its_bytes() {
    let _alone = super::serial();
    let mut own = match Own::follow() {
        Ok(own) => own,
        Err(reason) => return skip("every_call_that_moves_bytes_is_captured_with_its_bytes", reason),
    };
    let mut buffer = [0; 100];
    let (client, server) = (own.client.as_raw_fd(), own.server.as_raw_fd());

    // sendto, recvfrom: what std's sockets use.
    own.client.write_all(&whole()).expect("send");
    assert_eq!(own.server.read(&mut buffer).expect("receive"), whole().len());
    own.assert_moved("sendto and recvfrom", &whole());

    // write, read.
    // SAFETY: the buffers live for the calls, with their lengths.
    unsafe {
        assert!(libc::write(client, whole().as_ptr().cast(), whole().len()) > 0);
        assert!(libc::read(server, buffer.as_mut_ptr().cast(), buffer.len()) > 0);
    }
    own.assert_moved("write and read", &whole());

    // writev, readv.
    let sent = own.client.write_vectored(&PARTS.map(IoSlice::new)).expect("writev");
    assert_eq!(sent, whole().len());
    let (first, second) = buffer.split_at_mut(7);
    let received = own.server.read_vectored(&mut [IoSliceMut::new(first), IoSliceMut::new(second)]).expect("readv");
    assert_eq!(received, sent);
    own.assert_moved("writev and readv", &whole());

    // sendmsg, recvmsg.
    let mut parts = PARTS.map(|part| libc::iovec { iov_base: part.as_ptr().cast_mut().cast(), iov_len: part.len() });
    let (first, second) = buffer.split_at_mut(3);
    let mut into = [first, second].map(|part| libc::iovec { iov_base: part.as_mut_ptr().cast(), iov_len: part.len() });
    // SAFETY: the messages point at vectors and buffers that live for the calls.
    unsafe {
        assert!(libc::sendmsg(client, &message(&mut parts), 0) > 0);
        assert!(libc::recvmsg(server, &mut message(&mut into), 0) > 0);
    }
    own.assert_moved("sendmsg and recvmsg", &whole());

    // A look at the queue moves nothing; a receive of nothing is told neither.
    own.client.write_all(b"peek").expect("send");
    // SAFETY: as above.
    unsafe { assert_eq!(libc::recv(server, buffer.as_mut_ptr().cast(), 4, libc::MSG_PEEK), 4) };
    assert_eq!(own.server.read(&mut buffer).expect("receive"), 4);
    own.server.set_nonblocking(true).expect("non-blocking");
    assert!(own.server.read(&mut buffer).is_err(), "nothing is there");
    own.server.set_nonblocking(false).expect("blocking");
    own.assert_moved("a receive after a peek", b"peek");

    // Past the bounds: the beginning, the end, and the length.
    let large: Vec<u8> = (0..60_000_u32).map(|n| (n % 251) as u8).collect();
    own.client.write_all(&large).expect("send");
    let mut rest = vec![0; large.len()];
    own.server.read_exact(&mut rest).expect("receive");
    let sent: Vec<_> = own.take().into_iter().filter(|transfer| !transfer.received).collect();
    let total: usize = sent.iter().map(|transfer| usize::try_from(transfer.io.result).expect("sent")).sum();
    assert_eq!(total, large.len());
    assert_eq!(sent[0].data, large[..2048]);
    assert_eq!(sent[0].io.flags, IO_TRUNCATED);
    let end = usize::try_from(sent[0].io.result).expect("sent");
    assert_eq!(sent[0].io.tail, large[end - 8..end]);

    // Vectors whose end lies in small parts.
    let mut long = PARTS.map(IoSlice::new).to_vec();
    let body = vec![b'x'; 5000];
    long.insert(3, IoSlice::new(&body));
    let sent = own.client.write_vectored(&long).expect("writev");
    let mut rest = vec![0; sent];
    own.server.read_exact(&mut rest).expect("receive");
    let told = own.take();
    assert_eq!((told[0].io.flags, &told[0].io.tail), (IO_TRUNCATED, b"xxxhello"));

    // sendfile has no buffer of the caller's: counted.
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(&whole()).expect("write");
    let zero: *mut libc::off_t = &mut 0;
    // SAFETY: both descriptors are open, and the offset lives for the call.
    assert!(unsafe { libc::sendfile(client, File::as_raw_fd(&file), zero, whole().len()) } > 0);
    assert_eq!(own.server.read(&mut buffer).expect("receive"), whole().len());
    let told = own.take();
    let sends: Vec<_> = told.iter().filter(|transfer| !transfer.received).collect();
    assert!(sends.iter().all(|send| send.io.flags & IO_UNREADABLE != 0 && send.data.is_empty()));
    let sent: i32 = sends.iter().map(|send| send.io.result).sum();
    assert_eq!(usize::try_from(sent).expect("sent"), whole().len());
    assert_eq!(told.last().map(|last| last.data.clone()), Some(whole()), "what was received has its bytes");

    own.programs.detach();
}
