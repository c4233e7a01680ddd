//! The reasons of answers and errors, and what an operator does about a denial.

use crate::cli::topics::{Table, code};
use crate::decision::{AllowReason, DenyReason, ErrorReason};

pub(super) fn allow() -> Table {
    let rows = AllowReason::ALL.iter().map(|reason| vec![code(reason.code()), reason.sentence().to_owned()]);
    Table::new("Reasons to allow", &["Reason", "Meaning"], rows)
}

pub(super) fn deny() -> Table {
    let row = |reason: &DenyReason| vec![code(reason.code()), reason.sentence().to_owned(), remedy(*reason).to_owned()];
    Table::new("Reasons to deny", &["Reason", "Meaning", "To do"], DenyReason::ALL.iter().map(row))
}

pub(super) fn error() -> Table {
    let rows = ErrorReason::ALL.iter().map(|reason| vec![code(reason.code()), reason.sentence().to_owned()]);
    Table::new("Reasons of errors: no decision was made", &["Reason", "Meaning"], rows)
}

/// The change by an operator after which the same question is allowed.
const fn remedy(reason: DenyReason) -> &'static str {
    match reason {
        DenyReason::AgentRoleRequired => "Give the user the role `agent`, or let the user ask by phone.",
        DenyReason::CallMismatch => "Correct the peer: it reported the call with another user or queue.",
        DenyReason::EditorFlagMissing => "Add the queue to the supervisor's `edits`.",
        DenyReason::Internal => "Look for the error in the log and at `queuewarden_panics_total`; report it.",
        DenyReason::LoggedInElsewhere => {
            "Log the user out of the other queue first, or set `one_queue_at_a_time = false`."
        }
        DenyReason::MissingAttribute => "Correct the peer: `needs` of the action in the role model lists the keys.",
        DenyReason::NoAssignedQueue => "Add a queue to the user's `queues`.",
        DenyReason::NoQueueContext => "Let the peer name the queue of the call with the key `queue`.",
        DenyReason::NotLoggedIn => "Nothing: the user is already logged out.",
        DenyReason::NotSupervising => "Nothing: the supervision has already ended.",
        DenyReason::ObjectInUse => "Take the object out of use first.",
        DenyReason::OrganizationLoginsAtLimit => "Raise `logins_max`, or log a user out.",
        DenyReason::OrganizationNotYours => {
            "Correct the peer, or add the organization to the `organizations` of its entry in `[[peers]]`, and `ask` to its \
             `rights`; `queuewarden peers` shows which entry the peer is."
        }
        DenyReason::OutsideShift => {
            "Log in when the next shift begins, which `queuewarden explain` names, or change the `[[shifts]]` of the queue."
        }
        DenyReason::Overload => {
            "Ask again later. See `queuewarden top` and the log: a Kamailio that reads its answers too slowly, 4 \
             reloads during one question, a full table of reported calls, or too many supervisions in the organization."
        }
        DenyReason::PermissionOff => "Turn on the setting that `queuewarden explain` names.",
        DenyReason::QueueLoginsAtLimit => "Raise `logins_per_queue_max`, or log a user out of the queue.",
        DenyReason::QueueOutOfScope => {
            "Add the queue to the supervisor's `supervises`, or set `limit_to_assigned_queues = false`."
        }
        DenyReason::RoleForbids => "Give the actor a role that `queuewarden explain` names.",
        DenyReason::SelfTarget => "Nothing: a user cannot do this to themselves.",
        DenyReason::StateUnavailable => {
            "Free or repair the disk of the state folder or, if set, of `[audit] folder`. queuewarden tries again \
             every half second."
        }
        DenyReason::SupervisorRoleRequired => "Give the actor the role `supervisor`.",
        DenyReason::SupervisorSupervisionsAtLimit => "End a supervision, or raise `supervisions_per_supervisor_max`.",
        DenyReason::TargetOutOfScope => {
            "Add the target to a group that the actor leads, or do as `explain` says. A code with `{target}` for an \
             action on oneself: dial one's own extension."
        }
        DenyReason::TargetProtected => {
            "Set `protected = false` for the target or `supervisable = true` for the queue, or turn on `supervise_peers`. \
             If the target also serves a queue with `supervisable = false`, name the queue or the call."
        }
        DenyReason::TargetSupervisionsAtLimit => "End a supervision, or raise `supervisions_per_target_max`.",
        DenyReason::TooLate => {
            "Compare the clocks of the PBX and of the sidecar; see `queuewarden_peer_clock_offsets_total`, and whether \
             the disk or the machine was slow."
        }
        DenyReason::UnassignedBarred => {
            "Add the queue to the user's `queues`, or let a supervisor log the user in (`agent.login`)."
        }
        DenyReason::UnknownAction => "Correct the peer, or add the action to the role model.",
        DenyReason::UnknownCall => {
            "Let the PBX report the call with `call.begin`, or let the peer name the target beside the call."
        }
        DenyReason::UnknownFeatureCode => "Add the code to `[feature_codes]`, or correct the dialplan.",
        DenyReason::UnknownGroup => "Correct the peer, or add the group.",
        DenyReason::UnknownOrganization => "Correct the peer, or add the organization.",
        DenyReason::UnknownQueue => "Correct the number, or add the queue.",
        DenyReason::UnknownTarget => "Correct the extension, or add the user.",
        DenyReason::UnknownUser => "Correct the endpoint's `accountcode`, or add the user.",
        DenyReason::UserLoginsAtLimit => "Raise `logins_per_user_max`, or log the user out of another queue.",
        DenyReason::WrapupNotConfigured => "Give the queue `wrap_up_seconds`.",
        DenyReason::WrongKind => "Ask about a queue of a kind that the action is for.",
    }
}
