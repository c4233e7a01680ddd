//! A real Kamailio with the shipped configuration, 1,000 calls a second for ten seconds: does a phone have to repeat
//! itself because of the sidecar? And how long does a caller wait for a refusal while the sidecar is frozen?
//!
//! The same calls are made three times: to a plain number, about which the sidecar is not asked, and to a code, over
//! both transports. A phone repeats an INVITE after 500 ms without an answer. Beside the number of repeats the output
//! has the slowest answer of the sidecar and the packets that the kernel dropped, which tell the cause. `tests/run`
//! unpacks Kamailio.
//!
//! ```text
//! cargo bench --bench benchmarks -- kamailio
//! ```

use std::collections::HashMap;
use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::kamailio_lab::{KamailioLab, Transport};
use crate::support::project;

const CALLS_A_SECOND: u32 = 1_000;
const CALLS: u32 = 10_000;
/// Seconds after which sipp is ended if an answer is missing.
const ROUND_SECONDS_MAX: u32 = 60;
/// Questions to a frozen sidecar.
const REFUSALS: usize = 50;

pub fn run(_arguments: &[String]) {
    println!("{CALLS_A_SECOND} calls a second, {CALLS} in all:");
    for (transport, number, what) in [
        (Transport::JsonRpc, "1002", "a plain number, nobody is asked"),
        (Transport::JsonRpc, "*13600", "a code, over JSON-RPC"),
        (Transport::Evapi, "*13600", "a code, over evapi"),
    ] {
        let lab = KamailioLab::start(transport);
        let (dropped, began) = (dropped_packets(), Instant::now());
        let called = call(&lab, number);
        let seconds = began.elapsed().as_secs_f64();
        println!(
            "  {what:<34} answered {:>6}, failed {:>4}, repeated {:>4}, packets dropped {:>5}, slowest answer of the \
             sidecar {:>9}, in {seconds:.1} s",
            called["SuccessfulCall(C)"],
            called["FailedCall(C)"],
            called["Retransmissions(C)"],
            dropped_packets() - dropped,
            slowest(&lab),
        );
    }
    println!("a refusal while the sidecar is frozen, {REFUSALS} calls:");
    for transport in Transport::BOTH {
        let lab = KamailioLab::start(transport);
        lab.sidecar().signal("STOP");
        let mut waits: Vec<Duration> = (0..REFUSALS).map(|_| refusal(&lab)).collect();
        lab.sidecar().signal("CONT");
        waits.sort_unstable();
        println!(
            "  {:<34} half within {:.0?}, all within {:.0?}",
            transport.dialect(),
            waits[REFUSALS / 2],
            waits[REFUSALS - 1]
        );
    }
}

/// Makes the calls to the number; returns the last line of sipp's statistics, by column.
fn call(lab: &KamailioLab, number: &str) -> HashMap<String, u64> {
    let folder = tempfile::tempdir().unwrap();
    let status = Command::new("sipp")
        .args(["-sf", project().join("tests/perf/kamailio.xml").to_str().unwrap(), "-nostdin", "-i", "127.0.0.1"])
        .args(["-key", "user", "1001", "-au", "1001", "-ap", "pw1001", "-s", number])
        .args(["-r", &CALLS_A_SECOND.to_string(), "-m", &CALLS.to_string(), "-l", &CALLS.to_string()])
        .args(["-buff_size", "4194304", "-timeout", &format!("{ROUND_SECONDS_MAX}s")])
        .args(["-trace_stat", "-stf", "statistics", "-fd", "1", &lab.sip().to_string()])
        .current_dir(folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("sipp, which tests/run installs");
    let statistics = fs::read_to_string(folder.path().join("statistics")).unwrap_or_else(|_| panic!("sipp: {status}"));
    let (names, last) = (statistics.lines().next().unwrap(), statistics.lines().next_back().unwrap());
    let figures = names.split(';').zip(last.split(';'));
    figures.map(|(name, figure)| (name.to_owned(), figure.parse().unwrap_or_default())).collect()
}

/// Packets that the kernel dropped for full receive buffers, on the whole machine.
fn dropped_packets() -> u64 {
    let table = fs::read_to_string("/proc/net/snmp").unwrap();
    let mut rows = table.lines().filter(|line| line.starts_with("Udp:"));
    let (names, figures) = (rows.next().unwrap(), rows.next().unwrap());
    let column = names.split(' ').position(|name| name == "RcvbufErrors").unwrap();
    figures.split(' ').nth(column).unwrap().parse().unwrap()
}

/// The histogram bucket of the slowest answer, from bytes read to bytes written.
fn slowest(lab: &KamailioLab) -> String {
    let metrics = lab.sidecar().get("/metrics");
    let series = format!("queuewarden_request_duration_seconds_bucket{{dialect=\"{}\",le=\"", lab.transport.dialect());
    let buckets: Vec<(&str, &str)> =
        metrics.lines().filter_map(|line| line.strip_prefix(&series)?.split_once("\"} ")).collect();
    let all = buckets.last().unwrap().1;
    let bound = buckets.iter().find(|(_, count)| *count == all).unwrap().0;
    format!("{:.1?}", bound.parse().map_or(Duration::MAX, Duration::from_secs_f64))
}

fn refusal(lab: &KamailioLab) -> Duration {
    let phone = lab.phone("1001");
    let credentials = phone.credentials("*13600");
    let began = Instant::now();
    let answer = phone.ask_once("INVITE", "*13600", &[], Some(&credentials)).expect("an answer");
    assert!(answer.starts_with("SIP/2.0 503"), "{answer}");
    began.elapsed()
}
