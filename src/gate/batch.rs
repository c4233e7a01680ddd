//! Questions that came together: one look at the policy serves them all.

use std::sync::Arc;

use arc_swap::Guard;

use super::audit::{Asked, Basis, Origin};
use super::commit::queue::CommitGroup;
use super::pbx_reports::Report;
use super::{Gate, Settled, answer_of, denied_early};
use crate::decision::{DenyReason, Outcome};
use crate::event::{Event, Request};
use crate::limits::JUDGE_AGAIN_MAX;
use crate::policy::Policy;
use crate::policy::decide::{NoSessions, decide};
use crate::policy::prefetch::prefetch;
use crate::policy::resolve::{PartlyResolved, ResolveError, resolve};
use crate::telephony::{Moment, QueueSet};

/// The policy that was there when the questions began to be answered. It is let go with the last of them: whoever keeps
/// a batch keeps a policy.
#[derive(Debug)]
pub struct Batch<'g> {
    gate: &'g Gate,
    policy: Guard<Arc<Policy>>,
}

impl<'g> Batch<'g> {
    pub(super) fn of(gate: &'g Gate) -> Self {
        Self { gate, policy: gate.policy.load() }
    }

    /// Brings what these events will be judged by into the processor's caches, for all of them at once. Nothing depends
    /// on it but the time that they take.
    pub fn fetch<'e, 'buf: 'e>(&self, events: impl Iterator<Item = &'e Event<'buf>>) {
        prefetch(&self.policy, events);
    }

    /// As [`Gate::ask`], for a question whose origin is known: the audit log tells of it even if it changed nothing.
    pub fn ask<R>(
        &mut self,
        origin: &Origin<'_>,
        event: &Event<'_>,
        now: Moment,
        scratch: &mut QueueSet,
        answer: impl FnOnce(Outcome<'_>, Option<Arc<CommitGroup>>) -> R,
    ) -> R {
        let gate = self.gate;
        for _ in 0..JUDGE_AGAIN_MAX {
            let policy = &*self.policy;
            let asked = Asked { policy, event, origin };
            if let Request::Action(name) = event.request
                && let Some(report) = Report::named(&name)
            {
                let (decided, group) = gate.take_down(&asked, report, now);
                return answer(Outcome::Decided(decided), group);
            }
            let resolved = resolve(policy, event, gate.call_of(policy, event, now));
            let question = match &resolved {
                Ok(question) => question,
                Err(ResolveError::Denied { reason, known }) => {
                    let (denied, group) = gate.deny_early(&asked, *reason, *known);
                    return answer(Outcome::Decided(denied), group);
                }
                Err(ResolveError::Faulty(error)) => return answer(Outcome::Faulty(*error), None),
            };
            let settled = match question.subject() {
                None => {
                    let judgement = decide(question, &NoSessions, scratch);
                    Settled::plain(judgement, gate.grant_of(question, &judgement, &NoSessions, scratch))
                }
                Some(subject) => {
                    let Some(mut table) = gate.shared.tables.lock(question.organization.id) else { break };
                    // A reload overtook this question between its policy and its lock: it is judged by the new one.
                    if table.revision() > policy.revision {
                        drop(table);
                        self.policy = gate.policy.load();
                        continue;
                    }
                    if table.revision() < policy.revision {
                        let organization = policy.shared(&*question.organization.name);
                        gate.reconcile(&mut table, question.organization.id, organization.as_ref(), policy.revision);
                    }
                    gate.judge_and_apply(&asked, question, subject, &mut table, now, scratch)
                }
            };
            let decided = answer_of(policy, question, &settled.judgement, scratch);
            if !settled.in_ledger {
                gate.note_plain(&asked, &decided, &Basis::of(question, settled.judgement.action, settled.grant));
            }
            return answer(Outcome::Decided(decided), settled.group);
        }
        gate.note_denial(event, origin, DenyReason::Overload);
        answer(Outcome::Decided(denied_early(&self.policy, DenyReason::Overload, PartlyResolved::default())), None)
    }
}
