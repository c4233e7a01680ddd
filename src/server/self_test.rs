//! The proof that decisions are made: now and then real questions go the whole way, from the bytes of the line dialect
//! through the gate, with its locks, to the bytes of an answer. They only ask, so nothing changes, and nothing is
//! counted.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::decision::{DenyReason, Outcome, Reason};
use crate::dialect::line::Line;
use crate::dialect::{Dialect, Step};
use crate::limits::{SELF_TEST_INTERVAL, SELF_TEST_QUESTIONS_MAX};
use crate::policy::Organization;
use crate::policy::directory::User;
use crate::sidecar::Sidecar;
use crate::telephony::QueueSet;

/// Proves it again and again until `stop`; `proven` hears of every time.
pub(super) async fn beat(sidecar: Arc<Sidecar>, proven: watch::Sender<u64>, stop: CancellationToken) {
    let mut pulse = tokio::time::interval(SELF_TEST_INTERVAL);
    pulse.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut next = 0;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = pulse.tick() => {}
        }
        if let Some(after) = prove(&sidecar, next) {
            next = after;
            proven.send_replace(sidecar.clock.now().uptime_ms);
        }
    }
}

/// Asks about some organizations from this one on; gives where to go on if every question was decided.
pub(super) fn prove(sidecar: &Sidecar, from: usize) -> Option<usize> {
    let policy = sidecar.gate.policy();
    let organizations = policy.organizations().count();
    let from = from.checked_rem(organizations).unwrap_or_default();
    let mut asked = policy.organizations().skip(from).take(SELF_TEST_QUESTIONS_MAX);
    let decided = if organizations == 0 {
        ask(sidecar, None)
    } else {
        asked.all(|organization| ask(sidecar, Some(organization)))
    };
    decided.then(|| {
        sidecar.vitals.judged(sidecar.clock.now().uptime_ms);
        from.saturating_add(SELF_TEST_QUESTIONS_MAX)
    })
}

/// Asks whether the first user of the organization may log in to the first queue.
fn ask(sidecar: &Sidecar, organization: Option<&Organization>) -> bool {
    let org = organization.map_or("none", |organization| &*organization.name);
    let directory = organization.map(|organization| &organization.directory);
    let actor = directory.and_then(|directory| directory.users().next()).map_or("0", User::extension);
    let queue = directory.and_then(|directory| Some(&*directory.queues().next()?.1.number));
    let question = format!("1 may org={org} actor={actor} action=queue.login queue={}\n", queue.unwrap_or("0"));
    let decided = catch_unwind(AssertUnwindSafe(|| {
        let (mut dialect, mut room, mut output) = (Line::new(None), vec![], vec![]);
        let Step::Ask { event, id, .. } = dialect.next(question.as_bytes(), &mut room, &mut output) else {
            return false;
        };
        let mut answer = vec![];
        let now = sidecar.clock.now();
        let decided = sidecar.gate.ask(&event, now, &mut QueueSet::new(), |outcome, _| {
            let _after = dialect.answer(id, &outcome, &mut answer);
            let in_trouble = |reason| matches!(reason, Reason::Deny(DenyReason::Internal | DenyReason::Overload));
            matches!(outcome, Outcome::Decided(answer) if !in_trouble(answer.reason))
        });
        decided && answer.ends_with(b"\n")
    }));
    decided.unwrap_or_default()
}
