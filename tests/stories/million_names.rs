//! Given a million unknown names, when questions have them in every field, then `/metrics` has the same series as
//! before: no peer can fill a Prometheus.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::sync::mpsc;
use std::time::Duration;

use crate::stories::fixtures::ORGANIZATION;
use crate::support::{Folder, Sidecar, connect};

/// Lines sent in all.
const NAMES: u32 = 1_000_000;
/// Lines sent in one write.
const BATCH: u32 = 1_000;
/// Longest time for all answers, some twenty times the usual time.
const PATIENCE: Duration = Duration::from_secs(300);

/// Every series of a scrape, without the value.
fn series(sidecar: &Sidecar) -> BTreeSet<String> {
    let text = sidecar.get("/metrics");
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines.map(|line| line.rsplit_once(' ').expect(line).0.to_owned()).collect()
}

/// Appends a line with a new name: of a user, queue, target, call, organization, action, feature code or verb.
fn question(number: u32, text: &mut String) {
    let name = number.wrapping_mul(2_654_435_761);
    let written = match number % 9 {
        0 => writeln!(text, "a do org=acme actor=u{name} action=queue.login queue=600"),
        1 => writeln!(text, "a do org=acme actor=1001 action=queue.login queue=q{name}"),
        2 => writeln!(text, "a do org=acme actor=2001 action=call.listen target=t{name} queue=600"),
        3 => writeln!(text, "a do org=acme actor=2001 action=call.listen call=c{name}"),
        4 => writeln!(text, "a do org=o{name} actor=1001 action=queue.login queue=600"),
        5 => writeln!(text, "a do org=acme actor=1001 action=a{name} queue=600"),
        6 => writeln!(text, "a dial org=acme actor=1001 digits=*{name}#"),
        7 => writeln!(text, "a do org=acme actor=1001 action=call.begin call=c{name} queue=600"),
        _ => writeln!(text, "a v{name} k{name}=1"),
    };
    written.unwrap();
}

#[test]
fn a_million_names_make_no_series() {
    let folder = Folder::with("acme.toml", ORGANIZATION);
    folder.write("queuewarden.toml", &(folder.read("queuewarden.toml") + "[metrics]\nsessions_by_queue_max = 3\n"));
    let sidecar = Sidecar::start(&folder);
    let before = series(&sidecar);
    let mut reading = connect(sidecar.address("line"));
    let mut writing = reading.try_clone().unwrap();
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for batch in 0..NAMES / BATCH {
            let mut text = String::new();
            (batch * BATCH..(batch + 1) * BATCH).for_each(|number| question(number, &mut text));
            writing.write_all(text.as_bytes()).unwrap();
        }
    });
    std::thread::spawn(move || {
        let (mut lines, mut chunk) = (0_usize, vec![0; 64 * 1024]);
        while lines < NAMES as usize {
            let count = reading.read(&mut chunk).unwrap();
            assert_ne!(count, 0, "the sidecar ended the connection after {lines} answers");
            lines += memchr::memchr_iter(b'\n', &chunk[..count]).count();
        }
        sender.send(lines).unwrap();
    });
    assert_eq!(receiver.recv_timeout(PATIENCE), Ok(NAMES as usize), "one answer a line");
    let after = series(&sidecar);
    let text = |difference: Vec<&String>| format!("{difference:#?}");
    assert_eq!(before, after, "added: {}", text(after.difference(&before).collect()));
    assert!(before.len() > 1_000, "{} series", before.len());
    let counted: f64 = ["unknown_user", "unknown_queue", "unknown_target", "unknown_call"]
        .iter()
        .map(|reason| {
            let action = if ["unknown_user", "unknown_queue"].contains(reason) { "queue.login" } else { "call.listen" };
            let labels = format!("dialect=\"line\",action=\"{action}\",decision=\"deny\",reason=\"{reason}\"");
            sidecar.metric(&format!("queuewarden_decisions_total{{{labels}}}"))
        })
        .sum();
    assert!(counted > f64::from(NAMES) / 9.0 * 3.9, "the questions were decided: {counted}");
}
