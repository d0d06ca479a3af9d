//! On the raw records: every record of a request carries the request's task, on its own socket and on the pool's.

use std::collections::{HashMap, HashSet};

use rustok_obsd::{capture::record::Record, exchange::Outcome, exchange::Side};
use rustok_obsd_ebpf::SocketIo;
use test_support::{Tls, skip};

use super::{
    observe::{Observer, Recorded, replay},
    scene::Scene,
    truth::{Request, percentiles},
};

#[test]
fn every_record_of_a_request_carries_its_task_and_every_request_its_route() {
    let name = "every_record_of_a_request_carries_its_task_and_every_request_its_route";
    let _alone = super::serial();
    let mut scene = match Scene::start(Tls::Off) {
        Ok(scene) => scene,
        Err(reason) => return skip(name, reason),
    };
    let observer = match Observer::attach(scene.shop.id(), scene.port()) {
        Ok(observer) => observer,
        Err(reason) => return skip(name, reason),
    };
    if let Err(reason) = scene.load(&["--requests", "6000", "--concurrency", "64", "--seed", "5"]) {
        return skip(name, reason);
    }
    let mut requests = Vec::new();
    let recorded = observer.finish(|| requests = scene.finish());
    assert_eq!(recorded.lost, 0, "the ring was large enough for everything");
    assert!(requests.len() >= 6000);
    let aborted: HashSet<String> =
        scene.client_log().into_iter().filter(|sent| sent.aborted).map(|sent| sent.id).collect();

    assert_tasks(&recorded, &requests, scene.postgres.port());
    assert_exchanges(&recorded, &requests, &aborted);
}

/// A connection's life: remote port, first and last moment.
#[derive(Clone, Copy)]
struct Life {
    remote_port: u16,
    from_ns: u64,
    to_ns: u64,
}

/// Connections by id, and all sends and receives.
fn transfers(recorded: &Recorded) -> (HashMap<u64, Life>, Vec<(bool, SocketIo)>) {
    let (mut lives, mut transfers) = (HashMap::new(), Vec::new());
    for entry in &recorded.entries {
        match Record::parse(entry).expect("a record") {
            Record::Open(open) => {
                let life = Life { remote_port: open.remote_port, from_ns: open.time_ns, to_ns: u64::MAX };
                assert!(lives.insert(open.conn, life).is_none(), "connection {} is announced twice", open.conn);
            }
            Record::Send(io, _) => transfers.push((false, io)),
            Record::Receive(io, _) => transfers.push((true, io)),
            Record::Close(close) => lives.get_mut(&close.conn).expect("announced before").to_ns = close.time_ns,
            _ => {}
        }
    }
    (lives, transfers)
}

/// The requests that each connection carried: ports are used again, hence the times.
fn by_connection<'r>(lives: &HashMap<u64, Life>, requests: &'r [Request]) -> HashMap<u64, Vec<&'r Request>> {
    let mut by_port: HashMap<u16, Vec<&Request>> = HashMap::new();
    for request in requests {
        by_port.entry(request.peer.port()).or_default().push(request);
    }
    let mut carried = HashMap::new();
    for (conn, life) in lives {
        let mut served = by_port.get(&life.remote_port).cloned().unwrap_or_default();
        served.retain(|request| (life.from_ns..=life.to_ns).contains(&request.start_ns));
        served.sort_by_key(|request| request.start_ns);
        if !served.is_empty() {
            carried.insert(*conn, served);
        }
    }
    let known: HashSet<*const Request> =
        carried.values().flatten().map(|request| std::ptr::from_ref(*request)).collect();
    for request in requests.iter().filter(|request| !known.contains(&std::ptr::from_ref(*request))).take(8) {
        let near: Vec<_> = lives
            .iter()
            .filter(|(_, life)| life.remote_port == request.peer.port())
            .map(|(conn, life)| (conn, life.from_ns, life.to_ns))
            .collect();
        eprintln!("on no connection: {request:?}, of that port: {near:?}");
    }
    assert_eq!(carried.values().map(Vec::len).sum::<usize>(), requests.len(), "every request has one connection");
    carried
}

