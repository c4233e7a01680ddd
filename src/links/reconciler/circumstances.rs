//! What the judgement of one member depends on, and the pass over one queue.

use std::collections::BTreeMap;

use crate::links::command::PollKind;
use crate::links::members::bounds::UndoShare;
use crate::links::members::judge::Circumstances;
use crate::links::members::pass::{PolledQueue, QueuePass, pass};
use crate::links::members::{Belief, MemberKey};
use crate::links::pbx_connection::PbxConnection;
use crate::links::reconciler::Reconciler;
use crate::links::reconciler::beliefs::{Beliefs, MemberBelief};

impl<C: PbxConnection, B: Beliefs> Reconciler<'_, C, B> {
    pub(super) fn pass(&mut self, kind: PollKind, queue: &str, polled: &PolledQueue) -> QueuePass {
        let beliefs = self.beliefs.of_queue(queue);
        let mut known = BTreeMap::new();
        for extension in polled.members.keys().chain(beliefs.keys()) {
            if !known.contains_key(extension) {
                known.insert(extension.clone(), self.beliefs.of(&MemberKey::new(queue, extension)));
            }
        }
        for (extension, known) in known.iter().filter(|_| !kind.is_trial(self.terms.members)) {
            self.plan_later_judgement(&MemberKey::new(queue, extension), known);
        }
        let beliefs = known.iter().map(|(extension, known)| (extension.clone(), known.belief.clone())).collect();
        let circumstances = |extension: &str| {
            known.get(extension).map_or(self.circumstances_of_nobody(kind), |known| self.circumstances(kind, known))
        };
        let resumed = kind == PollKind::Resume;
        pass(polled, &beliefs, circumstances, self.terms.bounds, UndoShare::default(), resumed)
    }

    pub(super) fn circumstances_of_nobody(&self, kind: PollKind) -> Circumstances<'_> {
        let (has_queue, may_log_in, is_changing, is_absent_elsewhere, adds) = (false, false, true, false, false);
        let belief = Belief::Nothing;
        let nobody = MemberBelief { belief, has_queue, may_log_in, is_changing, is_absent_elsewhere, adds };
        self.circumstances(kind, &nobody)
    }

    pub(super) fn circumstances(&self, kind: PollKind, known: &MemberBelief) -> Circumstances<'_> {
        let is_adopting = kind == PollKind::Adopt;
        Circumstances {
            link: &self.terms.name,
            start: self.start.as_ref(),
            mode: kind.mode(self.terms.members),
            adopts: self.terms.adopts || is_adopting,
            adopts_in_any_mode: is_adopting,
            may_log_in: known.may_log_in,
            is_changing: known.is_changing,
            adds: known.adds,
            is_absent_elsewhere: known.is_absent_elsewhere,
            now: self.beliefs.now(),
        }
    }
}
