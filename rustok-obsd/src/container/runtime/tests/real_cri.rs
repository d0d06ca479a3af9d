//! A real containerd with pods as a kubelet makes them.

use std::time::{Duration, SystemTime};

use test_support::{Containerd, Pod, Workload, skip};

use super::{SOON, cri_at, eventually, id, known};
use crate::container::runtime::{Lookup, Network, Outcome, RuntimeKind, State};

#[test]
fn a_real_cri_runtime_tells_of_pods_as_the_kubelet_names_them() {
    let name = "a_real_cri_runtime_tells_of_pods_as_the_kubelet_names_them";
    let mut containerd = match Containerd::start() {
        Ok(containerd) => containerd,
        Err(reason) => return skip(name, reason),
    };
    let runtimes = cri_at(containerd.socket());
    let source = &runtimes.sources()[0];
    eventually("up", SOON, || (source.report().state == State::Up).then_some(()));
    assert_eq!(source.report().kind, Some(RuntimeKind::Cri));
    let version = source.report().version.clone();
    assert!(version.starts_with("containerd "), "{version}");

    let uid = "11111111-2222-3333-4444-555555555555";
    let pod = Pod { namespace: "shop", name: "web-0", uid, container: "nginx", restarts: 2 };
    let workload = Workload { script: "exec sleep 600", ..Workload::default() };
    let (sandbox, container) = containerd.run(&pod, &workload).unwrap();
    // containerd 1.7 and later send events: nobody has to ask.
    if version.starts_with("containerd 1.6.") {
        // As when their cgroups were seen.
        runtimes.wanted(&container);
        runtimes.wanted(&sandbox);
    }

    let facts = known(&runtimes, &sandbox);
    assert_eq!((facts.pod.as_str(), facts.namespace.as_str(), facts.pod_uid.as_str()), ("web-0", "shop", uid));
    // As the kubelet has it: a row with an image, without a container.
    assert_eq!((facts.is_sandbox, facts.container.as_str(), &facts.name), (true, "", &sandbox));
    assert!(facts.image.contains("busybox") && facts.pid.is_some(), "{facts:?}");
    let network = if containerd.networks().is_ok() { Network::Own } else { Network::Host };
    assert_eq!(facts.network, network);
    assert_eq!(facts.cgroup, Some(format!("/kubepods/burstable/pod{uid}/{sandbox}")));
    assert_eq!(runtimes.pod(uid).unwrap().id, sandbox);
    assert_eq!(runtimes.pod(&uid.replace('-', "_")).unwrap().id, sandbox);

    let facts = eventually("started", SOON, || Some(known(&runtimes, &container)).filter(|facts| facts.pid.is_some()));
    assert_eq!((facts.pod.as_str(), facts.namespace.as_str(), facts.container.as_str()), ("web-0", "shop", "nginx"));
    assert_eq!((&facts.name, facts.is_sandbox), (&container, false));
    assert!(facts.image.contains("busybox:"), "{}", facts.image);
    assert_eq!(facts.network, Network::Of(sandbox.clone()));
    assert_eq!(facts.pid, Some(containerd.pid(&container).unwrap()));
    assert!(SystemTime::now().duration_since(facts.started_at.unwrap()).unwrap() < Duration::from_secs(60));
    assert!(facts.started_at >= facts.created_at && facts.created_at.is_some());

    containerd.crictl(&["stop", "--timeout", "0", &container]).unwrap();
    // A wish for another is what makes the list be read where there are no events.
    runtimes.wanted(&id('0'));
    eventually("the other is not there", SOON, || (runtimes.lookup(&id('0')) == Lookup::Unknown).then_some(()));
    assert_eq!(known(&runtimes, &container).container, "nginx", "its last rows keep their labels");
    runtimes.forget(&container);
    assert_eq!(runtimes.lookup(&container), Lookup::Unknown);
    assert_eq!((source.requests(Outcome::Error), source.requests(Outcome::Timeout)), (0, 0));

    // An upgrade of the runtime: pods go on, and so do their names.
    containerd.stop_server();
    runtimes.wanted(&id('1'));
    eventually("told", SOON, || (source.report().state == State::Failed).then_some(()));
    assert_eq!(known(&runtimes, &sandbox).pod, "web-0");
    assert_eq!(runtimes.lookup(&id('1')), Lookup::NoRuntime);
}
