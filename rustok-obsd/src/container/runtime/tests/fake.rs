//! A Unix socket whose server does what a test says, connection by connection.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use tempfile::TempDir;

/// The server.
pub struct Fake {
    dir: TempDir,
    stop: Arc<AtomicBool>,
}

impl Fake {
    /// Gives every connection to `serve`, each in a thread of its own.
    pub fn start(serve: impl Fn(UnixStream) + Send + Sync + 'static) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), serve)
    }

    pub fn start_in(dir: TempDir, serve: impl Fn(UnixStream) + Send + Sync + 'static) -> Self {
        let listener = UnixListener::bind(socket(dir.path())).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, serve) = (Arc::clone(&stop), Arc::new(serve));
        thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let (stream, serve) = (stream.unwrap(), Arc::clone(&serve));
                thread::spawn(move || serve(stream));
            }
        });
        Self { dir, stop }
    }

    pub fn socket(&self) -> PathBuf {
        socket(self.dir.path())
    }

    /// Takes the socket away. The directory stays for the next server.
    pub fn stop(self) -> TempDir {
        self.stop.store(true, Ordering::Relaxed);
        let _ = UnixStream::connect(self.socket());
        std::fs::remove_file(self.socket()).unwrap();
        self.dir
    }
}

pub fn socket(dir: &Path) -> PathBuf {
    dir.join("s")
}

/// Reads requests without a body and hands their paths to `answer`, until that says no or the peer is gone.
pub fn requests(mut stream: UnixStream, mut answer: impl FnMut(&str, &mut UnixStream) -> bool) {
    let (mut head, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(read) => head.extend_from_slice(&buffer[..read]),
        }
        if head.ends_with(b"\r\n\r\n") {
            let text = String::from_utf8(std::mem::take(&mut head)).unwrap();
            let path = text.split(' ').nth(1).unwrap().to_owned();
            if !answer(&path, &mut stream) {
                return;
            }
        }
    }
}

pub fn respond(stream: &mut UnixStream, status: &str, body: &str) -> bool {
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes())).is_ok()
}

/// Begins an answer without an end.
pub fn stream_head(stream: &mut UnixStream) -> bool {
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n").is_ok()
}

pub fn chunk(stream: &mut UnixStream, data: &[u8]) -> bool {
    let head = format!("{:x}\r\n", data.len());
    [head.as_bytes(), data, b"\r\n"].iter().all(|part| stream.write_all(part).is_ok())
}
