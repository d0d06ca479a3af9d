//! What kube-state-metrics would say of the pods that the test runs: the mixin joins its own series with these.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

/// One pod with one container.
pub struct Told {
    pub namespace: &'static str,
    pub pod: &'static str,
    pub container: &'static str,
    pub workload: &'static str,
}

/// Serves the series of `pods` on a port of loopback until the process ends.
pub fn serve(pods: &[Told]) -> SocketAddr {
    let mut text = String::new();
    for Told { namespace, pod, container, workload } in pods {
        let place = format!("namespace=\"{namespace}\",pod=\"{pod}\"");
        let _ = writeln!(
            text,
            "kube_pod_info{{{place},host_network=\"false\",node=\"here\",host_ip=\"127.0.0.1\",pod_ip=\"127.0.0.1\",created_by_kind=\"DaemonSet\",created_by_name=\"{workload}\"}} 1"
        );
        let _ = writeln!(text, "kube_pod_owner{{{place},owner_kind=\"DaemonSet\",owner_name=\"{workload}\"}} 1");
        // What the rest of the mixin's rules make of these, which the fixtures leave out.
        let _ = writeln!(
            text,
            "namespace_workload_pod:kube_pod_owner:relabel{{{place},workload=\"{workload}\",workload_type=\"daemonset\"}} 1"
        );
        let _ = writeln!(text, "node_namespace_pod:kube_pod_info:{{{place},node=\"here\"}} 1");
        let _ = writeln!(text, "kube_pod_status_phase{{{place},phase=\"Running\"}} 1");
        for (resource, unit, amount) in [("cpu", "core", "0.5"), ("memory", "byte", "33554432")] {
            let labels =
                format!("{place},container=\"{container}\",node=\"here\",resource=\"{resource}\",unit=\"{unit}\"");
            let _ = writeln!(text, "kube_pod_container_resource_requests{{{labels}}} {amount}");
            let _ = writeln!(text, "kube_pod_container_resource_limits{{{labels}}} {amount}");
            for kind in ["requests", "limits"] {
                let family = format!("kube_pod_container_resource_{kind}");
                let _ = writeln!(text, "cluster:namespace:pod_{resource}:active:{family}{{{labels}}} {amount}");
                let _ = writeln!(text, "namespace_{resource}:{family}:sum{{namespace=\"{namespace}\"}} {amount}");
            }
        }
    }
    for (resource, unit, amount) in [("cpu", "core", "2"), ("memory", "byte", "8589934592")] {
        let _ = writeln!(
            text,
            "kube_node_status_allocatable{{node=\"here\",resource=\"{resource}\",unit=\"{unit}\"}} {amount}"
        );
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            // Whatever is asked for, this is the answer.
            let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
            let _ = stream.read(&mut [0; 4096]);
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                text.len()
            );
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(text.as_bytes()));
        }
    });
    address
}
