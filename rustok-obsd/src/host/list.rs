//! The collectors: name, whether on by default, how each is made.

use super::{Collector, Settings};
use super::{
    arp, bcache, bcachefs, bonding, btrfs, buddyinfo, cgroups, conntrack, cpu, cpu_vulnerabilities, cpufreq, diskstats,
    dmi, dmmultipath, drbd, edac, entropy, fibrechannel, filefd, filesystem, hwmon, infiniband, interrupts, ipvs,
    kernel_hung, ksmd, lnstat, loadavg, mdadm, meminfo, meminfo_numa, mountstats, netclass, netdev, netstat,
    network_route, nfs, nfsd, nvme, nvmesubsystem, os, otel, pcidevice, powersupplyclass, pressure, processes, rapl,
    schedstat, selinux, slabinfo, sockstat, softirqs, softnet, stat, sysctl, systemd, tapestats, tcpstat, textfile,
    thermal_zone, time, timex, udp_queues, uname, vmstat, watchdog, xfrm, xfs, zfs, zoneinfo,
};
use crate::contract::Family;

/// One collector.
pub struct Entry {
    /// Its name, node_exporter's.
    pub name: &'static str,
    /// Whether node_exporter has it on by default.
    pub default: bool,
    /// Whether it may block for long: then it runs on a thread of the pool.
    pub blocks: bool,
    /// Makes it.
    pub make: Make,
    /// Its families; those whose names the kernel gives are not among them.
    pub families: &'static [Family<'static>],
}

type Make = fn(&Settings) -> Box<dyn Collector>;

