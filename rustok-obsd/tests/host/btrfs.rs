//! A btrfs that is mounted: its devices as the file system itself tells them, beside what sysfs has.
//!
//! Reads: an image made with `mkfs.btrfs`, mounted in a mount namespace of the test's own. Yields: what a scrape says of it.

use crate::filesystem::alone;
use rustok_obsd::config::Paths;
use rustok_obsd::config::collector::Collectors;
use rustok_obsd::exposition::{Format, Scrape, to_text_of};
use rustok_obsd::host::{Host, Settings};
use std::fs::{self, File};
use std::process::Command;
use test_support::{Scraped, Skip};

const SIZE: u32 = 256 << 20;

/// Runs a command; what it needs may be absent.
fn run(command: &mut Command) -> Result<(), Skip> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| Skip::new(format!("{name}: {error}")))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(Skip::new(format!("{name}: {}", said.trim()))) }
}

#[test]
fn a_mounted_btrfs_tells_its_devices_and_their_errors() {
    alone("a_mounted_btrfs_tells_its_devices_and_their_errors", 0, |folder| {
        let (image, point, procfs) = (folder.join("image"), folder.join("a point"), folder.join("proc"));
        let file = File::create(&image).expect("a file");
        file.set_len(SIZE.into()).expect("its size");
        run(Command::new("mkfs.btrfs").args(["-q", "-L", "of a test"]).arg(&image))?;
        [&point, &procfs].iter().for_each(|path| fs::create_dir(path).expect("a folder"));
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&point))?;
        // SAFETY: asks for a number.
        let thread = unsafe { libc::gettid() };
        let task = format!("/proc/{}/task/{thread}", std::process::id());
        std::os::unix::fs::symlink(task, procfs.join("1")).expect("a link");
        let options = Collectors { disable_defaults: true, enable: vec!["btrfs".into()], ..Collectors::default() };
        let host = Host::new(&Settings { paths: Paths { procfs, ..Paths::default() }, options });
        let text = to_text_of(&host, &Scrape::default(), Format::Text);
        run(Command::new("umount").arg(&point))?;
        let scraped = Scraped::parse(&text).expect("an exposition");
        let of_test = |line: &&str| line.starts_with("node_btrfs_info{") && line.contains("label=\"of a test\"");
        let info = text.lines().find(of_test).expect("the file system");
        let uuid = info.split("uuid=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("its id");
        let values = |family: &str| -> Vec<f64> {
            let samples = &scraped.families[family].samples;
            let own = samples.iter().filter(|(series, _)| format!("{series:?}").contains(uuid));
            own.map(|(_, value)| *value).collect()
        };
        assert_eq!(values("node_btrfs_device_size_bytes"), [f64::from(SIZE)]);
        let unused = values("node_btrfs_device_unused_bytes");
        assert!(unused[0] > 0.0 && unused[0] < f64::from(SIZE), "{unused:?}");
        assert_eq!(values("node_btrfs_device_errors_total"), [0.0; 5]);
        let sizes =
            text.lines().filter(|line| line.starts_with("node_btrfs_device_size_bytes{") && line.contains(uuid));
        assert!(sizes.clone().all(|line| line.contains("btrfs_dev_uuid=")), "{:?}", sizes.collect::<Vec<_>>());
        assert_eq!(values("node_btrfs_reserved_bytes").len(), 3);
        assert!(values("node_btrfs_commits_total")[0] >= 0.0);
        Ok(())
    });
}
