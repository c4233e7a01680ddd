//! Questions in the line dialect to a gate in the process of the test.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use queuewarden::config;
use queuewarden::dialect::line::Line;
use queuewarden::dialect::{Dialect, Step};
use queuewarden::gate::operator::OperatorFilter;
use queuewarden::gate::{Awaited, CommitObserver, Gate, PendingCommit};
use queuewarden::sessions::store::StoreError;
use queuewarden::telephony::{Moment, QueueSet, UnixMillis};
use serde_json::Value;

use crate::support::{Folder, PATIENCE};

/// The moment of every question, unless a test gives another.
pub const NOW: Moment = Moment { wall: UnixMillis(1_700_000_000_000), uptime_ms: 1_000 };

/// The moment this number of seconds after `NOW`.
pub fn later(seconds: u64) -> Moment {
    Moment { wall: UnixMillis(NOW.wall.0 + seconds * 1_000), uptime_ms: NOW.uptime_ms + seconds * 1_000 }
}

/// Loads the folder into the gate.
pub fn load(gate: &Gate, folder: &Folder) {
    let loaded = config::load(folder.path(), &gate.policy()).unwrap_or_else(|problems| panic!("{problems}"));
    drop(gate.publish(loaded.policy));
}

/// The answer of the gate without its id, and the commit group that the answer waits for. `None`: it waits for no
/// commit.
pub fn ask(gate: &Gate, question: &str, now: Moment) -> (String, Option<Arc<PendingCommit>>) {
    let (mut room, mut output) = (vec![], vec![]);
    let mut dialect = Line::new(None);
    let line = format!("1 {question}\n");
    let Step::Ask { event, id, .. } = dialect.next(line.as_bytes(), &mut room, &mut output) else { panic!("{line}") };
    let group = gate.ask(&event, now, &mut QueueSet::new(), |outcome, group| {
        dialect.answer(id, &outcome, &mut output);
        group.and_then(Awaited::into_commit)
    });
    (String::from_utf8(output).unwrap().trim_end().trim_start_matches("1 ").to_owned(), group)
}

/// Waits for the group; returns whether it became durable.
pub fn is_durable(commit: &PendingCommit) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let waited = runtime.block_on(async { tokio::time::timeout(PATIENCE, commit.wait_until_settled()).await });
    waited.expect("a group is settled in time")
}

/// Every login session, without the members that change with time.
pub fn rows(gate: &Gate) -> Vec<Value> {
    let listing = gate.operator().sessions(&OperatorFilter::default(), NOW, 0, usize::MAX).unwrap();
    let mut rows: Vec<Value> =
        listing.rows.iter().map(|row| without_time(serde_json::to_value(row).unwrap())).collect();
    rows.sort_by_key(ToString::to_string);
    rows
}

/// The session without the members that change with time.
pub fn without_time(mut row: Value) -> Value {
    let ends = !row["ends_in_seconds"].is_null();
    row["ends_in_seconds"] = ends.into();
    row
}

/// Counts commits and failures.
#[derive(Default)]
pub struct CommitCounter {
    pub failed: AtomicUsize,
    pub recovered: AtomicUsize,
}

impl CommitObserver for CommitCounter {
    fn committed(&self, _took: Duration) {}

    fn failed(&self, _error: &StoreError) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    fn recovered(&self) {
        self.recovered.fetch_add(1, Ordering::Relaxed);
    }
}
