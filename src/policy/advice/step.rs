//! One step of a proposed change: how it alters a draft, and the sentence that an operator reads.

use crate::decision::DenyReason;
use crate::event::Key;
use crate::limits::ID_BYTES_MAX;
use crate::policy::Limits;
use crate::policy::advice::draft::{Draft, DraftGroup, DraftUser, queue_id};
use crate::policy::directory::{Group, Queue};
use crate::policy::model::RoleSet;
use crate::telephony::{Ground, LoginSession, Origin, QueueKind, UnixSeconds, is_number};

/// Seconds of wrap-up that a proposal sets.
const PROPOSED_WRAP_UP_SECONDS: u32 = 30;

/// One change of an organization's file, of the question, or of who is logged in. Users, queues and groups are
/// positions in the draft; roles and settings are positions in the role model.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Step {
    /// Gives the user the role. Where the model admits one role for each user, the role replaces the user's own.
    GiveRole { user: usize, role: usize },
    /// Sets a setting.
    Switch { setting: usize, on: bool },
    /// Adds the queue to the queues that the user serves.
    Serve { user: usize, queue: usize },
    /// Adds the queue to the queues that the user supervises.
    Supervise { user: usize, queue: usize },
    /// Gives the user the editor flag on a queue that the user supervises.
    Edit { user: usize, queue: usize },
    /// Adds the user to the members of the group.
    Join { group: usize, user: usize },
    /// Adds the user to the supervisors of the group.
    Lead { group: usize, user: usize },
    /// Allows, forbids or (`None`) leaves open outbound calls of the group.
    Outbound { group: usize, allowed: Option<bool> },
    /// Ends the protection of the user.
    Unprotect { user: usize },
    /// Opens the queue to supervision.
    Open { queue: usize },
    /// Gives the queue a wrap-up time.
    WrapUp { queue: usize },
    /// Makes the queue a callback queue.
    Callback { queue: usize },
    /// Raises the limit that this reason names by one.
    Raise { limit: DenyReason },
    /// Adds a user with this extension or id.
    AddUser { name: Box<str> },
    /// Adds a call queue with this number or id.
    AddQueue { name: Box<str> },
    /// Adds a group with this id.
    AddGroup { name: Box<str> },
    /// Asks with this value of the key.
    Name { key: Key, value: Box<str> },
    /// Logs the subject in to the queue.
    LogIn { queue: usize },
}

impl Step {
    /// Alters the draft. False: the step changes nothing, or the draft has no such entry.
    pub(super) fn apply(&self, draft: &mut Draft<'_>) -> bool {
        self.applied(draft).unwrap_or(false)
    }

    fn applied(&self, draft: &mut Draft<'_>) -> Option<bool> {
        Some(match *self {
            Self::GiveRole { user, role } => {
                let is_only = draft.base.model.roles_per_user_max == 1;
                let roles = &mut draft.users.get_mut(user)?.roles;
                let had = roles.has(role);
                *roles = if is_only { RoleSet::default().with(role) } else { roles.with(role) };
                !had
            }
            Self::Switch { setting, on } => {
                let was_on = draft.settings.has(setting);
                draft.settings = draft.settings.switched(setting, on);
                was_on != on
            }
            Self::Serve { user, queue } => insert(&mut draft.users.get_mut(user)?.served, queue),
            Self::Supervise { user, queue } => {
                let supervised = &mut draft.users.get_mut(user)?.supervised;
                let is_new = !supervised.iter().any(|&(known, _)| known == queue);
                if is_new {
                    supervised.push((queue, false));
                }
                is_new
            }
            Self::Edit { user, queue } => {
                let supervised = &mut draft.users.get_mut(user)?.supervised;
                let entry = supervised.iter_mut().find(|(known, edits)| *known == queue && !edits)?;
                entry.1 = true;
                true
            }
            Self::Join { group, user } => insert(&mut draft.groups.get_mut(group)?.members, user),
            Self::Lead { group, user } => insert(&mut draft.groups.get_mut(group)?.leaders, user),
            Self::Outbound { group, allowed } => {
                let outbound = &mut draft.groups.get_mut(group)?.group.outbound;
                std::mem::replace(outbound, allowed) != allowed
            }
            Self::Unprotect { user } => std::mem::take(&mut draft.users.get_mut(user)?.is_protected),
            Self::Open { queue } => !std::mem::replace(&mut draft.queues.get_mut(queue)?.supervisable, true),
            Self::WrapUp { queue } => {
                let seconds = &mut draft.queues.get_mut(queue)?.wrap_up_seconds;
                std::mem::replace(seconds, PROPOSED_WRAP_UP_SECONDS) == 0
            }
            Self::Callback { queue } => !std::mem::replace(&mut draft.queues.get_mut(queue)?.callback, true),
            Self::Raise { limit } => raise(draft, limit)?,
            Self::AddUser { ref name } if is_id(name) => {
                draft.users.push(new_user(draft, name)?);
                true
            }
            Self::AddQueue { ref name } if is_id(name) => {
                draft.queues.push(new_queue(draft, name));
                true
            }
            Self::AddGroup { ref name } if is_id(name) => {
                let group = Group { id: name.clone(), outbound: None };
                draft.groups.push(DraftGroup { group, leaders: vec![], members: vec![] });
                true
            }
            Self::AddUser { .. } | Self::AddQueue { .. } | Self::AddGroup { .. } => false,
            Self::Name { key, ref value } => {
                let is_new = !draft.named.iter().any(|(known, _)| *known == key);
                draft.named.push((key, value.clone()));
                is_new
            }
            Self::LogIn { queue } => {
                let queue = queue_id(queue)?;
                draft.sessions.begin(LoginSession {
                    queue,
                    ground: Ground::Assigned,
                    paused: false,
                    since: UnixSeconds(0),
                    by: None,
                    ends: None,
                    origin: Origin::Phone,
                });
                true
            }
        })
    }

