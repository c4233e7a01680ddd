//! The calls of queues that a link sees, at a PBX that does not report them in questions (TRUTH 2).
//!
//! The id of such a call is the channel of its agent, as the shipped FreeSWITCH dialplan reports it: both reports of
//! one call are one call.

use crate::gate::change_feed::{Cause, Change};
use crate::gate::commit::group::DirtyUser;
use crate::gate::endings::Endings;
use crate::gate::linked::LinkedOrganization;
use crate::policy::resolve::ReportedCall;
use crate::sessions::linked_members::MemberKey;
use crate::sessions::supervisions::Supervision;
use crate::telephony::{Moment, Token};

impl LinkedOrganization<'_> {
    /// Begins the call of this agent from this queue. Returns whether the call is known now: it is not if the agent,
    /// the queue or the id of the call is unknown or not in the grammar, or if there is no room.
    #[must_use]
    pub fn begin_call(self, key: &MemberKey, call: &str, now: Moment) -> bool {
        let Some(mut locked) = self.lock() else { return false };
        let Some((agent, queue)) = locked.find(key).filter(|_| Token::parse_call(call).is_some()) else { return false };
        let reported = ReportedCall { agent, queue: Some(queue) };
        if locked.table.calls.get(call, now) == Some(reported) {
            return true;
        }
        let begins = locked.table.calls.begin(call, reported, now);
        if let Some(organization) = locked.organization.clone() {
            Endings::new(self.state).end_of_closed_calls(&mut locked.table, &organization);
        }
        begins
    }

    /// Ends a call, and with it the supervisions of the call.
    pub fn end_call(self, call: &str) {
        let Some(mut locked) = self.lock() else { return };
        let Some(organization) = locked.organization.clone() else { return };
        locked.table.calls.end(call);
        let is_of_call = |supervision: &Supervision| supervision.call.as_deref() == Some(call);
        let ended = locked.table.supervisions.end_all(is_of_call);
        if ended.is_empty() {
            return;
        }
        let changes: Vec<Change> =
            ended.iter().map(|old| Change::supervision_ended(&organization, old, Cause::Pbx)).collect();
        let audit = self.state.auditor().packed_endings(&changes, None);
        let supervisors = DirtyUser::supervisors_of(&organization, &ended);
        self.enqueue_supervision(supervisors, changes, audit);
    }
}
