//! The host by OpenTelemetry's names: node_exporter's fixture tree, and this machine.
//!
//! Reads: `proc` and `sys` of the fixtures; what the kernel tells of `lo` and of the time since boot. Yields: fails where a value
//! is another than the file's, or where promtool finds something to criticise.

use crate::fixture::{fixtures, settings, unpacked};
use rustok_obsd::config::collector::Collectors;
use rustok_obsd::exposition::{Format, Scrape, to_text_of};
use rustok_obsd::host::{Host, Settings};
use test_support::{Scraped, promtool_check_metrics, skip};

/// Family, labels, value.
type Expected<'t> = (&'t str, &'t [(&'t str, &'t str)], f64);

/// The collector and no other.
fn alone(mut settings: Settings) -> Host {
    settings.options.disable_defaults = true;
    settings.options.enable = vec!["otel".into()];
    settings.options.disable.clear();
    Host::new(&settings)
}

fn text(host: &Host, format: Format) -> String {
    to_text_of(host, &Scrape::default(), format)
}

#[test]
fn the_fixture_tree_is_told_by_opentelemetrys_names() {
    const TEST: &str = "the_fixture_tree_is_told_by_opentelemetrys_names";
    let fixtures = match fixtures() {
        Ok(fixtures) => fixtures,
        Err(reason) => return skip(TEST, reason),
    };
    let folder = unpacked(&fixtures);
    let host = alone(settings(&folder.path().join("fixtures")));
    let scraped = Scraped::parse(&text(&host, Format::Text)).unwrap();
    assert_eq!(scraped.sum("node_scrape_collector_success", &[("collector", "otel")]), Some(1.0));
    // Ticks of 10 ms, KiB, sectors of 512 bytes and milliseconds of the files.
    let (kib, cpu0) = (1024.0, ("cpu_logical_number", "0"));
    let sda = |direction| [("system_device", "sda"), ("disk_io_direction", direction)];
    let expected: &[Expected<'_>] = &[
        ("system_cpu_time_seconds_total", &[cpu0, ("cpu_mode", "user")], 444.9),
        ("system_cpu_time_seconds_total", &[cpu0, ("cpu_mode", "system")], 210.45),
        ("system_cpu_time_seconds_total", &[cpu0, ("cpu_mode", "nice")], 0.19),
        ("system_cpu_time_seconds_total", &[cpu0, ("cpu_mode", "interrupt")], 34.11),
        ("system_cpu_logical_count", &[], 8.0),
        ("system_cpu_physical_count", &[], 4.0),
        ("system_memory_limit_bytes", &[], 3_742_148.0 * kib),
        ("system_memory_usage_bytes", &[("system_memory_state", "free")], 225_472.0 * kib),
        ("system_memory_usage_bytes", &[("system_memory_state", "buffers")], 22_040.0 * kib),
        ("system_memory_usage_bytes", &[("system_memory_state", "cached")], 930_888.0 * kib),
        // The file is of a kernel without MemAvailable.
        ("system_memory_usage_bytes", &[("system_memory_state", "used")], 2_563_748.0 * kib),
        ("system_memory_linux_slab_usage_bytes", &[("system_memory_linux_slab_state", "reclaimable")], 44_772.0 * kib),
        (
            "system_memory_linux_slab_usage_bytes",
            &[("system_memory_linux_slab_state", "unreclaimable")],
            54_160.0 * kib,
        ),
        ("system_paging_usage_bytes", &[("system_device", "/dev/zram0"), ("system_paging_state", "used")], 76.0 * kib),
        (
            "system_paging_usage_bytes",
            &[("system_device", "/dev/zram0"), ("system_paging_state", "free")],
            8_388_528.0 * kib,
        ),
        ("system_paging_faults_total", &[("system_paging_fault_type", "major")], 507_162.0),
        ("system_paging_faults_total", &[("system_paging_fault_type", "minor")], 2_319_661_647.0),
        ("system_paging_operations_total", &[("system_paging_direction", "in")], 1476.0),
        ("system_paging_operations_total", &[("system_paging_direction", "out")], 35_045.0),
        ("system_disk_io_bytes_total", &sda("read"), 1_003_346_126.0 * 512.0),
        ("system_disk_io_bytes_total", &sda("write"), 505_697_032.0 * 512.0),
        ("system_disk_operations_total", &sda("read"), 25_354_637.0),
        ("system_disk_operations_total", &sda("write"), 28_444_756.0),
        ("system_disk_operation_time_seconds_total", &sda("read"), 18_492.372),
        ("system_disk_operation_time_seconds_total", &sda("write"), 63_877.96),
        ("system_disk_merged_total", &sda("read"), 34_367_663.0),
        ("system_disk_merged_total", &sda("write"), 11_134_226.0),
        ("system_disk_io_time_seconds_total", &[("system_device", "sda")], 9653.88),
        ("system_process_created_total", &[], 26_442.0),
        ("system_process_count", &[("process_state", "sleeping")], 3.0),
        ("system_process_count", &[("process_state", "running")], 0.0),
    ];
    for (name, labels, value) in expected {
        let found = scraped.sum(name, labels);
        assert!(found.is_some_and(|found| (found - value).abs() < 1e-6), "{name}{labels:?}: {found:?}, not {value}");
    }
    // As the filter of diskstats wants, and no estimate where the kernel has none.
    assert_eq!(scraped.sum("system_disk_operations_total", &[("system_device", "ram0")]), None);
    assert!(!scraped.families.contains_key("system_memory_linux_available_bytes"));
    assert!(scraped.families.keys().filter(|name| name.starts_with("system_")).count() >= 20);
}

