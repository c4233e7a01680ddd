//! Lists and ends login sessions and supervisions for an operator.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::decision::Transition;
use crate::gate::audit::OperatorName;
use crate::gate::change_feed::{Cause, Change};
use crate::gate::commit::group::{PendingCommit, Undo};
use crate::gate::state::GateState;
use crate::limits::SESSION_TABLE_PARTS;
use crate::policy::decide::{SessionView, may_open};
use crate::policy::directory::User;
use crate::policy::{Organization, Policy};
use crate::sessions::supervisions::Supervision;
use crate::sessions::table::{LoginTerms, SessionTable};
use crate::telephony::{Ground, LoginSession, Moment, Origin, UserId};

/// Selects login sessions or supervisions. A field that is `None` selects all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperatorFilter {
    /// The organization, by name.
    pub org: Option<String>,
    /// The user of the session, or the supervisor: id or extension.
    pub user: Option<String>,
    /// The target of a supervision: id or extension.
    pub target: Option<String>,
    /// The queue: id or number.
    pub queue: Option<String>,
    /// Only sessions that their users could not open today.
    #[serde(default)]
    pub kept: bool,
}

/// A login session as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRow {
    /// The organization.
    pub org: String,
    /// The id of the user.
    pub user: String,
    /// The extension of the user.
    pub extension: String,
    /// The number of the queue. Empty: a reload removes the queue at this moment.
    pub queue: String,
    /// The ground on which the session began.
    pub ground: String,
    /// Whether its user could not open the session today.
    pub kept: bool,
    /// Whether the session is paused: it takes no calls.
    pub paused: bool,
    /// The reason of the pause. `None`: not paused, or no reason was given.
    pub pause_reason: Option<String>,
    /// When the session began, in seconds since 1970.
    pub since_unix_seconds: u64,
    /// The id of the supervisor who opened the session. `None`: the user did.
    pub by: Option<String>,
    /// Seconds until the session ends by itself, rounded up. `None`: at logout.
    pub ends_in_seconds: Option<u64>,
}

/// A supervision as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SupervisionRow {
    /// The organization.
    pub org: String,
    /// The id of the supervisor.
    pub user: String,
    /// The extension of the supervisor.
    pub extension: String,
    /// The extension of the target. `None`: a conversation of no user.
    pub target: Option<String>,
    /// The number of the queue. `None`: asked for without a queue.
    pub queue: Option<String>,
    /// The id of the call. `None`: the PBX did not name it.
    pub call: Option<String>,
    /// The mode: listen, whisper or barge.
    pub mode: String,
    /// When the supervision was allowed, in seconds since 1970.
    pub since_unix_seconds: u64,
    /// Whether a reload ended the permission. The PBX may still carry the supervision.
    pub revoked: bool,
    /// The unique id of the channel that asked, at the PBX. `None`: the dialect names no channel.
    pub channel: Option<String>,
}

/// A row that an operator ended, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended<R> {
    /// The row as it was.
    #[serde(flatten)]
    pub row: R,
    /// What became of the queue member or the listening channel at each PBX: one text for each link, or `no link`.
    pub at_pbx: Vec<String>,
}

/// One page of rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page<R> {
    /// The rows.
    pub rows: Vec<R>,
    /// The position of the first row of the next page. `None`: this is the last page.
    pub next: Option<u64>,
}

/// Why nothing is listed or ended.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum OperatorError {
    /// The policy has no such organization.
    #[error("there is no organization `{0}`")]
    Organization(String),
    /// The organization has no such user.
    #[error("there is no user `{0}`")]
    User(String),
    /// The organization has no such queue.
    #[error("there is no queue `{0}`")]
    Queue(String),
    /// Ending needs an organization and a user, so that a missing parameter never ends everything.
    #[error("name the organization and the user")]
    TooWide,
    /// The session store or the audit log takes no changes.
    #[error("the session store or the audit log cannot be written: nothing was ended")]
    Unavailable,
}

/// The view of an operator on the login sessions and supervisions of now.
#[derive(Clone, Copy, Debug)]
pub struct Operator<'g> {
    state: &'g GateState,
}

/// The rows that an operator ended, and the commit to wait for. `None`: nothing has to become durable.
pub type EndedRows<R> = (Vec<R>, Option<Arc<PendingCommit>>);

impl<'g> Operator<'g> {
    pub(super) const fn new(state: &'g GateState) -> Self {
        Self { state }
    }

