//! The gate answers every question of every dialect, and is the only place that changes state.
//!
//! [`Gate::ask`] asks [`crate::policy::decide`], makes an allowed change in the session table, enqueues it for the
//! disk, and hands out the answer together with the [`PendingCommit`] that the answer has to wait for. The gate opens
//! no socket, reads no clock and writes no metric: the time is an argument, and metrics are read from it.
//!
//! | File | What it owns |
//! |---|---|
//! | `batch` | one policy snapshot for the questions that arrive together: resolve, decide, apply, answer |
//! | `apply` | decides under the lock of the table, makes the change, enqueues it |
//! | `answer` | a judgement in the names of the policy |
//! | `timed_change` | `until`: changes that are undone if their answer comes too late |
//! | `once` | the first answers to questions with a name, for their repeats |
//! | [`pbx_reports`] | reports of the PBX: calls, and ends of supervisions |
//! | `offers` | calls that were offered by a transfer, and their replacement |
//! | `endings` | sessions and supervisions that end without a question: leases, removed users, revocations |
//! | [`linked`] | an organization as its links see and change it: queue members, supervisions, calls |
//! | [`backup`] | writes and restores backups while the sidecar runs |
//! | [`operator`] | lists and ends sessions and supervisions for an operator |
//! | `explain` | why a question would get its answer |
//! | [`counts`] | sessions and supervisions, counted for the metrics |
//! | `audit` | the records of the audit log |
//! | `commit` | the queue, its groups and the writer: from memory to the disk |
//! | [`change_feed`] | the last changes of each organization, for watchers |
//! | `start` | the start: reads the stored sessions |
//! | `state` | the policy, the tables and the queue, shared with the writer; how a change is enqueued |

mod answer;
mod apply;
mod audit;
pub mod backup;
mod batch;
pub mod change_feed;
mod commit;
pub mod counts;
mod endings;
mod explain;
pub mod linked;
mod offers;
mod once;
pub mod operator;
pub mod pbx_reports;
mod start;
mod state;
mod timed_change;

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::audit::buffer::AuditBuffer;
use crate::audit::log::AuditLog;
use crate::audit::{AuditError, AuditLogOptions};
use crate::decision::{DenyReason, Outcome, WireError};
use crate::dialect::readable::ReadableRequest;
use crate::event::Event;
use crate::peer::QuotaKey;
use crate::policy::Policy;
use crate::sessions::activity::BoundReached;
use crate::sessions::store::{Store, StoreError};
use crate::telephony::{ClockReading, Moment, OrganizationId, QueueSet, Token, UnixMillis};
pub use audit::{OperatorName, QuestionOrigin};
use backup::Backups;
pub use batch::{Batch, BatchQuestion};
use change_feed::ChangeFeed;
pub use commit::group::PendingCommit;
use commit::writer::write_all;
pub use commit::writer::{CommitObserver, SystemClocks};
pub use counts::Counts;
use counts::{LeaseCounts, QueueCounts};
use endings::Endings;
pub use explain::{DialedMeaning, Explained};
use linked::LinkedOrganization;
use operator::Operator;
pub use start::RestoredSessions;
use state::GateState;
pub use state::LinkNames;
pub use timed_change::{Awaited, Untimely, check as check_until};

/// The name of the thread that writes the session store and the audit log.
const WRITER_THREAD: &str = "writer";

