//! The directory of one organization: its queues, users and groups, as tables of its TOML file.
//!
//! [`crate::config::users_csv`] reads the users of a large organization from CSV through the same [`DirectoryReader`].

use std::cell::RefCell;
use std::collections::HashSet;

use thiserror::Error;

use crate::config::problem::{Problem, Problems};
use crate::config::reader::{Section, SpannedStr};
use crate::limits::{ID_BYTES_MAX, LEASE_SECONDS_MAX, NUMBER_DIGITS_MAX};
use crate::policy::directory::{DirectoryBuilder, Group, NewUser, Queue, User};
use crate::policy::model::{Model, RoleSet};
use crate::telephony::{QueueId, QueueKind, Token, UserId, is_number};

/// Why a text cannot be an id.
#[derive(Clone, Copy, Debug, Error)]
#[error("an id is 1 to {ID_BYTES_MAX} of A-Z a-z 0-9 _ - . : @ +")]
pub(super) struct IdError;

/// Why a text cannot be the number of a queue or an extension.
#[derive(Clone, Copy, Debug, Error)]
#[error("a number is 1 to {NUMBER_DIGITS_MAX} digits")]
pub(super) struct NumberError;

/// Checks that every dialect can carry this text as an id.
pub(super) fn check_id(text: &str) -> Result<(), IdError> {
    let is_dialed = |byte| matches!(byte, b'*' | b'#');
    let admitted =
        text.len() <= ID_BYTES_MAX && Token::parse(text.as_bytes()).is_some() && !text.bytes().any(is_dialed);
    admitted.then_some(()).ok_or(IdError)
}

/// Checks that a phone can dial this text.
pub(super) fn check_number(text: &str) -> Result<(), NumberError> {
    is_number(text).then_some(()).ok_or(NumberError)
}

/// Reads the key as an id; the key is required.
pub(super) fn required_id<'a>(section: &mut Section<'a>, key: &'static str) -> Option<SpannedStr<'a>> {
    let id = section.required_string(key)?;
    if let Err(error) = check_id(id.value) {
        section.report_with_help(&id.span, format!("`{}` cannot be an id", id.value), error.to_string());
        return None;
    }
    Some(id)
}

fn required_number<'a>(section: &mut Section<'a>, key: &'static str) -> Option<SpannedStr<'a>> {
    let number = section.required_string(key)?;
    if let Err(error) = check_number(number.value) {
        section.report_with_help(&number.span, format!("`{}` cannot be dialed", number.value), error.to_string());
        return None;
    }
    Some(number)
}

/// Names of entries that have a problem of their own: that another entry names one of them is no further problem.
#[derive(Debug, Default)]
pub(super) struct BrokenEntries {
    names: HashSet<Box<str>>,
    /// An entry has no readable id, or [`BROKEN_NAMES_MAX`] is reached.
    has_unknown_id: bool,
    /// An entry has no readable number, or [`BROKEN_NAMES_MAX`] is reached.
    has_unknown_number: bool,
}

/// Names of broken entries that are kept. Beyond it every unknown name counts as one of theirs.
const BROKEN_NAMES_MAX: usize = 4_096;

impl BrokenEntries {
    /// Adds an entry with what is readable of it.
    pub(super) fn add(&mut self, id: Option<&str>, number: Option<&str>) {
        let is_full = self.names.len() >= BROKEN_NAMES_MAX;
        self.has_unknown_id |= id.is_none() || is_full;
        self.has_unknown_number |= number.is_none() || is_full;
        if !is_full {
            self.names.extend(id.into_iter().chain(number).map(Box::from));
        }
    }

    fn is_empty(&self) -> bool {
        !self.has_unknown_id && !self.has_unknown_number && self.names.is_empty()
    }

    /// Whether the name may be that of a broken entry.
    fn may_have(&self, name: &str) -> bool {
        let is_hidden = if is_number(name) { self.has_unknown_number } else { self.has_unknown_id };
        is_hidden || self.names.contains(name)
    }
}