    /// Login sessions, at most `limit` from the position `from` on, sorted by organization, part of the table, and
    /// user.
    ///
    /// # Errors
    ///
    /// When `filter` names an unknown organization, user or queue.
    pub fn sessions(
        self,
        filter: &OperatorFilter,
        now: Moment,
        from: u64,
        limit: usize,
    ) -> Result<Page<SessionRow>, OperatorError> {
        let policy = self.state.policy.load();
        let mut pager = Pager::new(from, limit);
        for organization in organizations(&policy, filter)? {
            let directory = &organization.directory;
            let find_user = |name: &str| directory.user_named(name).map(User::id);
            let user = find(filter.user.as_deref(), find_user, OperatorError::User)?;
            let queue = find(filter.queue.as_deref(), |name| directory.queue_named(name), OperatorError::Queue)?;
            let selects = |owner: UserId, session: &LoginSession| {
                user.is_none_or(|user| user == owner) && queue.is_none_or(|queue| queue == session.queue)
            };
            // One part of the table at a time, so that decisions are not delayed.
            for part in 0..SESSION_TABLE_PARTS {
                let Some(table) = self.state.tables.lock(organization.id) else { continue };
                let mut found: Vec<(UserId, LoginSession, Option<String>)> = table
                    .part(part)
                    .filter(|(owner, session)| selects(*owner, session))
                    .map(|(owner, session)| (owner, *session, pause_reason(&table, owner, session)))
                    .collect();
                drop(table);
                found.sort_unstable_by_key(|&(owner, session, _)| (owner, session.queue));
                for (owner, session, pause_reason) in found {
                    let kept = is_kept(organization, owner, &session);
                    if (kept || !filter.kept) && pager.takes_next() {
                        pager.rows.push(session_row(organization, owner, &session, pause_reason, kept, now));
                    }
                }
            }
        }
        Ok(pager.finish())
    }

    /// Supervisions, at most `limit` from the position `from` on: the running ones of each organization, then those
    /// that a reload ended.
    ///
    /// # Errors
    ///
    /// When `filter` names an unknown organization, user or queue.
    pub fn supervisions(
        self,
        filter: &OperatorFilter,
        from: u64,
        limit: usize,
    ) -> Result<Page<SupervisionRow>, OperatorError> {
        let policy = self.state.policy.load();
        let mut pager = Pager::new(from, limit);
        for organization in organizations(&policy, filter)? {
            let Some(table) = self.state.tables.lock(organization.id) else { continue };
            let selects = supervision_filter(organization, filter)?;
            let running = table.supervisions.running().map(|supervision| (supervision, false));
            let revoked = table.supervisions.revoked().map(|supervision| (supervision, true));
            for (supervision, revoked) in running.chain(revoked) {
                if selects(supervision) && pager.takes_next() {
                    pager.rows.push(supervision_row(organization, supervision, revoked));
                }
            }
        }
        Ok(pager.finish())
    }

    /// Ends the login sessions of a user, in one queue or in all, as a supervisor could. `by` names the operator in the
    /// audit log. Returns the sessions that ended.
    ///
    /// # Errors
    ///
    /// When `filter` names something unknown or no user, or the disk takes no changes.
    pub fn end_sessions(
        self,
        filter: &OperatorFilter,
        by: OperatorName<'_>,
        now: Moment,
    ) -> Result<EndedRows<SessionRow>, OperatorError> {
        let policy = self.state.policy.load();
        let organization = named_organization(&policy, filter)?;
        let directory = &organization.directory;
        let user = filter.user.as_deref().ok_or(OperatorError::TooWide)?;
        let user = directory.user_named(user).ok_or_else(|| OperatorError::User(user.to_owned()))?.id();
        let queue = find(filter.queue.as_deref(), |name| directory.queue_named(name), OperatorError::Queue)?;
        let Some(mut table) = self.state.tables.lock(organization.id) else { return Ok((vec![], None)) };
        let selected =
            table.sessions_of(user).iter().filter(|session| queue.is_none_or(|queue| queue == session.queue));
        let sessions: Vec<LoginSession> = selected.copied().collect();
        let row = |session| {
            let kept = is_kept(organization, user, session);
            session_row(organization, user, session, pause_reason(&table, user, session), kept, now)
        };
        let rows = sessions.iter().map(row).collect();
        let queues: Vec<_> = sessions.iter().map(|session| session.queue).collect();
        let altered = table.apply(
            user,
            &queues,
            Transition::End,
            LoginTerms { at: now, by: None, ends: None, origin: Origin::Elsewhere },
        );
        if altered.is_empty() {
            return Ok((rows, None));
        }
        let change = |altered| Change::of_session(organization, altered, Cause::Revocation);
        let changes: Vec<_> = altered.iter().filter_map(change).collect();
        let audit = self.state.auditor().packed_endings(&changes, Some(by));
        let enqueued = self.state.enqueue_sessions(&mut table, organization, user, altered, changes, audit);
        Ok((rows, enqueued.map_err(|_| OperatorError::Unavailable)?.commit()))
    }