    /// The sentence that an operator reads. `draft` is the draft before the step; `subject` is the user whose login
    /// sessions the question is about.
    pub(super) fn sentence(&self, draft: &Draft<'_>, subject: &str) -> String {
        let user = |user: usize| draft.users.get(user).map_or("", |user| &user.id);
        let queue = |queue: usize| draft.queues.get(queue).map_or("", |queue| &queue.number);
        let group = |group: usize| draft.groups.get(group).map_or("", |group| &group.group.id);
        let model = &draft.base.model;
        let role = |role: usize| model.roles.get(role).map_or("", |role| &role.name);
        match *self {
            Self::GiveRole { user: person, role: given } => {
                let before = draft.users.get(person).map(|user| user.roles).unwrap_or_default();
                let replaced = before.positions().map(role).next().filter(|_| model.roles_per_user_max == 1);
                let instead = replaced.map_or(String::new(), |before| format!(" instead of `{before}`"));
                format!("give {} the role `{}`{instead}", user(person), role(given))
            }
            Self::Switch { setting, on } => {
                let name = model.settings.get(setting).map_or("", |setting| &setting.name);
                format!("set `{name} = {on}` in the settings of organization `{}`", draft.base.name)
            }
            Self::Serve { user: person, queue: served } => {
                format!("add queue {} to the queues of {}", queue(served), user(person))
            }
            Self::Supervise { user: person, queue: supervised } => {
                format!("add queue {} to what {} supervises", queue(supervised), user(person))
            }
            Self::Edit { user: person, queue: edited } => {
                format!("add queue {} to what {} edits", queue(edited), user(person))
            }
            Self::Join { group: joined, user: person } => format!("add {} to group `{}`", user(person), group(joined)),
            Self::Lead { group: led, user: person } => {
                format!("make {} a supervisor of group `{}`", user(person), group(led))
            }
            Self::Outbound { group: changed, allowed: Some(allowed) } => {
                format!("set `outbound = {allowed}` for group `{}`", group(changed))
            }
            Self::Outbound { group: changed, allowed: None } => {
                format!("remove `outbound` from group `{}`", group(changed))
            }
            Self::Unprotect { user: person } => format!("set protected = false for {}", user(person)),
            Self::Open { queue: changed } => format!("set `supervisable = true` for queue {}", queue(changed)),
            Self::WrapUp { queue: changed } => {
                format!("set `wrap_up_seconds = {PROPOSED_WRAP_UP_SECONDS}` for queue {}", queue(changed))
            }
            Self::Callback { queue: changed } => format!("set `callback = true` for queue {}", queue(changed)),
            Self::Raise { limit } => raise_sentence(draft, limit),
            Self::AddUser { ref name } => format!("add the user `{name}` to organization `{}`", draft.base.name),
            Self::AddQueue { ref name } => format!("add the queue `{name}` to organization `{}`", draft.base.name),
            Self::AddGroup { ref name } => format!("add the group `{name}` to organization `{}`", draft.base.name),
            Self::Name { key: Key::Via, ref value } => format!("ask by {value}"),
            Self::Name { key, ref value } => format!("name `{}={value}` in the event", key.name()),
            Self::LogIn { queue: here } => format!("log {subject} in to queue {} first", queue(here)),
        }
    }