/// Reads queues, then users, then groups: each may name entries of the kinds before it.
pub(super) struct DirectoryReader<'a> {
    pub(super) model: &'a Model,
    /// Whether the organization names a model that loaded. Without one, no role is known, and none is reported.
    pub(super) model_is_known: bool,
    pub(super) problems: &'a RefCell<Problems>,
    pub(super) warnings: &'a RefCell<Problems>,
    pub(super) builder: DirectoryBuilder<'a>,
    pub(super) broken_queues: BrokenEntries,
    pub(super) broken_users: BrokenEntries,
}

impl DirectoryReader<'_> {
    pub(super) fn queue(&mut self, mut section: Section<'_>) {
        let (id, number) = (required_id(&mut section, "id"), required_number(&mut section, "number"));
        section.document_values("kind", QueueKind::ALL.iter().map(|kind| kind.name()));
        let kind = section.string("kind").and_then(|kind| {
            let found = QueueKind::named(kind.value);
            if found.is_none() {
                let kinds: Vec<&str> = QueueKind::ALL.iter().map(|kind| kind.name()).collect();
                let message = format!("there is no kind of queue `{}`", kind.value);
                section.report_with_help(&kind.span, message, format!("kinds: {}", kinds.join(", ")));
            }
            found
        });
        let wrap_up_seconds = section.integer("wrap_up_seconds", 0..=LEASE_SECONDS_MAX).unwrap_or(0);
        let callback = section.boolean("callback").unwrap_or(false);
        if let (Some(id), Some(number)) = (&id, &number) {
            let kind = kind.unwrap_or(QueueKind::Call);
            let queue = Queue { id: id.value.into(), number: number.value.into(), kind, wrap_up_seconds, callback };
            if let Err(error) = self.builder.queue(queue) {
                section.report(&id.span, format!("the queue `{}` cannot be added: {error}", id.value));
                self.broken_queues.add(Some(id.value), Some(number.value));
            }
        } else {
            self.broken_queues.add(id.map(|id| id.value), number.map(|number| number.value));
        }
        section.finish();
    }

    pub(super) fn user(&mut self, mut section: Section<'_>) {
        let (id, extension) = (required_id(&mut section, "id"), required_number(&mut section, "extension"));
        let roles = section.strings("roles");
        if let (Some(message), Some(last)) = (self.too_many_roles(roles.len()), roles.last()) {
            section.report(&last.span, message);
        }
        let roles = self.role_set(roles.iter().map(|role| role.value), |role, message| {
            let span = roles.iter().find(|listed| listed.value == role).map_or(0..0, |listed| listed.span.clone());
            section.report(&span, message);
        });
        let served = self.queue_list(&mut section, "queues");
        let supervised = self.queue_list(&mut section, "supervises");
        let edited = self.queue_list(&mut section, "edits");
        let protected = section.boolean("protected").unwrap_or(false);
        for (queue, name) in &edited {
            if !supervised.iter().any(|(supervised, _)| supervised == queue) {
                section.report(&name.span, format!("`{}` is in `edits` but not in `supervises`", name.value));
            }
        }
        if let (Some(id), Some(extension)) = (&id, &extension) {
            let served: Vec<QueueId> = served.iter().map(|(queue, _)| *queue).collect();
            let edits = |queue| edited.iter().any(|(edited, _)| *edited == queue);
            let supervised: Vec<(QueueId, bool)> =
                supervised.iter().map(|(queue, _)| (*queue, edits(*queue))).collect();
            let user = NewUser {
                id: id.value,
                extension: extension.value,
                roles,
                protected,
                served: &served,
                supervised: &supervised,
            };
            if let Err(error) = self.builder.user(&user) {
                section.report(&id.span, format!("the user `{}` cannot be added: {error}", id.value));
                self.broken_users.add(Some(id.value), Some(extension.value));
            }
            if let Some(message) = self.idle_supervision(&user) {
                self.warnings.borrow_mut().add(section.source.problem(id.span.clone(), message));
            }
        } else {
            self.broken_users.add(id.map(|id| id.value), extension.map(|extension| extension.value));
        }
        section.finish();
    }

    pub(super) fn group(&mut self, mut section: Section<'_>) {
        let id = required_id(&mut section, "id");
        let supervisors = self.user_list(&mut section, "supervisors");
        let members = self.user_list(&mut section, "members");
        let outbound = section.boolean("outbound");
        if let Some(id) = id {
            let group = Group { id: id.value.into(), outbound };
            if let Err(error) = self.builder.group(group, &supervisors, &members) {
                section.report(&id.span, format!("the group `{}` cannot be added: {error}", id.value));
            }
        }
        section.finish();
    }

    /// The queues that a list names, each with its position in the file.
    fn queue_list<'a>(&self, section: &mut Section<'a>, key: &'static str) -> Vec<(QueueId, SpannedStr<'a>)> {
        let mut queues: Vec<(QueueId, SpannedStr<'_>)> = vec![];
        for name in section.strings(key) {
            match self.queue_named(section, &name) {
                None => {}
                Some(queue) if queues.iter().any(|(known, _)| *known == queue) => {
                    section.report(&name.span, format!("the queue `{}` is listed twice", name.value));
                }
                Some(queue) => queues.push((queue, name)),
            }
        }
        queues
    }

    /// The queue with this id or number. Reports a name that no queue has, unless a queue with a problem may have it.
    pub(super) fn queue_named(&self, section: &Section<'_>, name: &SpannedStr<'_>) -> Option<QueueId> {
        let queue = self.builder.directory().queue_named(name.value);
        if let Some(message) = self.unknown_queue(name.value).filter(|_| queue.is_none()) {
            section.report(&name.span, message);
        }
        queue
    }

    /// The problem of a name that no queue has. `None`: a queue with a problem of its own may have it.
    pub(super) fn unknown_queue(&self, name: &str) -> Option<String> {
        (!self.broken_queues.may_have(name)).then(|| format!("there is no queue `{name}`"))
    }

    fn user_list(&self, section: &mut Section<'_>, key: &'static str) -> Vec<UserId> {
        let mut users = vec![];
        for name in section.strings(key) {
            match self.builder.directory().user_named(name.value).map(User::id) {
                None if self.broken_users.may_have(name.value) => {}
                None => section.report(&name.span, format!("there is no user `{}`", name.value)),
                Some(user) if users.contains(&user) => {
                    section.report(&name.span, format!("the user `{}` is listed twice", name.value));
                }
                Some(user) => users.push(user),
            }
        }
        users
    }

    /// The set of these roles. Calls `report` for each name that the model does not have.
    pub(super) fn role_set<'n>(
        &self,
        names: impl Iterator<Item = &'n str>,
        mut report: impl FnMut(&str, String),
    ) -> RoleSet {
        let mut set = RoleSet::default();
        for name in names.filter(|_| self.model_is_known) {
            match self.model.roles.iter().position(|role| &*role.name == name) {
                Some(position) => set = set.with(position),
                None => report(name, format!("the model `{}` has no role `{name}`", self.model.name)),
            }
        }
        set
    }

    /// The problem of a user with this many roles. `None`: the model admits as many.
    pub(super) fn too_many_roles(&self, count: usize) -> Option<String> {
        let max = self.model.roles_per_user_max;
        (count > max).then(|| format!("a user of the model `{}` has at most {max} role, not {count}", self.model.name))
    }

    /// Reports each role that exactly one user must hold and that none or several hold (rule R109).
    pub(super) fn check_sole_holders(&self, root: &Section<'_>, model_name: &SpannedStr<'_>) {
        let directory = self.builder.directory();
        let sole = self.model.roles.iter().enumerate().filter(|(position, _)| self.model.held_by_one.has(*position));
        for (position, role) in sole {
            let count = directory.users().filter(|user| user.roles().has(position)).count();
            // A user with a problem may hold it.
            if count > 1 || (count == 0 && self.broken_users.is_empty()) {
                let message = format!("{count} users hold the role `{}`", role.name);
                let help = format!("in the model `{}` exactly one user must hold it", self.model.name);
                root.report_with_help(&model_name.span, message, help);
            }
        }
    }

    /// A warning for a user who supervises queues and has no role that supervises (tests/conformance/goto.md, section
    /// 7).
    pub(super) fn idle_supervision(&self, user: &NewUser<'_>) -> Option<String> {
        let idle = self.model_is_known && !user.supervised.is_empty() && !user.roles.meets(self.model.supervising);
        idle.then(|| format!("`{}` supervises queues without a role that supervises: it has no effect", user.id))
    }

    pub(super) fn report(&self, problem: Problem) {
        self.problems.borrow_mut().add(problem);
    }
}