    /// Ends the supervisions by a user, or of a target, or both. `by` names the operator in the audit log. The PBX
    /// learns of the end from the change feed, if it watches one. Returns the supervisions that ended.
    ///
    /// # Errors
    ///
    /// When `filter` names something unknown or neither user nor target, or the audit log takes no records.
    pub fn end_supervisions(
        self,
        filter: &OperatorFilter,
        by: OperatorName<'_>,
    ) -> Result<EndedRows<SupervisionRow>, OperatorError> {
        let policy = self.state.policy.load();
        let organization = named_organization(&policy, filter)?;
        if filter.user.is_none() && filter.target.is_none() {
            return Err(OperatorError::TooWide);
        }
        let selects = supervision_filter(organization, filter)?;
        let Some(mut table) = self.state.tables.lock(organization.id) else { return Ok((vec![], None)) };
        let ended = table.supervisions.withdraw(selects);
        let rows = ended.iter().map(|supervision| supervision_row(organization, supervision, false)).collect();
        let change = |old| Change::supervision_ended(organization, old, Cause::Revocation);
        let changes: Vec<_> = ended.iter().map(change).collect();
        let audit = self.state.auditor().packed_endings(&changes, Some(by));
        let undo = Undo::Supervisions { began: None, ended: ended.clone() };
        let enqueued = self
            .state
            .enqueue_audited(organization, audit, undo, changes, None)
            .inspect_err(|_| table.supervisions.undo(None, &ended, |_| true));
        Ok((rows, enqueued.map_err(|_| OperatorError::Unavailable)?.commit()))
    }

    /// Whether the user with this id or extension has a login session in the queue with this id or number.
    #[must_use]
    pub fn is_logged_in(self, organization: &str, user: &str, queue: &str, now: Moment) -> bool {
        let policy = self.state.policy.load();
        let Some(organization) = policy.organization(organization) else { return false };
        let named =
            organization.directory.user_named(user).map(User::id).zip(organization.directory.queue_named(queue));
        let (Some((user, queue)), Some(table)) = (named, self.state.tables.lock(organization.id)) else { return false };
        let session = table.view(user).in_this_queue(queue).copied();
        session.is_some_and(|session| !session.ends.is_some_and(|ends| ends.has_come(now)))
    }
}

fn pause_reason(table: &SessionTable, user: UserId, session: &LoginSession) -> Option<String> {
    table.pause_reason(user, session.queue).map(str::to_owned)
}

/// Whether the session is kept though its user could not open it today (rule R31).
fn is_kept(organization: &Organization, user: UserId, session: &LoginSession) -> bool {
    session.ground != Ground::Supervisor && !may_open(organization, user, session.queue)
}

/// The organizations that the filter selects, sorted by name.
fn organizations<'p>(policy: &'p Policy, filter: &OperatorFilter) -> Result<Vec<&'p Organization>, OperatorError> {
    if filter.org.is_some() {
        return named_organization(policy, filter).map(|organization| vec![organization]);
    }
    let mut all: Vec<&Organization> = policy.organizations().collect();
    all.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    Ok(all)
}

/// The organization that the filter names.
fn named_organization<'p>(policy: &'p Policy, filter: &OperatorFilter) -> Result<&'p Organization, OperatorError> {
    let name = filter.org.as_deref().ok_or(OperatorError::TooWide)?;
    policy.organization(name).ok_or_else(|| OperatorError::Organization(name.to_owned()))
}

/// The entry of the tables that the filter names. `None`: the filter names none.
fn find<T>(
    name: Option<&str>,
    lookup: impl Fn(&str) -> Option<T>,
    unknown: fn(String) -> OperatorError,
) -> Result<Option<T>, OperatorError> {
    name.map(|name| lookup(name).ok_or_else(|| unknown(name.to_owned()))).transpose()
}

fn supervision_filter(
    organization: &Organization,
    filter: &OperatorFilter,
) -> Result<impl Fn(&Supervision) -> bool + use<>, OperatorError> {
    let directory = &organization.directory;
    let find_user = |name: &str| directory.user_named(name).map(User::id);
    let user = find(filter.user.as_deref(), find_user, OperatorError::User)?;
    let target = find(filter.target.as_deref(), find_user, OperatorError::User)?;
    let queue = find(filter.queue.as_deref(), |name| directory.queue_named(name), OperatorError::Queue)?;
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
        channel: supervision.channel.as_deref().map(str::to_owned),
    }
}

/// Takes the rows of one page out of all rows.
struct Pager<R> {
    /// The position of the next row among all rows.
    position: u64,
    /// The position of the first row of the page.
    from: u64,
    limit: usize,
    rows: Vec<R>,
    /// Whether a row follows the page.
    has_next: bool,
}

impl<R> Pager<R> {
    const fn new(from: u64, limit: usize) -> Self {
        Self { position: 0, from, limit, rows: vec![], has_next: false }
    }

    /// Whether the next row belongs to the page; the caller then pushes it.
    const fn takes_next(&mut self) -> bool {
        let position = self.position;
        self.position += 1;
        self.has_next |= self.rows.len() >= self.limit;
        position >= self.from && self.rows.len() < self.limit
    }

    fn finish(self) -> Page<R> {
        let next = self.has_next.then(|| self.from.saturating_add(self.rows.len() as u64));
        Page { rows: self.rows, next }
    }
}
