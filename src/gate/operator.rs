//! What an operator sees of what is now, and how an operator ends it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::decision::Transition;
use crate::gate::change_feed::Cause;
use crate::gate::commit::queue::{PendingChange, Undo};
use crate::gate::{CommitGroup, Gate, changes};
use crate::limits::SESSION_TABLE_PARTS;
use crate::policy::decide::{SessionView, may_open};
use crate::policy::directory::User;
use crate::policy::{Organization, Policy};
use crate::sessions::supervisions::Supervision;
use crate::sessions::table::Beginning;
use crate::telephony::{Ground, LoginSession, Moment, UserId};

/// Which login sessions or supervisions. What is left out does not narrow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// The organization, by name.
    pub org: Option<String>,
    /// The user whose session it is, or the supervisor: id or extension.
    pub user: Option<String>,
    /// The target of a supervision: id or extension.
    pub target: Option<String>,
    /// The queue: id or number.
    pub queue: Option<String>,
    /// Only sessions that their users could not open today.
    #[serde(default)]
    pub kept: bool,
}

/// A login session, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRow {
    /// The organization.
    pub org: String,
    /// The id of the user.
    pub user: String,
    /// The extension of the user.
    pub extension: String,
    /// The number of the queue.
    pub queue: String,
    /// On what ground it began.
    pub ground: String,
    /// Whether its user could not open it today.
    pub kept: bool,
    /// Whether it takes no calls.
    pub paused: bool,
    /// Why, if somebody said so.
    pub pause_reason: Option<String>,
    /// When it began, in seconds since 1970.
    pub since_unix_seconds: u64,
    /// The id of the supervisor who opened it.
    pub by: Option<String>,
    /// In how many seconds it ends by itself.
    pub ends_in_seconds: Option<u64>,
}

/// A supervision, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SupervisionRow {
    /// The organization.
    pub org: String,
    /// The id of the supervisor.
    pub user: String,
    /// The extension of the supervisor.
    pub extension: String,
    /// The extension of the target.
    pub target: Option<String>,
    /// The number of the queue.
    pub queue: Option<String>,
    /// The call.
    pub call: Option<String>,
    /// How.
    pub mode: String,
    /// When it was allowed, in seconds since 1970.
    pub since_unix_seconds: u64,
    /// Whether a reload no longer permits it. The PBX may not have ended it.
    pub revoked: bool,
}

/// Some of the rows; `next` is where the following ones begin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page<R> {
    /// The rows.
    pub rows: Vec<R>,
    /// Where the page after this one begins; `None` after the last.
    pub next: Option<u64>,
}

/// What a request names and the tables do not have.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum OperatorError {
    /// The organization.
    #[error("there is no organization `{0}`")]
    Organization(String),
    /// A user.
    #[error("there is no user `{0}`")]
    User(String),
    /// A queue.
    #[error("there is no queue `{0}`")]
    Queue(String),
    /// Ending needs an organization and a user: nobody ends everything by leaving something out.
    #[error("name the organization and the user")]
    TooWide,
    /// The disk takes no changes.
    #[error("the session store or the audit log cannot be written: nothing was ended")]
    Unavailable,
}

impl Gate {
    /// Login sessions, sorted by organization, part and user.
    ///
    /// # Errors
    ///
    /// When `wanted` names what is not there.
    pub fn sessions(
        &self,
        wanted: &Wanted,
        now: Moment,
        from: u64,
        limit: usize,
    ) -> Result<Page<SessionRow>, OperatorError> {
        let policy = self.policy();
        let mut pager = Pager::new(from, limit);
        for organization in organizations(&policy, wanted)? {
            let directory = &organization.directory;
            let user_named = |name: &str| directory.user_named(name).map(User::id);
            let user = named(wanted.user.as_deref(), user_named, OperatorError::User)?;
            let queue = named(wanted.queue.as_deref(), |name| directory.queue_named(name), OperatorError::Queue)?;
            for part in 0..SESSION_TABLE_PARTS {
                let Some(table) = self.shared.tables.lock(organization.id) else { continue };
                let is_wanted = |of: UserId, session: &LoginSession| {
                    user.is_none_or(|user| user == of) && queue.is_none_or(|queue| queue == session.queue)
                };
                let mut found: Vec<(UserId, LoginSession, Option<String>)> = table
                    .part(part)
                    .filter(|(of, session)| is_wanted(*of, session))
                    .map(|(of, session)| (of, *session, table.pause_reason(of, session.queue).map(str::to_owned)))
                    .collect();
                drop(table);
                found.sort_unstable_by_key(|&(of, session, _)| (of, session.queue));
                for (of, session, pause_reason) in found {
                    let kept = session.ground != Ground::Supervisor && !may_open(organization, of, session.queue);
                    if (kept || !wanted.kept) && pager.takes() {
                        pager.push(session_row(organization, of, &session, pause_reason, kept, now));
                    }
                }
            }
        }
        Ok(pager.finish())
    }