/// The policy, the session tables, and everything that reads or changes them.
///
/// # Examples
///
/// ```
/// use std::fs;
///
/// use queuewarden::decision::{AllowReason, Outcome, Reason};
/// use queuewarden::dialect::line::Line;
/// use queuewarden::dialect::{Dialect, Step};
/// use queuewarden::gate::Gate;
/// use queuewarden::policy::Policy;
/// use queuewarden::telephony::{Moment, QueueSet, UnixMillis};
///
/// let folder = tempfile::tempdir()?;
/// for (file, text) in [
///     ("queuewarden.toml", "[state]\nstore = \"memory\"\n"),
///     ("models/goto.toml", include_str!("../../config/models/goto.toml")),
///     ("organizations/acme.toml", r#"
///         organization = "acme"
///         model = "goto"
///         [[queues]]
///         id = "support"
///         number = "600"
///         kind = "call"
///         [[users]]
///         id = "alice"
///         extension = "1001"
///         roles = ["agent"]
///         queues = ["support"]
///     "#),
/// ] {
///     let path = folder.path().join(file);
///     fs::create_dir_all(path.parent().expect("a file has a folder"))?;
///     fs::write(path, text)?;
/// }
/// let gate = Gate::default();
/// let _before = gate.publish(queuewarden::config::load(folder.path(), &Policy::default())?.policy);
///
/// let (mut values, mut output) = (vec![], vec![]);
/// let question = b"1 do org=acme actor=1001 action=queue.login queue=600\n";
/// let Step::Ask { event, .. } = Line::new(None).next(question, &mut values, &mut output) else { panic!() };
/// let now = Moment { wall: UnixMillis(1_700_000_000_000), uptime_ms: 0 };
/// let reason = gate.ask(&event, now, &mut QueueSet::new(), |outcome, commit| {
///     assert!(commit.is_none(), "without a store no answer waits");
///     match outcome {
///         Outcome::Decided(answer) => answer.reason,
///         Outcome::Faulty(error) => panic!("{error:?}"),
///     }
/// });
/// assert_eq!(reason, Reason::Allow(AllowReason::Assigned));
/// assert_eq!(gate.counts().assigned, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Gate {
    state: Arc<GateState>,
    /// The audit log, from [`Gate::open_audit`] until the writer's thread takes it.
    log: Mutex<Option<AuditLog>>,
}

impl Default for Gate {
    fn default() -> Self {
        Self::new(false)
    }
}

impl Gate {
    /// A gate without a policy. If `has_store`, changes wait for the store that [`Gate::restore`] opens.
    #[must_use]
    pub fn new(has_store: bool) -> Self {
        Self::audited(has_store, None)
    }

    /// The same with an audit log. Its records wait in the buffer until [`Gate::open_audit`] and [`Gate::restore`].
    #[must_use]
    pub fn audited(has_store: bool, audit: Option<AuditBuffer>) -> Self {
        Self { state: Arc::new(GateState::new(has_store, audit)), log: Mutex::default() }
    }

    /// Judges the event, makes the change if it is allowed and meant, and hands the outcome to `answer`; its names live
    /// as long as the policy snapshot that judged. An outcome that depends on a change that is not durable yet comes
    /// with the commit to wait for; if that commit fails, the answer is [`DenyReason::StateUnavailable`]. `queues` is a
    /// buffer of the caller, which saves an allocation for each question.
    pub fn ask<R>(
        &self,
        event: &Event<'_>,
        now: Moment,
        queues: &mut QueueSet,
        answer: impl FnOnce(Outcome<'_>, Option<Awaited>) -> R,
    ) -> R {
        self.batch().ask(BatchQuestion { origin: &QuestionOrigin::default(), event, now, queues }, answer)
    }

    /// Whether the answer to a question with this `until` may be sent at `now`, by the system clock. False: the peer
    /// gets [`DenyReason::TooLate`], and the change is undone, unless a repeat of the question moved its end.
    #[must_use]
    pub fn may_be_sent(&self, until: Option<UnixMillis>, awaited: Option<&Awaited>, now: UnixMillis) -> bool {
        let change = awaited.and_then(|awaited| awaited.change.as_deref());
        timed_change::conclude(&self.state, until, change, now)
    }

    /// Undoes the change that the answer confirms, if the change can be undone. For an answer whose commit takes too
    /// long: the peer gets [`DenyReason::StateUnavailable`].
    pub fn abandon(&self, awaited: &Awaited) {
        if let Some(change) = &awaited.change {
            timed_change::abandon(&self.state, change);
        }
    }

    /// The number of changes that were undone because their answer came too late, since the start.
    #[must_use]
    pub fn changes_undone(&self) -> u64 {
        self.state.changes_undone.load(Ordering::Relaxed)
    }

    /// Loads the policy snapshot once, for questions that arrive together.
    #[must_use]
    pub fn batch(&self) -> Batch<'_> {
        Batch::new(&self.state)
    }

    /// Judges the event as [`Gate::ask`] judges a question with `may`, and explains the decision. Nothing changes.
    #[must_use]
    pub fn explain(&self, event: &Event<'_>, now: Moment) -> Explained {
        Explained::new(&self.state, event, now)
    }

