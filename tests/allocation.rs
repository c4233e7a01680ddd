//! A question is answered without heap allocations, from bytes to bytes, once the buffers have grown.
//!
//! A new login session needs memory, so questions that begin a session are counted separately.

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

use queuewarden::audit::buffer::{AuditBuffer, PlainAllows};
use queuewarden::audit::{AuditLogOptions, Retention};
use queuewarden::config;
use queuewarden::dialect::fastagi::FastAgi;
use queuewarden::dialect::line::Line;
use queuewarden::dialect::{Dialect, Step};
use queuewarden::gate::{BatchQuestion, CommitObserver, Gate, QuestionOrigin};
use queuewarden::policy::Policy;
use queuewarden::sessions::store::StoreError;
use queuewarden::telephony::{Moment, QueueSet, UnixMillis};
use support::{Folder, agi_environment};

thread_local! {
    /// Allocations and reallocations of this thread.
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

fn count() {
    // At the end of a thread its counter has been dropped.
    let _ = ALLOCATIONS.try_with(|taken| taken.set(taken.get().saturating_add(1)));
}

#[allow(unsafe_code, reason = "counting allocations needs an allocator, and every call is handed on as it came")]
// SAFETY: every call goes to the system's allocator with unchanged arguments, so its guarantees hold here.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the arguments are the caller's, unchanged.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the arguments are the caller's, unchanged.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the arguments are the caller's, unchanged.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the arguments are the caller's, unchanged.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// The allocations and reallocations of `work`.
fn allocations_of(work: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

const NOW: Moment = Moment { wall: UnixMillis(1_000_000_000), uptime_ms: 1 };

/// A gate with the demo organization, and the buffers of one connection.
struct Connection {
    gate: Gate,
    room: Vec<u8>,
    output: Vec<u8>,
    scratch: QueueSet,
}

impl Connection {
    fn new() -> Self {
        Self::at(Gate::default())
    }

    fn at(gate: Gate) -> Self {
        drop(gate.publish(config::load(Folder::demo().path(), &Policy::default()).unwrap().policy));
        Self { gate, room: Vec::with_capacity(4_096), output: Vec::with_capacity(4_096), scratch: QueueSet::new() }
    }

    /// Answers one question; the answer is in `output` until the next call.
    fn answer(&mut self, dialect: &mut impl Dialect, question: &[u8]) {
        self.output.clear();
        let Self { gate, room, output, scratch } = self;
        if let Step::Ask { event, id, .. } = dialect.next(question, room, output) {
            let origin = QuestionOrigin {
                dialect: "line",
                peer: "127.0.0.1:40000",
                unix_ms: 1_000_000_000,
                ..QuestionOrigin::default()
            };
            let question = BatchQuestion { origin: &origin, event: &event, now: NOW, queues: scratch };
            gate.batch().ask(question, |outcome, _| dialect.answer(id, &outcome, output));
        }
    }

    fn output_text(&self) -> &str {
        std::str::from_utf8(&self.output).unwrap()
    }
}

/// Questions of every kind that change nothing, with their answers. alice serves support and sales and is logged in to
/// support.
const LINES: &[(&str, &str)] = &[
    ("1 dial org=acme actor=1001 digits=*13600\n", "already_logged_in"),
    ("1 may org=acme actor=1002 action=queue.login queue=sales\n", "assigned"),
    ("1 may org=acme actor=1001 action=queue.login\n", "assigned"),
    ("1 dial org=acme actor=3001 digits=*13\n", "no_assigned_queue"),
    ("1 dial org=acme actor=3001 digits=*13601\n", "unassigned_barred"),
    ("1 dial org=acme actor=3001 digits=*14\n", "not_logged_in"),
    ("1 do org=acme actor=paul action=queue.login queue=600 via=dashboard\n", "agent_role_required"),
    ("1 dial org=acme actor=1001 digits=*16600\n", "resumed"),
    ("1 may org=acme actor=dana action=agent.logout target=1001 queue=support\n", "supervisor_logout"),
    ("1 do org=acme actor=dana action=agent.login target=bob queue=sales\n", "queue_out_of_scope"),
    ("1 may org=acme actor=2001 action=call.listen target=1001 queue=600 call=c-77\n", "role_permits"),
    ("1 do org=acme actor=2001 action=call.whisper target=1001 queue=601\n", "queue_out_of_scope"),
    ("1 do org=acme actor=2001 action=call.barge target=2001 queue=600\n", "self_target"),
    ("1 do org=acme actor=2002 action=call.listen target=1001 queue=600\n", "permission_off"),
    ("1 do org=acme actor=1001 action=call.listen target=1002\n", "supervisor_role_required"),
    ("1 do org=nowhere actor=1001 action=call.listen target=1002\n", "unknown_organization"),
    ("1 do org=acme actor=9999 action=queue.login queue=600\n", "unknown_user"),
    ("1 do org=acme actor=1001 action=queue.login queue=9999\n", "unknown_queue"),
    ("1 do org=acme actor=2001 action=call.listen target=9999 queue=600\n", "unknown_target"),
    ("1 do org=acme actor=1001 action=queue.fly\n", "unknown_action"),
    ("1 dial org=acme actor=1001 digits=*99999\n", "unknown_feature_code"),
    ("1 dial org=acme actor=1001 digits=*13600 queue=600\n", "duplicate_key"),
    ("1 do org=acme actor=1001 action=agent.login\n", "missing_attribute"),
    ("1 dial org=acme actor=1001\n", "missing_key"),
    ("1 dial org=acme actor=10 01\n", "malformed"),
    ("1 ping\n", "pong"),
    ("nonsense\n", "malformed"),
];

#[test]
fn a_line_is_answered_without_heap_memory() {
    let mut connection = Connection::new();
    let mut line = Line::new(None);
    connection.answer(&mut line, b"1 dial org=acme actor=1001 digits=*13600\n");
    for round in 0..3 {
        for &(question, expected) in LINES {
            let taken = allocations_of(|| connection.answer(&mut line, question.as_bytes()));
            assert!(connection.output_text().contains(expected), "{question}{}", connection.output_text());
            // The first round grows the buffers.
            assert!(taken == 0 || round == 0, "{taken} allocations: {question}");
        }
    }
}

struct Silent;

impl CommitObserver for Silent {
    fn committed(&self, _took: Duration) {}

    fn failed(&self, _error: &StoreError) {}

    fn recovered(&self) {}
}

#[test]
fn audit_records_of_answers_without_a_change_take_no_heap() {
    let folder = tempfile::tempdir().unwrap();
    let recorder = AuditBuffer::new(PlainAllows { one_in: 1, per_second_max: u64::MAX });
    let mut connection = Connection::at(Gate::audited(false, Some(recorder)));
    let options = AuditLogOptions {
        folder: folder.path().to_owned(),
        rotation_max_bytes: 1_000_000,
        rotation_max_seconds: 3_600,
        decisions: Retention { max_seconds: 3_600, max_bytes: 0 },
        record: Retention { max_seconds: 3_600, max_bytes: 0 },
    };
    connection.gate.open_audit(options, UnixMillis(1_000_000_000).into()).unwrap();
    connection.gate.restore(folder.path(), NOW, Box::new(Silent), Box::new(|| NOW.wall.into())).unwrap();
    let mut line = Line::new(None);
    connection.answer(&mut line, b"1 dial org=acme actor=1001 digits=*13600\n");
    support::wait_until("the login to be on disk", || connection.gate.audit().unwrap().written() == 2);
    // Answers that wait for a commit may allocate: supervisions, and answers that depend on a pending change.
    let plain = LINES.iter().filter(|(question, _)| !question.contains(" do ") || !question.contains("action=call."));
    let decided = |question: &str| !["ping", "nonsense", "10 01"].iter().any(|no| question.contains(no));
    for round in 0..3 {
        for &(question, expected) in plain.clone().filter(|(question, _)| decided(question)) {
            let taken = allocations_of(|| connection.answer(&mut line, question.as_bytes()));
            assert!(connection.output_text().contains(expected), "{question}{}", connection.output_text());
            assert!(taken == 0 || round == 0, "{taken} allocations: {question}");
        }
    }
    let audit = connection.gate.audit().unwrap();
    support::wait_until("their lines", || audit.written() > 2 + 3 * 10);
    assert_eq!(audit.dropped(), 0);
}

#[test]
fn a_fastagi_environment_is_answered_without_heap_memory() {
    let mut connection = Connection::new();
    connection.answer(&mut Line::new(None), b"1 dial org=acme actor=1001 digits=*13600\n");
    let questions: &[(&str, &str, &[&str], &str)] = &[
        ("1001", "acme/dial", &["digits=*13600"], "already_logged_in"),
        ("3001", "acme/dial", &["digits=*13"], "no_assigned_queue"),
        ("3001", "acme/dial", &["digits=*13601"], "unassigned_barred"),
        ("2001", "acme/call.barge", &["target=1001", "queue=601"], "queue_out_of_scope"),
        ("9999", "acme/queue.login", &["queue=600"], "unknown_user"),
        ("1001", "acme/queue.login", &["queue=9999"], "unknown_queue"),
        ("1001", "acme/queue.fly", &[], "unknown_action"),
        ("1001", "acme/dial", &["digits=*99999"], "unknown_feature_code"),
        ("1001", "acme/dial", &["digits=*13600", "actor=2001"], "unknown_key"),
        ("1001", "nowhere/queue.login", &["queue=600"], "unknown_organization"),
    ];
    for round in 0..3 {
        for &(account, path, arguments, expected) in questions {
            let environment = agi_environment(account, path, arguments);
            let taken = allocations_of(|| connection.answer(&mut FastAgi::new(), environment.as_bytes()));
            assert!(connection.output_text().contains(expected), "{environment}{}", connection.output_text());
            assert!(taken == 0 || round == 0, "{taken} allocations: {environment}");
        }
    }
}

/// Allocations for one change: the texts of the change feed for each queue, and the state before, to undo the change.
const PIECES_MAX: usize = 24;

#[test]
fn a_change_of_state_takes_a_bounded_number_of_small_pieces() {
    let mut connection = Connection::new();
    let mut line = Line::new(None);
    let changes = [
        ("1 dial org=acme actor=1001 digits=*13\n", "assigned"),
        ("1 dial org=acme actor=1001 digits=*15\n", "paused"),
        ("1 dial org=acme actor=1001 digits=*16\n", "resumed"),
        ("1 dial org=acme actor=1001 digits=*14\n", "logged_out"),
        ("1 do org=acme actor=dana action=agent.login target=1001 queue=600\n", "supervisor_login"),
        ("1 do org=acme actor=dana action=agent.logout target=1001 queue=600\n", "supervisor_logout"),
        ("1 dial org=acme actor=2001 digits=*2211001 queue=600 call=c-77\n", "role_permits"),
        ("1 do org=acme actor=2001 action=supervision.end target=1001\n", "reported"),
    ];
    let mut most = 0;
    for round in 0..100 {
        for (question, expected) in changes {
            let taken = allocations_of(|| connection.answer(&mut line, question.as_bytes()));
            assert!(connection.output_text().contains(expected), "{question}{}", connection.output_text());
            // The tables grow in the first rounds.
            if round > 0 {
                most = most.max(taken);
                assert!(taken <= PIECES_MAX, "{taken} allocations: {question}");
            }
        }
    }
    println!("at most {most} allocations for a change");
}
