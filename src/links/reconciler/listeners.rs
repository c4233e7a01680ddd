//! Channels that listen to others: what the PBX says of them, compared with the supervisions.

use std::time::Duration;

use tokio::time::Instant;

use crate::config::links::SupervisionsMode;
use crate::limits::HANG_UPS_UNSAID_MAX;
use crate::links::pbx_connection::{ActionOutcome, LinkError, PbxConnection};
use crate::links::reconciler::Reconciler;
use crate::links::reconciler::beliefs::Beliefs;
use crate::links::supervisions::{Listener, ListenerFinding, hang_up_check_pause};

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
            for listener in self.memory.listeners.violations_to_hang_up(now) {
                self.hang_up(&listener).await?;
            }
        }
        if let Some(at) = self.memory.listeners.next_violation_look() {
            self.check_hang_ups_in(Duration::from_millis(at.0.saturating_sub(now.0)));
        }
        self.hang_up_revoked().await
    }

    /// Looks at the listeners after this time, or earlier if that was planned.
    fn check_hang_ups_in(&mut self, pause: Duration) {
        let at = Instant::now() + pause;
        self.hang_up_checked_at = Some(self.hang_up_checked_at.map_or(at, |planned| planned.min(at)));
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
            if self.hang_up(&listener).await? != ActionOutcome::Done {
                self.memory.listeners.forget(&listener.channel);
            }
        }
        Ok(())
    }

    async fn hang_up(&mut self, listener: &Listener) -> Result<ActionOutcome, LinkError> {
        let outcome = self.connection.hang_up(&listener.channel).await?;
        if outcome == ActionOutcome::Done {
            let hang_ups = self.memory.listeners.hung_up(&listener.channel, self.beliefs.now());
            // Asterisk 16 forgets the hang-up of a channel that takes over a call at that moment.
            self.check_hang_ups_in(hang_up_check_pause(hang_ups));
            if hang_ups == HANG_UPS_UNSAID_MAX + 1 {
                self.status.survives(&listener.channel);
            }
        }
        self.status.hung_up(&listener.channel, Some(listener), outcome);
        Ok(outcome)
    }
}