    /// Lists and ends sessions and supervisions for an operator.
    #[must_use]
    pub fn operator(&self) -> Operator<'_> {
        Operator::new(&self.state)
    }

    /// Writes and restores backups of the login sessions for an operator.
    #[must_use]
    pub fn backups(&self) -> Backups<'_> {
        Backups::new(&self.state)
    }

    /// The organization that has, or had, this name and this id, as its links see and change it.
    #[must_use]
    pub fn linked<'g>(&'g self, organization: &'g str, id: OrganizationId) -> LinkedOrganization<'g> {
        LinkedOrganization::new(&self.state, organization, id)
    }

    /// Sets which links each organization has, before the first policy is published. A second call does nothing.
    pub fn set_links(&self, links: LinkNames) {
        self.state.links.set(links).ok();
    }

    /// The policy snapshot of now.
    #[must_use]
    pub fn policy(&self) -> Arc<Policy> {
        self.state.policy.load_full()
    }

    /// Lets `policy` judge from now on. Ends the sessions of users and queues that are removed, and the supervisions
    /// that are no longer permitted. Returns the policy before; questions in progress may hold it for some more
    /// microseconds.
    #[must_use]
    pub fn publish(&self, policy: Policy) -> Arc<Policy> {
        let policy = Arc::new(policy);
        let before = self.state.policy.swap(Arc::clone(&policy));
        if before.revision > 0 {
            self.state.auditor().note_reload(&policy);
        }
        Endings::new(&self.state).reconcile_all(&policy);
        self.state.once.keep_only(&policy);
        before
    }

    /// Ends every login session and every supervision whose time is over, and every interval in which errors and
    /// denials of peers are counted.
    pub fn end_what_is_over(&self, now: Moment) {
        Endings::new(&self.state).expire_all(now);
        self.state.auditor().note_all_left_out(Some(now.uptime_ms));
    }

    /// The change feed of an organization. `None`: the policy has no organization of that name.
    #[must_use]
    pub fn change_feed(&self, organization: &str) -> Option<&ChangeFeed> {
        self.state.change_feeds.of(self.state.policy.load().organization(organization)?.id)
    }

    /// Counts the login sessions and the supervisions, by the policy of now.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts::of(&self.policy(), &self.state.tables)
    }

    /// Counts the login sessions that end by themselves.
    #[must_use]
    pub fn lease_counts(&self, now: Moment) -> LeaseCounts {
        LeaseCounts::of(&self.state.tables, now)
    }

    /// Counts the login sessions of each queue of the policy of now, for at most `queues_max` queues.
    #[must_use]
    pub fn queue_counts(&self, queues_max: usize) -> QueueCounts {
        QueueCounts::of(&self.policy(), &self.state.tables, queues_max)
    }

    /// Login sessions that this bound ended, since the start.
    #[must_use]
    pub fn sessions_ended(&self, bound: BoundReached) -> u64 {
        let count = match bound {
            BoundReached::Idle => &self.state.ended_idle,
            BoundReached::Shift => &self.state.ended_with_shift,
        };
        count.load(Ordering::Relaxed)
    }

    /// Login sessions that ended with their lease, since the start.
    #[must_use]
    pub fn leases_expired(&self) -> u64 {
        self.state.leases_expired.load(Ordering::Relaxed)
    }

    /// The number of supervisions that a reload has ended since the start.
    #[must_use]
    pub fn supervisions_revoked(&self) -> u64 {
        self.state.supervisions_revoked.load(Ordering::Relaxed)
    }

    /// The buffer of the audit log, with its counters. `None`: no audit log is kept.
    #[must_use]
    pub fn audit(&self) -> Option<&AuditBuffer> {
        self.state.audit.as_ref()
    }

    /// Denials that the audit log left out because their peer had too many with one reason, since the start.
    #[must_use]
    pub fn denials_left_out(&self) -> u64 {
        self.state.audited_denials.left_out()
    }

    /// Notes in the audit log that an operator gave this link of the organization a command.
    pub fn note_link_command(&self, operator: OperatorName<'_>, organization: &str, link: &str, command: &str) {
        self.state.auditor().note_link_command(operator, organization, link, command);
    }

    /// Notes in the audit log that the configuration did not load; `problems` is the number of its problems.
    pub fn note_reload_failed(&self, problems: u64) {
        self.state.auditor().note_reload_failed(problems);
    }

    /// Notes in the audit log that a question was denied without being judged.
    pub fn note_denial(&self, event: &Event<'_>, origin: &QuestionOrigin<'_>, reason: DenyReason) {
        self.state.auditor().note_denial(event, origin, reason);
    }

    /// Whether the audit log records an error of this peer now, at this uptime in milliseconds. Errors beyond the quota
    /// are counted, and their number is recorded.
    #[must_use]
    pub fn admits_error(&self, peer: QuotaKey, uptime_ms: u64) -> bool {
        self.state.auditor().admits_error(peer, uptime_ms)
    }

    /// Notes in the audit log that a request was denied because it is no question.
    pub fn note_error(&self, error: WireError, request: &ReadableRequest, origin: &QuestionOrigin<'_>) {
        self.state.auditor().note_error(error, request, origin);
    }

    /// Notes in the audit log that the answer to a question that changed nothing came too late.
    pub fn note_late_answer(&self, organization: &str, actor: &str, action: Option<&str>, origin: &QuestionOrigin<'_>) {
        self.state.auditor().note_late_answer(organization, actor, action, origin);
    }

    /// Notes in the audit log that a peer asked to watch an unknown organization.
    pub fn note_watch_denied(&self, organization: Token<'_>, origin: &QuestionOrigin<'_>, reason: DenyReason) {
        self.state.auditor().note_watch_denied(organization, origin, reason);
    }

    /// Opens the audit log in its folder, and writes its `start` record. Does nothing for a gate without an audit log.
    ///
    /// # Errors
    ///
    /// When the log cannot be written.
    pub fn open_audit(&self, options: AuditLogOptions, now: ClockReading) -> Result<(), AuditError> {
        let Some(buffer) = &self.state.audit else { return Ok(()) };
        let log = audit::open_log(options, buffer, &self.state.policy.load(), now)?;
        *self.log.lock().unwrap_or_else(PoisonError::into_inner) = Some(log);
        Ok(())
    }

    /// Opens the session store in this folder, restores its login sessions under the policy of now, and starts the
    /// writer; `clock` gives the time of what the writer writes. For a gate without a store it starts only what the
    /// audit log needs.
    ///
    /// # Errors
    ///
    /// When the store cannot be used, or its content is damaged.
    pub fn restore(
        &self,
        folder: &Path,
        now: Moment,
        observer: Box<dyn CommitObserver + Send + Sync>,
        clock: SystemClocks,
    ) -> Result<RestoredSessions, StoreError> {
        let (store, restored) = if self.has_store() {
            let (store, restored) = start::from_disk(&self.state, folder, now, clock())?;
            (Some(store), restored)
        } else {
            (start::without_store(&self.state, now), RestoredSessions::default())
        };
        if let Some(store) = store {
            self.write_to(store, observer, clock).map_err(|source| StoreError::Thread {
                path: folder.to_owned(),
                thread: WRITER_THREAD,
                source,
            })?;
        }
        Ok(restored)
    }

    /// Writes every change to this store from now on, in a thread of its own. `clock` gives the time of its records.
    ///
    /// # Errors
    ///
    /// When the thread cannot be started.
    pub fn write_to(
        &self,
        store: Box<dyn Store>,
        observer: Box<dyn CommitObserver + Send + Sync>,
        clock: SystemClocks,
    ) -> std::io::Result<()> {
        let state = Arc::clone(&self.state);
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner).take();
        let thread = std::thread::Builder::new().name(WRITER_THREAD.to_owned());
        // The thread is not joined: it reports its end through the commit queue.
        thread.spawn(move || write_all(&state, store, log, &*observer, &*clock))?;
        Ok(())
    }

    /// Waits until the thread that writes the store and the audit log has panicked; for ever if it does not. Every
    /// change is then refused and cannot be retried, so the process has to end.
    pub async fn writer_panicked(&self) {
        self.state.commit_queue.writer_panic().cancelled().await;
    }

    /// Lets the writer end once everything is written, and waits at most `timeout` for it. False: something is not
    /// written.
    #[must_use]
    pub fn close_store(&self, timeout: Duration) -> bool {
        self.state.auditor().note_all_left_out(None);
        self.state.commit_queue.stop(timeout)
    }

    /// Whether login sessions are kept over a restart.
    #[must_use]
    pub fn has_store(&self) -> bool {
        self.state.commit_queue.has_store()
    }

    /// Whether the session store takes changes.
    #[must_use]
    pub fn store_is_healthy(&self) -> bool {
        self.state.commit_queue.store_is_healthy()
    }
}
