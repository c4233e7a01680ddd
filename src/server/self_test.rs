//! The self test: every [`SELF_TEST_INTERVAL`], real questions go the whole way from bytes of the line dialect through
//! the gate and its locks to the bytes of an answer.
//!
//! The questions have the verb `may`, so they change nothing, and they are not counted. `/livez` and the watchdog of
//! the service manager depend on the result.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::decision::{DenyReason, Outcome, Reason};
use crate::dialect::line::Line;
use crate::dialect::{Dialect, Step};
use crate::gate::{BatchQuestion, QuestionOrigin};
use crate::limits::{SELF_TEST_INTERVAL, SELF_TEST_QUESTIONS_MAX};
use crate::policy::Organization;
use crate::policy::directory::User;
use crate::sidecar::Sidecar;
use crate::telephony::QueueSet;

/// Tests again and again until `stop`; sends the uptime of every test that succeeded to `succeeded`, in milliseconds.
pub(crate) async fn run(sidecar: Arc<Sidecar>, succeeded: watch::Sender<u64>, stop: CancellationToken) {
    let mut tests = interval(SELF_TEST_INTERVAL);
    tests.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut first = 0;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tests.tick() => {}
        }
        if let Some(next) = run_once(&sidecar, first) {
            first = next;
            succeeded.send_replace(sidecar.clock.now().uptime_ms);
        }
    }
}

/// Asks one question of each of the next [`SELF_TEST_QUESTIONS_MAX`] organizations, from the one at position `first`.
/// If every question was decided, notes the success and returns the position for the next test.
pub(crate) fn run_once(sidecar: &Sidecar, first: usize) -> Option<usize> {
    let policy = sidecar.gate.policy();
    let organizations = policy.organizations().count();
    let first = first.checked_rem(organizations).unwrap_or(0);
    let mut tested = policy.organizations().skip(first).take(SELF_TEST_QUESTIONS_MAX);
    let all_decided = if organizations == 0 {
        is_decided(sidecar, None)
    } else {
        tested.all(|organization| is_decided(sidecar, Some(organization)))
    };
    all_decided.then(|| {
        sidecar.health.note_self_test(sidecar.clock.now().uptime_ms);
        first + SELF_TEST_QUESTIONS_MAX
    })
}

/// Asks whether the first user of the organization may log in to its first queue. Any decision will do, except a denial
/// because of a failure of our own.
fn is_decided(sidecar: &Sidecar, organization: Option<&Organization>) -> bool {
    let org = organization.map_or("none", |organization| &*organization.name);
    let directory = organization.map(|organization| &organization.directory);
    let actor = directory.and_then(|directory| directory.users().next()).map_or("0", User::extension);
    let queue = directory.and_then(|directory| Some(&*directory.queues().next()?.1.number));
    let question = format!("1 may org={org} actor={actor} action=queue.login queue={}\n", queue.unwrap_or("0"));
    let decided = catch_unwind(AssertUnwindSafe(|| {
        let (mut dialect, mut decoded, mut output) = (Line::new(None), vec![], vec![]);
        let Step::Ask { event, id, .. } = dialect.next(question.as_bytes(), &mut decoded, &mut output) else {
            return false;
        };
        let mut encoded = vec![];
        let (origin, now) = (QuestionOrigin::default(), sidecar.clock.now());
        let question = BatchQuestion { origin: &origin, event: &event, now, queues: &mut QueueSet::new() };
        let decided = sidecar.gate.batch().probe(question, |outcome, _| {
            dialect.answer(id, &outcome, &mut encoded);
            let is_failure = |reason| matches!(reason, Reason::Deny(DenyReason::Internal | DenyReason::Overload));
            matches!(outcome, Outcome::Decided(answer) if !is_failure(answer.reason))
        });
        decided && encoded.ends_with(b"\n")
    }));
    // A panic is counted by the panic hook.
    decided.unwrap_or(false)
}