fn assert_tasks(recorded: &Recorded, requests: &[Request], database: u16) {
    let (lives, transfers) = transfers(recorded);
    let carried = by_connection(&lives, requests);
    // Every record on the request's own socket.
    let mut own = 0;
    for (_, io) in transfers.iter().filter(|(_, io)| io.result > 0) {
        let Some(served) = carried.get(&io.conn) else { continue };
        // An upgraded connection goes on in a task of its own.
        if served.iter().any(|request| request.status == Some(101) && io.time_ns > request.start_ns) {
            continue;
        }
        let tasks: HashSet<Option<u64>> = served.iter().map(|request| request.task).collect();
        assert_eq!(tasks, HashSet::from([Some(io.task)]), "record {io:?}");
        own += 1;
    }
    assert!(own >= 2 * requests.len(), "{own} records on the sockets of {} requests", requests.len());
    // Every query: it was sent in the task that made the call, during the call.
    let mut sends: HashMap<u64, Vec<u64>> = HashMap::new();
    for (_, io) in transfers.iter().filter(|(received, io)| !received && lives[&io.conn].remote_port == database) {
        sends.entry(io.task).or_default().push(io.time_ns);
    }
    let mut queries = 0;
    for query in requests.iter().filter(|request| !request.aborted).flat_map(|request| &request.queries) {
        let task = query.task.expect("the application runs in tasks");
        let during = |time: &&u64| (query.start_ns..=query.end_ns).contains(time);
        let found = sends.get(&task).is_some_and(|times| times.iter().any(|time| during(&time)));
        assert!(found, "task {task} sent nothing during {query:?}");
        queries += 1;
    }
    eprintln!("{own} records on {} connections, {queries} queries: every one in its task", carried.len());
    assert!(queries > requests.len() / 2);
}

/// Every request once, with its route and status, at its time.
fn assert_exchanges(recorded: &Recorded, requests: &[Request], aborted: &HashSet<String>) {
    let (connections, stats) = replay(recorded);
    eprintln!("{stats:?}");
    let (lives, _) = transfers(recorded);
    let carried = by_connection(&lives, requests);
    let (mut wrong, mut waits, mut read, mut arrived) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for connection in connections {
        let mut exchanges = connection.seen;
        exchanges.retain(|exchange| exchange.side == Side::Server);
        // A request that the client gave up before its head was whole never reached the application.
        exchanges.retain(|exchange| !(exchange.path.is_empty() && exchange.outcome != Outcome::Complete));
        exchanges.sort_by_key(|exchange| exchange.first_io_ns);
        let requests = carried.get(&connection.open.conn).cloned().unwrap_or_default();
        // Nor did one whose client had left when hyper looked again: it was read, and never routed.
        while exchanges.len() > requests.len()
            && exchanges.last().is_some_and(|last| last.outcome == Outcome::ClientAborted && last.route.is_none())
        {
            exchanges.pop();
        }
        if exchanges.len() != requests.len() {
            wrong.push(format!("{} requests, {} seen\n{requests:#?}\n{exchanges:#?}", requests.len(), exchanges.len()));
            continue;
        }
        let mut before_ns = 0;
        for (request, exchange) in requests.into_iter().zip(exchanges) {
            // A pipelined request waits in the connection's buffer for its turn.
            let pipelined = exchange.first_io_ns < std::mem::replace(&mut before_ns, exchange.end_ns);
            let gone = request.aborted || request.client_id.as_ref().is_some_and(|id| aborted.contains(id));
            let path = request.path.split('?').next().unwrap_or_default();
            let same = request.method == exchange.method
                && path == exchange.path
                && request.route == exchange.route
                && request.task == Some(exchange.task)
                && if gone { exchange.outcome != Outcome::Incomplete } else { request.status == Some(exchange.status) };
            if !same {
                wrong.push(format!("{request:?}\n{exchange:?}"));
            } else if !gone && !pipelined {
                let own = (request.end_ns - request.start_ns) as i64;
                waits.push((exchange.first_io_ns - exchange.start_ns) as i64);
                // The application's clock starts when the head is whole: for a request without a body, with its last byte.
                if request.method == "GET" {
                    read.push((exchange.end_ns - exchange.request_end_ns) as i64 - own);
                }
                arrived.push((exchange.end_ns - exchange.start_ns) as i64 - own);
            }
        }
    }
    eprintln!("arrival to first read, which the application cannot see: {}", percentiles(waits));
    eprintln!(
        "GET, from its last byte read to the last byte sent, over the application's own duration: {}",
        percentiles(read)
    );
    eprintln!(
        "all, from the first byte's arrival to the last byte sent, over the application's own duration: {}",
        percentiles(arrived)
    );
    assert!(wrong.is_empty(), "{} of {} wrong:\n{}", wrong.len(), requests.len(), wrong.join("\n"));
}
