//! The directory of one organization: its queues, users and groups, as tables of its TOML file.
//!
//! [`crate::config::users_csv`] reads the users of a large organization from CSV through the same [`DirectoryReader`].

use std::cell::RefCell;

use thiserror::Error;

use crate::config::broken::{BrokenNames, NameLookup};
use crate::config::problem::{Problem, Problems};
use crate::config::reader::{Section, SpannedStr};
use crate::limits::{ID_BYTES_MAX, LEASE_SECONDS_MAX, NUMBER_DIGITS_MAX};
use crate::policy::directory::{DirectoryBuilder, Group, NewUser, Queue, User};
use crate::policy::facts::Fact;
use crate::policy::model::{Grant, Model, RoleSet};
use crate::telephony::{QueueId, QueueKind, Token, UserId, is_number};

/// Holders of a role that a problem names.
const SOLE_HOLDERS_SHOWN: usize = 3;

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

/// Reads queues, then users, then groups: each may name entries of the kinds before it.
pub(super) struct DirectoryReader<'a> {
    pub(super) model: &'a Model,
    /// Whether the organization names a model that loaded. Without one, no role is known, and none is reported.
    pub(super) model_is_known: bool,
    pub(super) problems: &'a RefCell<Problems>,
    pub(super) warnings: &'a RefCell<Problems>,
    pub(super) builder: DirectoryBuilder<'a>,
    pub(super) broken_queues: BrokenNames,
    pub(super) broken_users: BrokenNames,
    /// The users who hold a role that exactly one user must hold: the position of the role, the user's id, and the
    /// problem of its place without a message.
    pub(super) sole_holders: Vec<(usize, Box<str>, Problem)>,
}

