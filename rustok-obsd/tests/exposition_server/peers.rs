//! Who is served when many are connected.

use crate::running::{Running, Samples, ended, one_answer, patient, sample, wait};
use rustok_obsd::exposition::server::Limits;
use rustok_obsd::exposition::{Exposition, Part};
use std::collections::HashSet;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

#[test]
fn scrapes_are_answered_while_300_connections_send_no_head() {
    let server = Running::start(Arc::new(Samples(100)), patient());
    let mut held = Vec::new();
    for at in 0..300 {
        let mut stream = server.connect();
        // Every other one begins a head.
        if at % 2 == 0 {
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: local").unwrap();
        }
        held.push(stream);
        if at % 20 == 0 {
            assert_eq!(server.get("/metrics", "").status, 200);
        }
    }
    // All are held by their client to the end, and each scrape was answered before that.
    let last = server.get("/metrics", "");
    assert_eq!((last.status, held.len()), (200, 300));
    assert!(ended(&last, "evicted_headless") >= 300 - 64, "{}", last.text());
    assert!(sample(&last, "rustok_obsd_server_connections{peer=\"local\"}") <= 64);
    assert_eq!(sample(&last, "rustok_obsd_scrapes_total{result=\"busy\"}"), 0);
    drop(held);
}

#[test]
fn a_user_who_opens_connections_evicts_nobody_else() {
    let exposition = Arc::new(Exposition::new());
    exposition.register(Part::App, Arc::new(Samples(1)));
    // The first connection is one user's, all others another's.
    let first = Arc::new(Mutex::new(None));
    let server = Running::serve_with(exposition, patient(), |server| {
        server.with_owners(Box::new(move |peer, _| Some(u32::from(*first.lock().unwrap().get_or_insert(peer) != peer))))
    });
    let mut scraper = server.connect();
    scraper.write_all(b"GET /hea").unwrap();
    let held: Vec<_> = (0..300).map(|_| server.connect()).collect();
    assert_eq!(server.get("/healthz", "").status, 200);
    // It was the oldest without a head all the time, and is still there.
    scraper.write_all(b"lthz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    assert_eq!(one_answer(&mut scraper).status, 200);
    let held_idle: Vec<_> = (0..100).map(|_| server.connect()).collect();
    assert_eq!(server.get("/healthz", "").status, 200);
    scraper.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    assert_eq!(one_answer(&mut scraper).status, 200, "an idle connection of another user was evicted");
    drop((held, held_idle));
}

#[test]
fn idle_connections_make_room() {
    let server = Running::start(Arc::new(Samples(1)), patient());
    let mut idle = Vec::new();
    for _ in 0..100 {
        let mut stream = server.connect();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        assert_eq!(one_answer(&mut stream).status, 200);
        idle.push(stream);
    }
    let last = server.get("/metrics", "");
    assert_eq!(last.status, 200);
    assert!(ended(&last, "evicted_idle") >= 100 - 64, "{}", last.text());
}

#[test]
fn clients_that_read_no_answer_keep_nobody_else_from_theirs() {
    let exposition = Arc::new(Exposition::new());
    // Larger than what the kernel's buffers of both ends take.
    exposition.register(Part::Node, Arc::new(Samples(200_000)));
    exposition.register(Part::App, Arc::new(Samples(1)));
    let lazy_ports = Arc::new(Mutex::new(HashSet::new()));
    let lazy = Arc::clone(&lazy_ports);
    let limits = Limits { scrape_wait: Duration::from_secs(2), ..patient() };
    let server = Running::serve_with(exposition, limits, |server| {
        // Who asks from a port that is known beforehand is the lazy user.
        server.with_owners(Box::new(move |peer, _| Some(u32::from(lazy.lock().unwrap().contains(&peer.port())))))
    });
    let held: Vec<_> = (0..100)
        .map(|_| {
            let socket = Socket::bound();
            lazy_ports.lock().unwrap().insert(socket.port());
            let mut stream = socket.connect(server.address);
            stream.write_all(b"GET /metrics/node HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
            stream
        })
        .collect();
    for _ in 0..3 {
        assert_eq!(server.get("/metrics/app", "").status, 200);
    }
    let answer = server.get("/metrics/app", "");
    assert_eq!((answer.status, held.len()), (200, 100));
}

/// A client's socket whose port is known before it connects.
struct Socket(std::os::fd::OwnedFd);

impl Socket {
    fn bound() -> Self {
        use std::os::fd::{AsRawFd as _, FromRawFd as _};
        // SAFETY: makes a descriptor from numbers; it is new and nobody else's.
        let socket = unsafe {
            let socket = libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
            assert!(socket >= 0);
            std::os::fd::OwnedFd::from_raw_fd(socket)
        };
        let address = sockaddr(([127, 0, 0, 1], 0).into());
        // SAFETY: the address is a whole sockaddr_in.
        let bound =
            unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size_of_val(&address) as u32) };
        assert_eq!(bound, 0);
        Self(socket)
    }

    fn port(&self) -> u16 {
        TcpStream::from(self.0.try_clone().unwrap()).local_addr().unwrap().port()
    }

    fn connect(self, to: SocketAddr) -> TcpStream {
        use std::os::fd::AsRawFd as _;
        let address = sockaddr(to);
        // SAFETY: the address is a whole sockaddr_in.
        let connected =
            unsafe { libc::connect(self.0.as_raw_fd(), (&raw const address).cast(), size_of_val(&address) as u32) };
        assert_eq!(connected, 0, "{}", std::io::Error::last_os_error());
        self.0.into()
    }
}

