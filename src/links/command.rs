//! What an operator asks of a link, and the steps that the link lists in answer.

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::config::links::MembersMode;
use crate::links::members::MemberKey;
use crate::links::members::judge::{MemberJudgement, MemberState, Step};
use crate::links::members::pass::{Difference, QueuePass};

/// What a poll is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PollKind {
    /// Carries out the steps that the mode of the link allows.
    Regular,
    /// Lists the steps that the link would take in this mode, and carries none out. `None`: in its own mode.
    DryRun(Option<MembersMode>),
    /// Also adopts, in every mode, the foreign members whose users may log in.
    Adopt,
    /// As a regular poll, without the share bound.
    Resume,
}

impl PollKind {
    /// The mode in which the members are judged by a link of this mode.
    #[must_use]
    pub fn mode(self, own: MembersMode) -> MembersMode {
        if let Self::DryRun(Some(mode)) = self { mode } else { own }
    }

    /// Whether the link does nothing in such a poll.
    #[must_use]
    pub const fn is_dry_run(self) -> bool {
        matches!(self, Self::DryRun(_))
    }

    /// Whether the poll says nothing of the link as it is: another mode judges.
    #[must_use]
    pub fn is_trial(self, own: MembersMode) -> bool {
        self.mode(own) != own
    }
}

/// A poll that an operator asked for.
#[derive(Debug)]
pub struct LinkCommand {
    /// What the poll is for.
    pub kind: PollKind,
    /// Receives the steps that the poll found.
    pub reply: oneshot::Sender<Vec<PlannedStep>>,
}

/// A step that a poll found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedStep {
    /// The number of the queue.
    pub queue: String,
    /// The extension of the user.
    pub extension: String,
    /// The name of a [`MemberState`], or `gone` for a member whose session ended and that is not there.
    pub state: String,
    /// The name of the step, or [`NOT_ADOPTED`].
    pub step: String,
}

impl PlannedStep {
    /// The step of a judgement. `None`: only a note of the sidecar changes.
    #[must_use]
    pub fn of(key: &MemberKey, judgement: &MemberJudgement) -> Option<Self> {
        let step = judgement.step.as_ref()?.name()?;
        let state = judgement.state.map_or("gone", |state| state.name());
        let (queue, extension) = (key.queue.to_string(), key.extension.to_string());
        Some(Self { queue, extension, state: state.to_owned(), step: step.to_owned() })
    }
}

/// What follows a step that the share bound holds back.
pub const HELD: &str = ", held: too large a share of the queue (`undo_max_percent`)";

/// Stands in place of a step for a foreign member that an operator wanted to adopt and that stays foreign.
pub const NOT_ADOPTED: &str = "none: the user may not log in";

impl PlannedStep {
    /// A step that the share bound holds back.
    #[must_use]
    pub fn held(key: &MemberKey, judgement: &MemberJudgement) -> Option<Self> {
        let planned = Self::of(key, judgement)?;
        Some(Self { step: format!("{}{HELD}", planned.step), ..planned })
    }

    /// The foreign members of a queue that cannot become sessions, because their users may not log in today.
    pub fn not_adopted<'a>(queue: &'a str, found: &'a QueuePass) -> impl Iterator<Item = Self> + 'a {
        let is_left = |difference: &&Difference| {
            difference.state == MemberState::Foreign
                && !found.steps.iter().any(|(extension, judgement)| {
                    *extension == difference.extension && matches!(judgement.step, Some(Step::Adopt { .. }))
                })
        };
        found.differences.iter().filter(is_left).map(|difference| Self {
            queue: queue.to_owned(),
            extension: difference.extension.to_string(),
            state: MemberState::Foreign.name().to_owned(),
            step: NOT_ADOPTED.to_owned(),
        })
    }
}