#[test]
fn this_machine_is_told_as_the_kernel_tells_it_and_promtool_agrees() {
    const TEST: &str = "this_machine_is_told_as_the_kernel_tells_it_and_promtool_agrees";
    let host = alone(Settings { options: Collectors::default(), ..Settings::default() });
    let uptime = || -> f64 {
        let text = std::fs::read_to_string("/proc/uptime").expect("the uptime");
        text.split(' ').next().and_then(|word| word.parse().ok()).expect("seconds")
    };
    let received = || -> f64 {
        let text = std::fs::read_to_string("/sys/class/net/lo/statistics/rx_bytes").expect("the statistics of lo");
        text.trim().parse().expect("a number")
    };
    let before = (uptime(), received());
    let told = text(&host, Format::Text);
    let after = (uptime(), received());
    let scraped = Scraped::parse(&told).unwrap();
    let sum = |name: &str, labels: &[(&str, &str)]| scraped.sum(name, labels).unwrap_or_else(|| panic!("no {name}"));
    let lo = [("network_interface_name", "lo"), ("network_io_direction", "receive")];
    let bytes = sum("system_network_io_bytes_total", &lo);
    assert!(before.1 <= bytes && bytes <= after.1, "{bytes} is not within {before:?} and {after:?}");
    // The file has hundredths of a second, cut off.
    let up = sum("system_uptime_seconds", &[]);
    assert!(before.0 <= up && up <= after.0 + 0.01, "{up} is not within {before:?} and {after:?}");
    let limit = sum("system_memory_limit_bytes", &[]);
    let used = sum("system_memory_usage_bytes", &[("system_memory_state", "used")]);
    let available = sum("system_memory_linux_available_bytes", &[]);
    assert!((used + available - limit).abs() < 1.0, "{used} + {available} is not {limit}");
    assert!(sum("system_process_count", &[]) >= 1.0 && sum("system_cpu_logical_count", &[]) >= 1.0);
    match promtool_check_metrics(&told) {
        Ok(said) => {
            // The conventions' own names.
            let names = ["system_cpu_logical_count", "system_cpu_physical_count", "system_process_count"];
            let excused = |line: &&str| {
                names.iter().any(|name| line.starts_with(&format!("{name} non-histogram and non-summary metrics")))
            };
            let said: Vec<&str> = said.lines().filter(|line| !excused(line)).collect();
            assert!(said.is_empty(), "promtool complains: {said:?}");
        }
        Err(reason) => skip(TEST, reason),
    }
    let open = text(&host, Format::OpenMetrics);
    for line in ["# TYPE system_process_created counter", "# UNIT system_uptime_seconds seconds"] {
        assert!(open.lines().any(|found| found == line), "{line} is not in {open}");
    }
}