fn sockaddr(address: SocketAddr) -> libc::sockaddr_in {
    let SocketAddr::V4(address) = address else { panic!("{address} is not IPv4") };
    libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.ip().octets()) },
        sin_zero: [0; 8],
    }
}

/// Says so to the other threads at the end.
struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_user_who_opens_and_closes_connections_in_a_loop_starves_no_scraper() {
    const BURST: u32 = 100;
    const PER_SECOND: u32 = 50;
    let exposition = Arc::new(Exposition::new());
    exposition.register(Part::App, Arc::new(Samples(100)));
    // The scraper's ports are known beforehand; all others are the other user's.
    let scraper = Arc::new(Mutex::new(HashSet::new()));
    let known = Arc::clone(&scraper);
    let limits = Limits { burst: BURST, per_second: PER_SECOND, ..Limits::default() };
    let server = Running::serve_with(exposition, limits, |server| {
        server.with_owners(Box::new(move |peer, _| Some(u32::from(!known.lock().unwrap().contains(&peer.port())))))
    });
    let scrape = |header: &str| {
        let socket = Socket::bound();
        scraper.lock().unwrap().insert(socket.port());
        let mut stream = socket.connect(server.address);
        // Prometheus' own patience.
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\n{header}\r\n").as_bytes()).unwrap();
        assert_eq!(one_answer(&mut stream).status, 200);
        stream
    };
    let (start, stop, opened) = (Instant::now(), AtomicBool::new(false), AtomicU64::new(0));
    let last = std::thread::scope(|scope| {
        for asks in [true, false] {
            let (stop, opened, address) = (&stop, &opened, server.address);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    // Where the queue is full, the next try comes at once.
                    let connected = TcpStream::connect_timeout(&address, Duration::from_millis(50));
                    let Ok(mut stream) = connected else { continue };
                    if asks {
                        let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
                    }
                    opened.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        // A failure here ends the others as well.
        let _stop = OnDrop(&stop);
        (0..20).for_each(|_| drop(scrape("Connection: close\r\n")));
        // The other user has opened many times what it may.
        let mut kept = scrape("");
        wait(|| {
            kept.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
            Some(one_answer(&mut kept)).filter(|answer| ended(answer, "too_often") > 2000)
        })
    });
    let served = opened.into_inner() - ended(&last, "too_often");
    let most = u64::from(BURST) + u64::from(PER_SECOND) * (start.elapsed().as_secs() + 1);
    // What was in the kernel's queue at the end was not looked at yet.
    assert!(served <= most + 1024 + 2, "{served} of the other user were served, and {most} may be");
}
