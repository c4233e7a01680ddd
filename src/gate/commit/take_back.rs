//! Reverts in memory what could not be written, the last change first, and refuses it.
//!
//! A login session that was changed again meanwhile keeps the later change only if that one is reverted first, so the
//! order matters. The audit log gets the true answer: `refused` where the record of the decision is in the log already,
//! otherwise a decision with the reason `state_unavailable`. These records wait in the audit buffer until the log can
//! be written. A change that happens whether the disk works or not is published at once.

use std::collections::HashSet;
use std::sync::Arc;

use crate::audit::record::{About, AuditRecord, DecisionId};
use crate::decision::{DenyReason, Reason};
use crate::gate::commit::group::{CommitGroup, DirtyUser, GroupedChange, PendingChange, Undo};
use crate::gate::state::GateState;
use crate::sessions::table::AlteredSession;

/// Reverts a group whose audit records are in the log, but whose sessions the store could not write, and the changes
/// for the store that were queued after it.
pub(super) fn after_store_failure(state: &GateState, group: &CommitGroup) {
    let later = state.commit_queue.store_failed(group);
    let stored = || group.changes.iter().filter(|grouped| grouped.is_for_store);
    revert(state, stored().chain(&later.changes));
    for grouped in stored() {
        if matches!(grouped.change.undo, Undo::Irrevocable) {
            state.publish(&grouped.change);
            continue;
        }
        // The records of a restored backup have one number: that of the restore.
        let numbered = group.records_of(grouped).filter(|record| record.id.number > 0);
        numbered.for_each(|record| note_refused(state, record.id));
    }
    later.changes.iter().for_each(|grouped| refuse_unlogged(state, &later, grouped));
    state.commit_queue.refused();
}

/// Reverts a group that the audit log could not write, and every change that was queued after it.
pub(super) fn after_audit_failure(state: &GateState, group: &CommitGroup) {
    let later = state.commit_queue.audit_failed(group);
    revert(state, group.changes.iter().chain(&later.changes));
    for group in [group, &later] {
        group.changes.iter().for_each(|grouped| refuse_unlogged(state, group, grouped));
    }
    state.commit_queue.refused();
}

fn revert<'c>(state: &GateState, changes: impl DoubleEndedIterator<Item = &'c GroupedChange>) {
    changes.rev().for_each(|grouped| undo(state, &grouped.change));
}

/// Records that the decision with this number, which is in the log, was refused in the end.
fn note_refused(state: &GateState, decision: DecisionId) {
    let reason = Some(DenyReason::StateUnavailable.code());
    state.note_packed(&AuditRecord { of: decision, reason, ..AuditRecord::about(About::Refused) }.packed());
}

/// Records the denial in place of the decision of a change whose records are not in the log.
fn refuse_unlogged(state: &GateState, group: &CommitGroup, grouped: &GroupedChange) {
    if matches!(grouped.change.undo, Undo::Irrevocable) {
        state.note_packed(group.packed_records_of(grouped));
        return state.publish(&grouped.change);
    }
    let reason = Reason::Deny(DenyReason::StateUnavailable);
    let (verdict, reason) = (Some(reason.verdict()), Some(reason.code()));
    for record in group.records_of(grouped).filter(|record| record.event == About::Decision.name()) {
        state.note_packed(&AuditRecord { verdict, reason, mode: None, ..record }.packed());
    }
}

fn undo(state: &GateState, change: &PendingChange) {
    let Some(mut table) = state.tables.lock(change.organization) else { return };
    match &change.undo {
        Undo::Irrevocable | Undo::AnswerOnly => {}
        Undo::Offer(fate) => {
            let _claimed = fate.claim_late();
        }
        Undo::Sessions(altered) => {
            // A reload may have removed the user meanwhile, and given the id to another user.
            let is_same_user = change.dirty_users.first().is_some_and(|dirty| {
                table.organization().is_none_or(|organization| DirtyUser::new(organization, dirty.user) == *dirty)
            });
            if is_same_user {
                table.undo(altered);
            }
        }
        Undo::Restore { altered, leaving, supervisions } => {
            let Some(organization) = table.organization().map(Arc::clone) else { return };
            let known: HashSet<&[u8]> = change.dirty_users.iter().map(|dirty| &*dirty.key).collect();
            let is_same_user =
                |altered: &&AlteredSession| known.contains(&*DirtyUser::new(&organization, altered.user).key);
            table.undo(&altered.iter().filter(is_same_user).cloned().collect::<Vec<_>>());
            for began in supervisions {
                table.supervisions.undo(Some(began), &[], |_| true);
            }
            for (user, key) in leaving {
                table.linked_mut().forget_leaving(user, key);
            }
        }
        Undo::Supervisions { began, ended } => {
            let organization = table.organization().map(Arc::clone);
            let is_known =
                |user| organization.as_ref().is_none_or(|organization| organization.directory.user(user).is_some());
            table.supervisions.undo(began.as_deref(), ended, is_known);
        }
    }
}