const fn entry(name: &'static str, default: bool, make: Make, families: &'static [Family<'static>]) -> Entry {
    Entry { name, default, blocks: false, make, families }
}

/// One that asks hardware, file servers or other programs.
const fn blocking(name: &'static str, default: bool, make: Make, families: &'static [Family<'static>]) -> Entry {
    Entry { name, default, blocks: true, make, families }
}

const ON: bool = true;
const OFF: bool = false;

/// All collectors, by name.
pub static COLLECTORS: &[Entry] = &[
    entry("arp", ON, arp::make, arp::FAMILIES),
    entry("bcache", ON, bcache::make, bcache::FAMILIES),
    entry("bcachefs", ON, bcachefs::make, bcachefs::FAMILIES),
    entry("bonding", ON, bonding::make, bonding::FAMILIES),
    blocking("btrfs", ON, btrfs::make, btrfs::FAMILIES),
    entry("buddyinfo", OFF, buddyinfo::make, buddyinfo::FAMILIES),
    entry("cgroups", OFF, cgroups::make, cgroups::FAMILIES),
    entry("conntrack", ON, conntrack::make, conntrack::FAMILIES),
    entry("cpu", ON, cpu::make, cpu::FAMILIES),
    entry("cpu_vulnerabilities", OFF, cpu_vulnerabilities::make, cpu_vulnerabilities::FAMILIES),
    entry("cpufreq", ON, cpufreq::make, cpufreq::FAMILIES),
    entry("diskstats", ON, diskstats::make, diskstats::FAMILIES),
    entry("dmi", ON, dmi::make, dmi::FAMILIES),
    entry("dmmultipath", ON, dmmultipath::make, dmmultipath::FAMILIES),
    entry("drbd", OFF, drbd::make, drbd::FAMILIES),
    entry("edac", ON, edac::make, edac::FAMILIES),
    entry("entropy", ON, entropy::make, entropy::FAMILIES),
    blocking("fibrechannel", ON, fibrechannel::make, fibrechannel::FAMILIES),
    entry("filefd", ON, filefd::make, filefd::FAMILIES),
    blocking("filesystem", ON, filesystem::make, filesystem::FAMILIES),
    blocking("hwmon", ON, hwmon::make, hwmon::FAMILIES),
    blocking("infiniband", ON, infiniband::make, infiniband::FAMILIES),
    entry("interrupts", OFF, interrupts::make, interrupts::FAMILIES),
    entry("ipvs", ON, ipvs::make, ipvs::FAMILIES),
    entry("kernel_hung", ON, kernel_hung::make, kernel_hung::FAMILIES),
    entry("ksmd", OFF, ksmd::make, ksmd::FAMILIES),
    entry("lnstat", OFF, lnstat::make, lnstat::FAMILIES),
    entry("loadavg", ON, loadavg::make, loadavg::FAMILIES),
    entry("mdadm", ON, mdadm::make, mdadm::FAMILIES),
    entry("meminfo", ON, meminfo::make, meminfo::FAMILIES),
    entry("meminfo_numa", OFF, meminfo_numa::make, meminfo_numa::FAMILIES),
    entry("mountstats", OFF, mountstats::make, mountstats::FAMILIES),
    entry("netclass", ON, netclass::make, netclass::FAMILIES),
    entry("netdev", ON, netdev::make, netdev::FAMILIES),
    entry("netstat", ON, netstat::make, netstat::FAMILIES),
    entry("network_route", OFF, network_route::make, network_route::FAMILIES),
    entry("nfs", ON, nfs::make, nfs::FAMILIES),
    entry("nfsd", ON, nfsd::make, nfsd::FAMILIES),
    entry("nvme", ON, nvme::make, nvme::FAMILIES),
    entry("nvmesubsystem", OFF, nvmesubsystem::make, nvmesubsystem::FAMILIES),
    entry("os", ON, os::make, os::FAMILIES),
    blocking("otel", OFF, otel::make, otel::FAMILIES),
    entry("pcidevice", OFF, pcidevice::make, pcidevice::FAMILIES),
    blocking("powersupplyclass", ON, powersupplyclass::make, powersupplyclass::FAMILIES),
    entry("pressure", ON, pressure::make, pressure::FAMILIES),
    blocking("processes", OFF, processes::make, processes::FAMILIES),
    entry("rapl", ON, rapl::make, rapl::FAMILIES),
    entry("schedstat", ON, schedstat::make, schedstat::FAMILIES),
    entry("selinux", ON, selinux::make, selinux::FAMILIES),
    entry("slabinfo", OFF, slabinfo::make, slabinfo::FAMILIES),
    entry("sockstat", ON, sockstat::make, sockstat::FAMILIES),
    entry("softirqs", OFF, softirqs::make, softirqs::FAMILIES),
    entry("softnet", ON, softnet::make, softnet::FAMILIES),
    entry("stat", ON, stat::make, stat::FAMILIES),
    entry("sysctl", OFF, sysctl::make, sysctl::FAMILIES),
    blocking("systemd", OFF, systemd::make, systemd::FAMILIES),
    entry("tapestats", ON, tapestats::make, tapestats::FAMILIES),
    entry("tcpstat", OFF, tcpstat::make, tcpstat::FAMILIES),
    blocking("textfile", ON, textfile::make, textfile::FAMILIES),
    blocking("thermal_zone", ON, thermal_zone::make, thermal_zone::FAMILIES),
    entry("time", ON, time::make, time::FAMILIES),
    entry("timex", ON, timex::make, timex::FAMILIES),
    entry("udp_queues", ON, udp_queues::make, udp_queues::FAMILIES),
    entry("uname", ON, uname::make, uname::FAMILIES),
    entry("vmstat", ON, vmstat::make, vmstat::FAMILIES),
    entry("watchdog", ON, watchdog::make, watchdog::FAMILIES),
    entry("xfrm", OFF, xfrm::make, xfrm::FAMILIES),
    entry("xfs", ON, xfs::make, xfs::FAMILIES),
    entry("zfs", ON, zfs::make, zfs::FAMILIES),
    entry("zoneinfo", OFF, zoneinfo::make, zoneinfo::FAMILIES),
];