    /// Supervisions, those that run first, then those that a reload ended.
    ///
    /// # Errors
    ///
    /// When `wanted` names what is not there.
    pub fn supervisions(
        &self,
        wanted: &Wanted,
        from: u64,
        limit: usize,
    ) -> Result<Page<SupervisionRow>, OperatorError> {
        let policy = self.policy();
        let mut pager = Pager::new(from, limit);
        for organization in organizations(&policy, wanted)? {
            let Some(table) = self.shared.tables.lock(organization.id) else { continue };
            let is_wanted = supervision_filter(organization, wanted)?;
            let running = table.supervisions.running().map(|supervision| (supervision, false));
            let revoked = table.supervisions.revoked().map(|supervision| (supervision, true));
            for (supervision, revoked) in running.chain(revoked) {
                if is_wanted(supervision) && pager.takes() {
                    pager.push(supervision_row(organization, supervision, revoked));
                }
            }
        }
        Ok(pager.finish())
    }

    /// Ends the login sessions of a user, in one queue or in all, as a supervisor could; `by` says who wants it. Gives
    /// back what ended and, if that has to become durable first, the group to wait for.
    ///
    /// # Errors
    ///
    /// When `wanted` names what is not there or not enough, or the store takes no changes.
    pub fn end_sessions(
        &self,
        wanted: &Wanted,
        by: &str,
        now: Moment,
    ) -> Result<(Vec<SessionRow>, Option<Arc<CommitGroup>>), OperatorError> {
        let policy = self.policy();
        let organization = the_organization(&policy, wanted)?;
        let directory = &organization.directory;
        let user = wanted.user.as_deref().ok_or(OperatorError::TooWide)?;
        let user = directory.user_named(user).ok_or_else(|| OperatorError::User(user.to_owned()))?.id();
        let queue = named(wanted.queue.as_deref(), |name| directory.queue_named(name), OperatorError::Queue)?;
        let Some(mut table) = self.shared.tables.lock(organization.id) else { return Ok((vec![], None)) };
        let sessions: Vec<LoginSession> = table
            .sessions_of(user)
            .iter()
            .filter(|session| queue.is_none_or(|queue| queue == session.queue))
            .copied()
            .collect();
        let rows = sessions
            .iter()
            .map(|session| {
                let pause_reason = table.pause_reason(user, session.queue).map(str::to_owned);
                let kept = session.ground != Ground::Supervisor && !may_open(organization, user, session.queue);
                session_row(organization, user, session, pause_reason, kept, now)
            })
            .collect();
        let queues: Vec<_> = sessions.iter().map(|session| session.queue).collect();
        let altered = table.apply(user, &queues, Transition::End, Beginning { at: now, by: None, ends: None });
        if altered.is_empty() {
            return Ok((rows, None));
        }
        let told = |altered| changes::of_session(organization, altered, Cause::Revocation);
        let changes: Vec<_> = altered.iter().filter_map(told).collect();
        let entry = self.unasked(organization.id, None, changes, Some(by));
        let group = self.enter_sessions(&mut table, organization, user, altered, entry.changes, entry.lines);
        Ok((rows, group.map_err(|()| OperatorError::Unavailable)?))
    }

    /// Ends the supervisions by a user, of one target or of all; `by` says who wants it. The PBX is told by whoever
    /// watches; what it does then is its own. Gives back what ended and, if that has to be in the audit log first, the
    /// group to wait for.
    ///
    /// # Errors
    ///
    /// When `wanted` names what is not there or not enough, or the audit log takes no lines.
    pub fn end_supervisions(
        &self,
        wanted: &Wanted,
        by: &str,
    ) -> Result<(Vec<SupervisionRow>, Option<Arc<CommitGroup>>), OperatorError> {
        let policy = self.policy();
        let organization = the_organization(&policy, wanted)?;
        if wanted.user.is_none() && wanted.target.is_none() {
            return Err(OperatorError::TooWide);
        }
        let is_wanted = supervision_filter(organization, wanted)?;
        let Some(mut table) = self.shared.tables.lock(organization.id) else { return Ok((vec![], None)) };
        let ended = table.supervisions.end_all(is_wanted);
        let told = |old| changes::of_supervision(organization, old, Cause::Revocation, false);
        let rows = ended.iter().map(|supervision| supervision_row(organization, supervision, false)).collect();
        let entry = self.unasked(organization.id, None, ended.iter().map(told).collect(), Some(by));
        let undo = Undo::Supervisions { began: None, ended: ended.clone() };
        let Ok(receipt) = self.shared.enter(PendingChange { undo, ..entry }) else {
            table.supervisions.undo(None, &ended, |_| true);
            return Err(OperatorError::Unavailable);
        };
        Ok((rows, receipt.map(|receipt| receipt.group)))
    }

