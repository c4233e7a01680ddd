//! A poll of every queue that is under way. The link asks for one queue at a time, and looks at hints and changes in
//! between: a login session that ends must not wait for a thousand queues.

use std::collections::VecDeque;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::limits::LINK_LIST_ITEMS_MAX;
use crate::links::command::{LinkCommand, PlannedStep, PollKind};
use crate::links::members::MemberKey;
use crate::links::members::judge::MemberJudgement;
use crate::links::members::pass::QueuePass;
use crate::links::pbx_connection::LinkError;
use crate::links::status::PollReport;

/// A poll that is under way.
#[derive(Debug)]
pub(super) struct Poll {
    /// What the poll is for.
    pub(super) kind: PollKind,
    /// The queues that the link has not asked for, in the order of the directory.
    pub(super) queues_left: VecDeque<Box<str>>,
    /// When the link may ask for the next queue.
    pub(super) next_at: Instant,
    /// What the queues so far have.
    pub(super) report: PollReport,
    /// The members to look at when every queue is known.
    pub(super) members_left: VecDeque<MemberKey>,
    /// The steps for the operator who asked.
    planned: Vec<PlannedStep>,
    /// Receives those steps when they are carried out. `None`: no operator asked.
    reply: Option<oneshot::Sender<Vec<PlannedStep>>>,
}

impl Poll {
    /// A poll that the interval asks for.
    pub(super) fn regular() -> Self {
        Self::of(PollKind::Regular)
    }

    /// A poll for which nobody waits.
    pub(super) fn of(kind: PollKind) -> Self {
        Self {
            kind,
            queues_left: VecDeque::new(),
            next_at: Instant::now(),
            report: PollReport::default(),
            members_left: VecDeque::new(),
            planned: vec![],
            reply: None,
        }
    }

    /// A poll that an operator asks for.
    pub(super) fn commanded(command: LinkCommand) -> Self {
        Self { reply: Some(command.reply), ..Self::of(command.kind) }
    }

    /// An error if more members differ, or cannot be read, than a link keeps in memory.
    pub(super) fn check_size(&self) -> Result<(), LinkError> {
        if self.report.differing() <= LINK_LIST_ITEMS_MAX {
            return Ok(());
        }
        let differ = format!("more than {LINK_LIST_ITEMS_MAX} members differ from the sessions or cannot be read");
        Err(LinkError::Protocol(differ))
    }

    /// Takes note of a member to look at.
    pub(super) fn note_member(&mut self, key: MemberKey, judgement: &MemberJudgement) {
        if self.reply.is_some() {
            self.planned.extend(PlannedStep::of(&key, judgement));
        }
        if !self.kind.is_dry_run() {
            self.members_left.push_back(key);
        }
    }

    /// Takes note of a step that the share bound holds back.
    pub(super) fn note_held(&mut self, key: &MemberKey, judgement: &MemberJudgement) {
        if self.reply.is_some() {
            self.planned.extend(PlannedStep::held(key, judgement));
        }
    }

    /// Takes note of the members of a queue that cannot become sessions.
    pub(super) fn note_not_adopted(&mut self, queue: &str, found: &QueuePass) {
        self.planned.extend(PlannedStep::not_adopted(queue, found));
    }

    /// Whether every queue is known and every step is carried out.
    pub(super) fn is_done(&self) -> bool {
        self.queues_left.is_empty() && self.members_left.is_empty()
    }

    /// Answers to the operator.
    pub(super) fn finish(self) {
        if let Some(reply) = self.reply {
            // The operator may have given up.
            reply.send(self.planned).ok();
        }
    }
}
