//! What the reconciler asks of the login sessions of an organization, and what it tells them. [`GateBeliefs`] are the
//! sessions in the gate; the fuzz target of the reconciler has its own.
//!
//! [`GateBeliefs`]: crate::links::gate_beliefs::GateBeliefs

use std::collections::BTreeMap;

use crate::links::members::judge::Step;
use crate::links::members::pass::PolledQueue;
use crate::links::members::{Belief, MemberKey};
use crate::links::supervisions::{AllowedSupervision, HeardCall, Listener};
use crate::telephony::UnixMillis;

/// What the sidecar knows of one member, and may do.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, each read by one branch of the judgement")]
pub struct MemberBelief {
    /// What the sidecar knows.
    pub belief: Belief,
    /// Whether the organization has the queue.
    pub has_queue: bool,
    /// Whether the user of the member may log in to the queue now.
    pub may_log_in: bool,
    /// Whether a change of the user's sessions is less than [`crate::limits::MEMBER_CHANGE_PENDING_MAX`] old.
    pub is_changing: bool,
    /// Whether every other link of the organization has seen that the member is not there.
    pub is_absent_elsewhere: bool,
    /// Whether this link adds the members of sessions that no phone made.
    pub adds: bool,
}

/// What changed in the login sessions or supervisions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BeliefChange {
    /// The session of this member.
    Member(MemberKey),
    /// Changes were missed: any session.
    Missed,
    /// Some session or supervision: the supervisions are to be compared again.
    Any,
}

/// The login sessions of one organization, as one of its links sees and changes them.
pub trait Beliefs: Send {
    /// The numbers of the organization's queues.
    fn queues(&self) -> Vec<Box<str>>;
    /// The sessions of a queue, and the ended ones whose members this link has not seen gone.
    fn of_queue(&mut self, queue: &str) -> BTreeMap<Box<str>, Belief>;
    /// The members of ended sessions that this link has not seen gone.
    fn leaving(&self) -> Vec<MemberKey>;
    /// What the sidecar knows of one member.
    fn of(&mut self, key: &MemberKey) -> MemberBelief;
    /// Takes note of a step that concerns the sessions. Returns whether the sessions took it.
    fn note(&mut self, key: &MemberKey, step: &Step) -> bool;
    /// Tells the other links of the organization which members a queue of this PBX has. `None`: it lacks the queue.
    fn saw_queue(&self, queue: &str, members: Option<&PolledQueue>);
    /// Tells the other links whether this PBX has the member.
    fn saw_member(&self, key: &MemberKey, is_there: bool);
    /// The supervisions that are allowed.
    fn supervisions(&self) -> Vec<AllowedSupervision>;
    /// The supervisions that a reload or an operator ended shortly after they were allowed.
    fn withdrawn_supervisions(&self) -> Vec<AllowedSupervision> {
        vec![]
    }
    /// Begins a supervision for a channel that listened before the sidecar started, if its user may listen today.
    fn adopt_listener(&self, listener: &Listener, heard: &HeardCall) -> bool;
    /// Ends a supervision whose channel no longer listens.
    fn end_supervision(&self, number: u64);
    /// The SIP domains of the organization. Empty: every user of the PBX may be of the organization.
    fn domains(&self) -> Vec<Box<str>> {
        vec![]
    }
    /// The channels of agents whose calls this link has reported.
    fn linked_calls(&self) -> Vec<Box<str>> {
        vec![]
    }
    /// The channel of this agent has a call of this queue.
    fn begin_call(&self, _key: &MemberKey, _channel: &str) {}
    /// The call of this channel is over.
    fn end_call(&self, _channel: &str) {}
    /// Takes note of a channel that listens and that nobody allowed.
    fn note_violation(&self, listener: &Listener);
    /// Takes note that a channel listens for the supervision with this number.
    fn confirm_supervision(&self, _number: u64) {}
    /// Takes note that the link removed the member of an ended session.
    fn note_removed(&self, _key: &MemberKey) {}
    /// Waits for the next change of a session or a supervision. Cancel-safe.
    fn changed(&mut self) -> impl Future<Output = BeliefChange> + Send;
    /// The time.
    fn now(&self) -> UnixMillis;
}