    /// Whether whoever has this id or extension has a login session in the queue of this id or number.
    #[must_use]
    pub fn is_logged_in(&self, organization: &str, user: &str, queue: &str, now: Moment) -> bool {
        let policy = self.policy.load();
        let Some(tenant) = policy.organization(organization) else { return false };
        let named = tenant.directory.user_named(user).map(User::id).zip(tenant.directory.queue_named(queue));
        let (Some((user, queue)), Some(table)) = (named, self.shared.tables.lock(tenant.id)) else { return false };
        let session = table.view(user).in_this_queue(queue).copied();
        session.is_some_and(|session| !session.ends.is_some_and(|ends| ends.has_come(now)))
    }
}

/// The organizations that are wanted, by name.
fn organizations<'p>(policy: &'p Policy, wanted: &Wanted) -> Result<Vec<&'p Organization>, OperatorError> {
    if wanted.org.is_some() {
        return the_organization(policy, wanted).map(|organization| vec![organization]);
    }
    let mut all: Vec<&Organization> = policy.organizations().collect();
    all.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    Ok(all)
}

fn the_organization<'p>(policy: &'p Policy, wanted: &Wanted) -> Result<&'p Organization, OperatorError> {
    let name = wanted.org.as_deref().ok_or(OperatorError::TooWide)?;
    policy.organization(name).ok_or_else(|| OperatorError::Organization(name.to_owned()))
}

fn named<T>(
    name: Option<&str>,
    find: impl Fn(&str) -> Option<T>,
    unknown: fn(String) -> OperatorError,
) -> Result<Option<T>, OperatorError> {
    name.map(|name| find(name).ok_or_else(|| unknown(name.to_owned()))).transpose()
}

fn supervision_filter(
    organization: &Organization,
    wanted: &Wanted,
) -> Result<impl Fn(&Supervision) -> bool + use<>, OperatorError> {
    let directory = &organization.directory;
    let user_named = |name: &str| directory.user_named(name).map(User::id);
    let user = named(wanted.user.as_deref(), user_named, OperatorError::User)?;
    let target = named(wanted.target.as_deref(), user_named, OperatorError::User)?;
    let queue = named(wanted.queue.as_deref(), |name| directory.queue_named(name), OperatorError::Queue)?;
    Ok(move |supervision: &Supervision| {
        user.is_none_or(|user| user == supervision.supervisor)
            && target.is_none_or(|target| supervision.target == Some(target))
            && queue.is_none_or(|queue| supervision.queue == Some(queue))
    })
}

fn session_row(
    organization: &Organization,
    user: UserId,
    session: &LoginSession,
    pause_reason: Option<String>,
    kept: bool,
    now: Moment,
) -> SessionRow {
    let directory = &organization.directory;
    SessionRow {
        org: organization.name.to_string(),
        user: directory.user_id(user).to_owned(),
        extension: directory.extension(user).to_owned(),
        queue: directory.queue(session.queue).map(|queue| queue.number.to_string()).unwrap_or_default(),
        ground: session.ground.name().to_owned(),
        kept,
        paused: session.paused,
        pause_reason,
        since_unix_seconds: session.since.0,
        by: session.by.map(|by| directory.user_id(by).to_owned()).filter(|by| !by.is_empty()),
        ends_in_seconds: session.ends.map(|ends| ends.uptime_ms.saturating_sub(now.uptime_ms).div_ceil(1_000)),
    }
}

fn supervision_row(organization: &Organization, supervision: &Supervision, revoked: bool) -> SupervisionRow {
    let directory = &organization.directory;
    let queue = supervision.queue.and_then(|queue| directory.queue(queue));
    SupervisionRow {
        org: organization.name.to_string(),
        user: directory.user_id(supervision.supervisor).to_owned(),
        extension: directory.extension(supervision.supervisor).to_owned(),
        target: supervision.target.map(|target| directory.extension(target).to_owned()),
        queue: queue.map(|queue| queue.number.to_string()),
        call: supervision.call.as_deref().map(str::to_owned),
        mode: supervision.mode.name().to_owned(),
        since_unix_seconds: supervision.since.0,
        revoked,
    }
}

/// Takes the rows of one page out of all.
struct Pager<R> {
    seen: u64,
    from: u64,
    limit: usize,
    rows: Vec<R>,
    more: bool,
}

impl<R> Pager<R> {
    const fn new(from: u64, limit: usize) -> Self {
        Self { seen: 0, from, limit, rows: vec![], more: false }
    }

    /// Whether the next row stands on this page.
    const fn takes(&mut self) -> bool {
        let position = self.seen;
        self.seen = self.seen.saturating_add(1);
        self.more |= self.rows.len() >= self.limit;
        position >= self.from && self.rows.len() < self.limit
    }

    fn push(&mut self, row: R) {
        self.rows.push(row);
    }

    fn finish(self) -> Page<R> {
        let next = self.more.then(|| self.from.saturating_add(self.rows.len() as u64));
        Page { rows: self.rows, next }
    }
}