    /// The users whose own rights the step can add to. `None`: those of every user.
    pub(super) const fn gains(&self) -> Option<usize> {
        match *self {
            Self::GiveRole { user, .. }
            | Self::Serve { user, .. }
            | Self::Supervise { user, .. }
            | Self::Edit { user, .. }
            | Self::Lead { user, .. } => Some(user),
            _ => None,
        }
    }

    /// Whether the step changes who has which rights. A login, a limit or another question does not.
    pub(super) const fn grants_rights(&self) -> bool {
        !matches!(self, Self::Raise { .. } | Self::Name { .. } | Self::LogIn { .. })
    }
}

/// Adds the position. False: it is in the list already.
fn insert(list: &mut Vec<usize>, position: usize) -> bool {
    let is_new = !list.contains(&position);
    if is_new {
        list.push(position);
    }
    is_new
}

fn raise(draft: &mut Draft<'_>, limit: DenyReason) -> Option<bool> {
    // The default of each limit is also its greatest value.
    let (limits, greatest) = (&mut draft.limits, Limits::default());
    let (raised, max) = match limit {
        DenyReason::UserLoginsAtLimit => (&mut limits.logins_per_user, greatest.logins_per_user),
        DenyReason::QueueLoginsAtLimit => (&mut limits.logins_per_queue, greatest.logins_per_queue),
        DenyReason::OrganizationLoginsAtLimit => (&mut limits.logins, greatest.logins),
        DenyReason::TargetSupervisionsAtLimit => {
            (&mut limits.supervisions_per_target, greatest.supervisions_per_target)
        }
        DenyReason::SupervisorSupervisionsAtLimit => {
            (&mut limits.supervisions_per_supervisor, greatest.supervisions_per_supervisor)
        }
        DenyReason::LoggedInElsewhere => return Some(std::mem::take(&mut limits.one_queue_at_a_time)),
        _ => return None,
    };
    *raised += 1;
    Some(*raised <= max)
}

fn raise_sentence(draft: &Draft<'_>, limit: DenyReason) -> String {
    let limits = &draft.limits;
    let (key, value) = match limit {
        DenyReason::UserLoginsAtLimit => ("logins_per_user_max", limits.logins_per_user),
        DenyReason::QueueLoginsAtLimit => ("logins_per_queue_max", limits.logins_per_queue),
        DenyReason::OrganizationLoginsAtLimit => ("logins_max", limits.logins),
        DenyReason::TargetSupervisionsAtLimit => ("supervisions_per_target_max", limits.supervisions_per_target),
        DenyReason::SupervisorSupervisionsAtLimit => {
            ("supervisions_per_supervisor_max", limits.supervisions_per_supervisor)
        }
        _ => return "set `one_queue_at_a_time = false`".to_owned(),
    };
    format!("raise `{key}` to {}", value + 1)
}

/// Whether a configuration can have the name as an id or a number; a value of the wire may also hold `*` and `#`.
fn is_id(name: &str) -> bool {
    name.len() <= ID_BYTES_MAX && !name.contains(['*', '#'])
}

/// A user without roles. `None`: every short extension is taken.
fn new_user(draft: &Draft<'_>, name: &str) -> Option<DraftUser> {
    let is_extension = is_number(name);
    let is_free = |text: &str| draft.base.directory.user_named(text).is_none();
    let free = (0..u32::MAX).map(|number| number.to_string()).find(|number| is_free(number))?;
    let (id, extension) = if is_extension { (format!("new-{name}"), name.to_owned()) } else { (name.to_owned(), free) };
    Some(DraftUser {
        id: id.into(),
        extension: extension.into(),
        roles: RoleSet::default(),
        is_protected: false,
        served: vec![],
        supervised: vec![],
    })
}

fn new_queue(draft: &Draft<'_>, name: &str) -> Queue {
    let is_dialed = is_number(name);
    let is_free = |text: &str| draft.base.directory.queue_named(text).is_none();
    let free = (0..=u32::MAX).map(|number| number.to_string()).find(|number| is_free(number)).unwrap_or_default();
    let (id, number) = if is_dialed { (format!("new-{name}"), name.to_owned()) } else { (name.to_owned(), free) };
    let (id, number) = (id.into(), number.into());
    Queue { id, number, kind: QueueKind::Call, wrap_up_seconds: 0, callback: false, supervisable: true }
}