impl DirectoryReader<'_> {
    pub(super) fn queue(&mut self, mut section: Section<'_>) {
        let (id, number) = (required_id(&mut section, "id"), required_number(&mut section, "number"));
        let names = [id.as_ref().map(|id| id.value), number.as_ref().map(|number| number.value)];
        let mut is_added = false;
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
        let supervisable = section.boolean("supervisable").unwrap_or(true);
        if !supervisable && self.model_is_known {
            self.check_closable(&section);
        }
        if let (Some(id), Some(number)) = (id, number) {
            let kind = kind.unwrap_or(QueueKind::Call);
            let (id_text, number) = (id.value.into(), number.value.into());
            let queue = Queue { id: id_text, number, kind, wrap_up_seconds, callback, supervisable };
            match self.builder.queue(queue) {
                Ok(_) => is_added = true,
                Err(error) => section.report(&id.span, format!("the queue `{}` cannot be added: {error}", id.value)),
            }
        }
        if !is_added {
            let is_free = |name: &str| self.builder.directory().queue_named(name).is_none();
            self.broken_queues.note_both(names[0].filter(|name| is_free(name)), names[1].filter(|name| is_free(name)));
        }
        section.finish();
    }

    /// Reports a queue that is closed to supervision, if the model lets users supervise without asking for it.
    fn check_closable(&self, section: &Section<'_>) {
        let asks = |grant: &Grant| grant.facts.contains(Fact::QueueSupervisable);
        let supervising = self.model.actions.iter().filter(|action| action.effect.concerns_a_call());
        let mut ignoring = supervising.filter(|action| !self.model.grants_of(action).all(|(_, grant)| asks(grant)));
        if let Some(action) = ignoring.next() {
            let message =
                format!("`supervisable = false` has no effect on `{}` in the model `{}`", action.name, self.model.name);
            let help = "add `queue.supervisable` to the list `where` of every grant of the action";
            section.report_with_help(&section.span, message, help);
        }
    }

    pub(super) fn user(&mut self, mut section: Section<'_>) {
        let (id, extension) = (required_id(&mut section, "id"), required_number(&mut section, "extension"));
        let names = [id.as_ref().map(|id| id.value), extension.as_ref().map(|number| number.value)];
        let mut is_added = false;
        let roles = section.strings("roles");
        if let (Some(message), Some(last)) = (self.too_many_roles(roles.len()), roles.last()) {
            section.report(&last.span, message);
        }
        let roles = self.role_set(roles.iter().map(|role| role.value), |role, message| {
            let span = roles.iter().find(|listed| listed.value == role).map_or(0..0, |listed| listed.span.clone());
            section.report(&span, message);
        });
        let served = self.queue_list(&mut section, "queues");
        let found_before = section.found();
        let supervised = self.queue_list(&mut section, "supervises");
        let supervises_is_broken = section.found() > found_before || section.has_misspelled("supervises");
        let edited = self.queue_list(&mut section, "edits");
        let protected = section.boolean("protected").unwrap_or(false);
        for (queue, name) in &edited {
            if !supervises_is_broken && !supervised.iter().any(|(supervised, _)| supervised == queue) {
                section.report(&name.span, format!("`{}` is in `edits` but not in `supervises`", name.value));
            }
        }
        if let (Some(id), Some(extension)) = (id, extension) {
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
            match self.builder.user(&user) {
                Ok(_) => is_added = true,
                Err(error) => section.report(&id.span, format!("the user `{}` cannot be added: {error}", id.value)),
            }
            self.note_sole_holder(&user, || section.source.problem(id.span.clone(), ""));
            if let Some(message) = self.idle_supervision(&user) {
                self.warnings.borrow_mut().add(section.source.problem(id.span, message));
            }
        }
        if !is_added {
            // A name that another user has is the mistake; the intended name is unknown, so it may be any name.
            let is_free = |name: &str| self.builder.directory().user_named(name).is_none();
            self.broken_users.note_both(names[0].filter(|name| is_free(name)), names[1].filter(|name| is_free(name)));
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

    /// The queue with this id or number.
    pub(super) fn queue_named(&self, name: &str) -> NameLookup<QueueId> {
        self.broken_queues.or_broken(name, self.builder.directory().queue_named(name))
    }

    /// Notes the place of a user who holds a role that exactly one user must hold.
    pub(super) fn note_sole_holder(&mut self, user: &NewUser<'_>, place: impl Fn() -> Problem) {
        for position in self.model.held_by_one.positions().filter(|position| user.roles.has(*position)) {
            self.sole_holders.push((position, user.id.into(), place()));
        }
    }

    /// The queues that a list names, each with its position in the file.
    fn queue_list<'a>(&self, section: &mut Section<'a>, key: &'static str) -> Vec<(QueueId, SpannedStr<'a>)> {
        let mut queues: Vec<(QueueId, SpannedStr<'_>)> = vec![];
        for name in section.strings(key) {
            match self.queue_named(name.value) {
                NameLookup::Broken => {}
                NameLookup::Unknown => section.report_unknown(&name, "queue"),
                NameLookup::Found(queue) if queues.iter().any(|(known, _)| *known == queue) => {
                    section.report(&name.span, format!("the queue `{}` is listed twice", name.value));
                }
                NameLookup::Found(queue) => queues.push((queue, name)),
            }
        }
        queues
    }

    fn user_list(&self, section: &mut Section<'_>, key: &'static str) -> Vec<UserId> {
        let mut users = vec![];
        for name in section.strings(key) {
            let found = self.builder.directory().user_named(name.value).map(User::id);
            match self.broken_users.or_broken(name.value, found) {
                NameLookup::Broken => {}
                NameLookup::Unknown => section.report_unknown(&name, "user"),
                NameLookup::Found(user) if users.contains(&user) => {
                    section.report(&name.span, format!("the user `{}` is listed twice", name.value));
                }
                NameLookup::Found(user) => users.push(user),
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

    /// Reports each role that exactly one user must hold and that none or several hold (rule R109). `users_are_whole`:
    /// every user was read.
    pub(super) fn check_sole_holders(&self, root: &Section<'_>, model_name: &SpannedStr<'_>, users_are_whole: bool) {
        let sole = self.model.roles.iter().enumerate().filter(|(position, _)| self.model.held_by_one.has(*position));
        for (position, role) in sole {
            let holders: Vec<_> = self.sole_holders.iter().filter(|(held, _, _)| *held == position).collect();
            let help = format!("in the model `{}` exactly one user must hold it", self.model.name);
            match holders.as_slice() {
                [] if users_are_whole => {
                    root.report_with_help(&model_name.span, format!("0 users hold the role `{}`", role.name), help);
                }
                [] | [_] => {}
                [_, (_, _, second), ..] => {
                    let shown = holders.iter().take(SOLE_HOLDERS_SHOWN).map(|(_, id, at)| {
                        let place = at.line.map_or_else(String::new, |line| format!(":{line}"));
                        format!("`{id}` ({}{place})", at.file)
                    });
                    let shown: Vec<String> = shown.collect();
                    let more = holders.len() - shown.len();
                    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                    let message =
                        format!("{} users hold the role `{}`: {}{more}", holders.len(), role.name, shown.join(", "));
                    self.report(Problem { message, ..second.clone() }.help(help));
                }
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
