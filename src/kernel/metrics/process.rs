//! `process_…`: what the system says of this process, under the names that every Prometheus client library uses.
//!
//! Read when the page is, from `/proc` and the limits; where the system does not tell (no Linux), the families are
//! there without a value.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

/// Tells of this process.
#[derive(Debug)]
pub(super) struct Process {
    /// When the machine was booted, in seconds since 1970: `/proc` counts from there.
    booted: Option<f64>,
}

/// What `/proc/self/stat` says (proc(5)).
#[derive(Clone, Copy, Debug, PartialEq)]
struct Stat {
    /// Seconds of a processor, in the program and in the system for it.
    cpu: f64,
    threads: u64,
    /// Seconds from the machine's boot to the start.
    started: f64,
    virtual_bytes: u64,
    resident_bytes: u64,
}

impl Process {
    /// Asks once for what does not change.
    pub(super) fn new() -> Self {
        let booted = fs::read_to_string("/proc/stat").ok().and_then(|text| {
            let line = text.lines().find_map(|line| line.strip_prefix("btime "))?;
            line.trim().parse().ok()
        });
        Self { booted }
    }
}

impl Stat {
    fn read() -> Option<Self> {
        #[expect(clippy::cast_precision_loss, reason = "some hundred")]
        let tick = 1.0 / clock_ticks_per_second() as f64;
        Self::parse(&fs::read_to_string("/proc/self/stat").ok()?, tick, page_size() as u64)
    }

    /// `tick` in seconds.
    fn parse(text: &str, tick: f64, page: u64) -> Option<Self> {
        // The second field is the program's name, in parentheses, and may hold some itself.
        let fields: Vec<&str> = text.rsplit_once(") ")?.1.split_ascii_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        #[expect(clippy::cast_precision_loss, reason = "what it would round away is less than is counted")]
        let time = |field: usize| Some(number(field)? as f64 * tick);
        Some(Self {
            cpu: time(14)? + time(15)?,
            threads: number(20)?,
            started: time(22)?,
            virtual_bytes: number(23)?,
            resident_bytes: number(24)?.saturating_mul(page),
        })
    }
}

/// Files, sockets and what else has a descriptor.
fn open_descriptors() -> Option<u64> {
    // The descriptor by which they are counted is one of them.
    Some((fs::read_dir("/proc/self/fd").ok()?.count() as u64).saturating_sub(1))
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let stat = Stat::read();
        let mut counter = |name: &str, help: &str, value: Option<f64>| {
            let encoder = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            value.map_or(Ok(()), |value| ConstCounter::new(value).encode(encoder))
        };
        counter("process_cpu_seconds", "Time that processors spent on the process.", stat.map(|stat| stat.cpu))?;
        let mut gauge = |name: &str, help: &str, value: Option<u64>| {
            let encoder = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            value.map_or(Ok(()), |value| ConstGauge::new(value).encode(encoder))
        };
        gauge("process_open_fds", "Open file descriptors.", open_descriptors())?;
        gauge("process_max_fds", "Most file descriptors that may be open.", getrlimit(Resource::Nofile).current)?;
        gauge("process_threads", "Threads of the process.", stat.map(|stat| stat.threads))?;
        gauge("process_virtual_memory_bytes", "Address space that is in use.", stat.map(|stat| stat.virtual_bytes))?;
        gauge("process_resident_memory_bytes", "Memory that the process has.", stat.map(|stat| stat.resident_bytes))?;
        let started = stat.zip(self.booted).map(|(stat, booted)| booted + stat.started);
        let help = "When the process was started, in seconds since 1970.";
        let encoder = encoder.encode_descriptor("process_start_time_seconds", help, None, MetricType::Gauge)?;
        started.map_or(Ok(()), |started| ConstGauge::new(started).encode(encoder))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_line_is_read_whatever_the_program_is_called() {
        let line =
            "7 (a) b) (c) S 1 7 7 0 -1 4194560 100 0 0 0 250 150 0 0 20 0 9 0 5000 1048576 25 18446744073709551615 1";
        let stat = Stat { cpu: 4.0, threads: 9, started: 50.0, virtual_bytes: 1 << 20, resident_bytes: 25 << 12 };
        assert_eq!(Stat::parse(line, 0.01, 4096), Some(stat));
        assert_eq!(Stat::parse("7 (a) S 1", 0.01, 4096), None);
        assert_eq!(Stat::parse("", 0.01, 4096), None);
    }
}
