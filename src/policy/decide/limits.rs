//! The limits on login sessions and supervisions: the last check before an allow.

use crate::decision::DenyReason;
use crate::limits::SUPERVISIONS_PER_ORGANIZATION_MAX;
use crate::policy::decide::SessionView;
use crate::policy::directory::User;
use crate::policy::resolve::Question;
use crate::telephony::QueueId;

/// A limit on login sessions or supervisions that is reached, in the order of checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::policy) enum ReachedLimit {
    OneQueue,
    LoginsOfUser,
    LoginsInQueue,
    Logins,
    SupervisionsOfTarget,
    SupervisionsBySupervisor,
    Supervisions,
}

impl ReachedLimit {
    /// The reason of the denial.
    pub(in crate::policy) const fn reason(self) -> DenyReason {
        match self {
            Self::OneQueue => DenyReason::LoggedInElsewhere,
            Self::LoginsOfUser => DenyReason::UserLoginsAtLimit,
            Self::LoginsInQueue => DenyReason::QueueLoginsAtLimit,
            Self::Logins => DenyReason::OrganizationLoginsAtLimit,
            Self::SupervisionsOfTarget => DenyReason::TargetSupervisionsAtLimit,
            Self::SupervisionsBySupervisor => DenyReason::SupervisorSupervisionsAtLimit,
            Self::Supervisions => DenyReason::Overload,
        }
    }
}

/// The limit that one more supervision would exceed. `None`: there is room.
pub(in crate::policy) fn supervision_limit(
    question: &Question<'_>,
    sessions: &impl SessionView,
) -> Option<ReachedLimit> {
    let limits = question.organization.limits;
    let running = sessions.supervisions(question.actor.id(), question.target.map(User::id));
    if running.of_target >= limits.supervisions_per_target {
        Some(ReachedLimit::SupervisionsOfTarget)
    } else if running.by_supervisor >= limits.supervisions_per_supervisor {
        Some(ReachedLimit::SupervisionsBySupervisor)
    } else if running.in_organization >= SUPERVISIONS_PER_ORGANIZATION_MAX {
        Some(ReachedLimit::Supervisions)
    } else {
        None
    }
}

/// The limit that one more login session would exceed. `None`: there is room.
pub(in crate::policy) fn login_limit(
    question: &Question<'_>,
    queue: QueueId,
    sessions: &impl SessionView,
    begun: usize,
) -> Option<ReachedLimit> {
    let limits = question.organization.limits;
    let of_user = sessions.of_subject().len().saturating_add(begun);
    if limits.one_queue_at_a_time && of_user > 0 {
        Some(ReachedLimit::OneQueue)
    } else if of_user >= limits.logins_per_user {
        Some(ReachedLimit::LoginsOfUser)
    } else if sessions.in_queue(queue) >= limits.logins_per_queue {
        Some(ReachedLimit::LoginsInQueue)
    } else if sessions.in_organization().saturating_add(begun) >= limits.logins {
        Some(ReachedLimit::Logins)
    } else {
        None
    }
}
