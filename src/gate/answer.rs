//! The answer to a question, in the names of the policy that judged.

use crate::decision::{Answer, AnswerQueues, DenyReason};
use crate::policy::Policy;
use crate::policy::decide::{JudgedQueues, Judgement};
use crate::policy::directory::User;
use crate::policy::model::Effect;
use crate::policy::resolve::{PartlyResolved, Question};
use crate::telephony::QueueSet;

/// The answer to a question that [`crate::policy::decide`] judged. `queues` holds the queues of [`JudgedQueues::All`].
pub(super) fn judged<'a>(
    policy: &Policy,
    question: &Question<'a>,
    judgement: &Judgement<'a>,
    queues: &'a QueueSet,
) -> Answer<'a> {
    let directory = &question.organization.directory;
    let queues = match judgement.queues {
        JudgedQueues::Nothing => AnswerQueues::None,
        JudgedQueues::One(queue) => {
            directory.queue(queue).map_or(AnswerQueues::None, |queue| AnswerQueues::One(&queue.number))
        }
        JudgedQueues::All => AnswerQueues::All(queues.as_slice(), directory),
    };
    let mode = match judgement.action.effect {
        Effect::Supervise(mode) if judgement.decision.is_allowed() => Some(mode),
        _ => None,
    };
    Answer {
        reason: judgement.decision.reason(),
        action: Some(&judgement.action.name),
        label: judgement.action.label,
        queues,
        target: question.target.map(User::extension),
        mode,
        revision: policy.revision,
    }
}

/// The denial of an event that did not become a question, with the names that were found before.
pub(super) fn denied_early<'p>(policy: &Policy, reason: DenyReason, known: PartlyResolved<'p>) -> Answer<'p> {
    let queue =
        known.organization.zip(known.queue).and_then(|(organization, queue)| organization.directory.queue(queue));
    let denied = Answer::denied(reason, policy.revision);
    Answer {
        action: known.action.map(|action| &*action.name),
        label: known.action.map_or(denied.label, |action| action.label),
        queues: queue.map_or(AnswerQueues::None, |queue| AnswerQueues::One(&queue.number)),
        ..denied
    }
}
