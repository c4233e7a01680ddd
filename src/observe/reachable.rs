//! Which reasons each action can have: what `decisions_total` exports at zero from the start.
//!
//! Dashboards and alerts need a series before its first event, and no series for what cannot happen. A pair that
//! happens and is not listed here, say by a role model of an operator's own, is counted all the same.

#![allow(clippy::enum_glob_use, reason = "a table of nothing but variants reads best without their type")]

use crate::decision::ActionLabel::{self, *};
use crate::decision::AllowReason::*;
use crate::decision::DenyReason::*;
use crate::decision::Reason;

/// The reasons that an action can have.
#[must_use]
#[expect(clippy::too_many_lines, reason = "a table")]
pub fn reasons_of(action: ActionLabel) -> Vec<Reason> {
    let allow: &[_] = match action {
        QueueLogin => &[Assigned, UnassignedAllowed, AlreadyLoggedIn],
        QueueLogout => &[LoggedOut],
        QueueToggle => &[],
        QueuePause | AgentPause => &[Paused],
        QueueResume | AgentResume => &[Resumed],
        AgentLogin => &[SupervisorLogin, AlreadyLoggedIn],
        AgentLogout => &[SupervisorLogout],
        AgentMove | AgentEndWrapup | CallListen | CallWhisper | CallBarge | CallJoin | CallReplace | CallWatch
        | CallOutbound | CallDirectIn | ConversationView | DispositionSet | Control => &[RolePermits],
    };
    let deny: &[_] = match action {
        QueueLogin => &[
            AgentRoleRequired,
            RoleForbids,
            UnassignedBarred,
            NoAssignedQueue,
            UserLoginsAtLimit,
            QueueLoginsAtLimit,
            OrganizationLoginsAtLimit,
            UnknownUser,
            UnknownQueue,
        ],
        QueueLogout => &[NotLoggedIn, UnknownUser, UnknownQueue],
        QueueToggle => &[UnknownUser, UnknownQueue],
        QueuePause | QueueResume => &[AgentRoleRequired, RoleForbids, NotLoggedIn, UnknownUser, UnknownQueue],
        AgentLogin => &[
            SupervisorRoleRequired,
            RoleForbids,
            PermissionOff,
            SelfTarget,
            QueueOutOfScope,
            TargetOutOfScope,
            EditorFlagMissing,
            UserLoginsAtLimit,
            QueueLoginsAtLimit,
            OrganizationLoginsAtLimit,
            MissingAttribute,
            UnknownUser,
            UnknownQueue,
            UnknownTarget,
        ],
        AgentLogout | AgentPause | AgentResume => &[
            SupervisorRoleRequired,
            RoleForbids,
            PermissionOff,
            SelfTarget,
            QueueOutOfScope,
            TargetOutOfScope,
            EditorFlagMissing,
            NotLoggedIn,
            MissingAttribute,
            UnknownUser,
            UnknownQueue,
            UnknownTarget,
        ],
        AgentEndWrapup => &[
            SupervisorRoleRequired,
            PermissionOff,
            SelfTarget,
            QueueOutOfScope,
            MissingAttribute,
            UnknownUser,
            UnknownQueue,
            UnknownTarget,
        ],
        CallListen | CallBarge | CallJoin | CallReplace | CallWatch => &[
            SupervisorRoleRequired,
            RoleForbids,
            PermissionOff,
            SelfTarget,
            NoQueueContext,
            QueueOutOfScope,
            TargetOutOfScope,
            TargetProtected,
            MissingAttribute,
            UnknownUser,
            UnknownQueue,
            UnknownTarget,
            UnknownCall,
        ],
        CallWhisper => &[
            SupervisorRoleRequired,
            PermissionOff,
            SelfTarget,
            NoQueueContext,
            QueueOutOfScope,
            TargetProtected,
            MissingAttribute,
            UnknownUser,
            UnknownQueue,
            UnknownTarget,
            UnknownCall,
        ],
        CallOutbound => &[AgentRoleRequired, RoleForbids, PermissionOff, UnknownUser],
        CallDirectIn => &[AgentRoleRequired, UnknownUser],
        AgentMove => &[
            RoleForbids,
            SelfTarget,
            TargetOutOfScope,
            EditorFlagMissing,
            MissingAttribute,
            UnknownUser,
            UnknownQueue,
            UnknownTarget,
        ],
        ConversationView => &[
            RoleForbids,
            SelfTarget,
            TargetOutOfScope,
            TargetProtected,
            MissingAttribute,
            UnknownUser,
            UnknownQueue,
            UnknownTarget,
        ],
        DispositionSet => &[
            AgentRoleRequired,
            PermissionOff,
            NoQueueContext,
            WrapupNotConfigured,
            WrongKind,
            UnknownUser,
            UnknownQueue,
        ],
        Control => &[
            RoleForbids,
            PermissionOff,
            NoQueueContext,
            QueueOutOfScope,
            TargetOutOfScope,
            ObjectInUse,
            WrongKind,
            MissingAttribute,
            UnknownUser,
            UnknownQueue,
            UnknownTarget,
            UnknownGroup,
            UnknownOrganization,
            UnknownAction,
            UnknownFeatureCode,
            Overload,
            Internal,
        ],
    };
    allow.iter().map(|&reason| Reason::Allow(reason)).chain(deny.iter().map(|&reason| Reason::Deny(reason))).collect()
}
