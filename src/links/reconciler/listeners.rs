//! Channels that listen to others: what the PBX says of them, compared with the supervisions.

use tokio::time::Instant;

use crate::config::links::SupervisionsMode;
use crate::limits::HANG_UP_CHECK_PAUSE;
use crate::links::pbx_connection::{ActionOutcome, LinkError, PbxConnection};
use crate::links::reconciler::Reconciler;
use crate::links::reconciler::beliefs::Beliefs;
use crate::links::supervisions::{Listener, ListenerFinding};

impl<C: PbxConnection, B: Beliefs> Reconciler<'_, C, B> {
    /// Asks who listens, and compares that with who may.
    pub(super) async fn look_at_listeners(&mut self) -> Result<(), LinkError> {
        if self.terms.supervisions == SupervisionsMode::Off {
            return Ok(());
        }
        self.connection.set_domains(self.beliefs.domains());
        let Some(listeners) = self.connection.listeners().await? else {
            self.status.cannot_see_listeners();
            return Ok(());
        };
        let (allowed, now) = (self.beliefs.supervisions(), self.beliefs.now());
        let is_first = self.status.looks_at_listeners_first(now);
        for finding in self.memory.listeners.polled(listeners, &allowed, now) {
            let listener = match finding {
                ListenerFinding::Allowed(number) => {
                    self.beliefs.confirm_supervision(number);
                    continue;
                }
                ListenerFinding::Violation(listener) => listener,
            };
            if self.is_withdrawn(&listener) {
                continue;
            }
            if is_first {
                let heard = self.connection.heard(&listener).await?;
                if heard.is_some_and(|heard| self.beliefs.adopt_listener(&listener, &heard)) {
                    let _found = self.memory.listeners.started(listener, &self.beliefs.supervisions(), now);
                    continue;
                }
            }
            self.note_violation(&listener);
        }
        if self.terms.supervisions == SupervisionsMode::Enforce {
            let violations: Vec<Listener> = self.memory.listeners.violations().cloned().collect();
            for listener in violations {
                self.hang_up(&listener).await?;
            }
        }
        self.hang_up_revoked().await
    }

    /// A channel listens to another.
    pub(super) async fn listener_started(&mut self, listener: Listener) -> Result<(), LinkError> {
        if self.terms.supervisions == SupervisionsMode::Off {
            return Ok(());
        }
        let found = self.memory.listeners.started(listener, &self.beliefs.supervisions(), self.beliefs.now());
        match found {
            None => {}
            Some(ListenerFinding::Allowed(number)) => self.beliefs.confirm_supervision(number),
            Some(ListenerFinding::Violation(listener)) if self.is_withdrawn(&listener) => {}
            Some(ListenerFinding::Violation(listener)) => {
                self.note_violation(&listener);
                if self.terms.supervisions == SupervisionsMode::Enforce {
                    self.hang_up(&listener).await?;
                }
            }
        }
        Ok(())
    }

    /// Whether the channel listens for a supervision that was ended here before the channel began: it is hung up soon.
    fn is_withdrawn(&mut self, listener: &Listener) -> bool {
        let (withdrawn, now) = (self.beliefs.withdrawn_supervisions(), self.beliefs.now());
        self.memory.listeners.is_withdrawn(listener, &withdrawn, now)
    }

    fn note_violation(&self, listener: &Listener) {
        self.beliefs.note_violation(listener);
        self.status.violation(listener);
    }

    /// Hangs up the channels whose supervisions were ended here, in every mode.
    pub(super) async fn hang_up_revoked(&mut self) -> Result<(), LinkError> {
        if self.memory.listeners.is_empty() {
            return Ok(());
        }
        for listener in self.memory.listeners.no_longer_allowed(&self.beliefs.supervisions(), self.beliefs.now()) {
            if self.hang_up(&listener).await? == ActionOutcome::Done {
                self.memory.listeners.hung_up(&listener.channel, self.beliefs.now());
            } else {
                self.memory.listeners.forget(&listener.channel);
            }
        }
        Ok(())
    }

    async fn hang_up(&mut self, listener: &Listener) -> Result<ActionOutcome, LinkError> {
        let outcome = self.connection.hang_up(&listener.channel).await?;
        if outcome == ActionOutcome::Done {
            // Asterisk 16 forgets the hang-up of a channel that takes over a call at that moment.
            self.hang_up_checked_at.get_or_insert(Instant::now() + HANG_UP_CHECK_PAUSE);
        }
        self.status.hung_up(&listener.channel, Some(listener), outcome);
        Ok(outcome)
    }
}
