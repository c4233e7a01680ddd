//! All members of one queue: their judgements, their numbers by state, and the steps that the bounds admit (TRUTH 2).

use std::collections::{BTreeMap, BTreeSet};

use super::bounds::UndoShare;
use super::judge::{Circumstances, MemberJudgement, MemberState, Step, judge};
use super::{Belief, Member};
use crate::config::links::UndoBounds;
use crate::limits::LINK_NAME_BYTES_MAX;

/// One queue as the PBX has it, after a complete poll.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolledQueue {
    /// The members whose names the link can read, by extension.
    pub members: BTreeMap<Box<str>, Member>,
    /// The names of members that the link cannot read; nothing is done about them.
    pub unparsed: BTreeSet<Box<str>>,
}

impl PolledQueue {
    /// Takes note of a member whose name the link cannot read. Of a long name only the beginning is kept.
    pub fn note_unparsed(&mut self, name: &str) {
        let end = (0..=LINK_NAME_BYTES_MAX.min(name.len())).rev().find(|&end| name.is_char_boundary(end));
        self.unparsed.insert(name.get(..end.unwrap_or_default()).unwrap_or_default().into());
    }
}

/// One member of a pass whose PBX and login session differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The extension of the user.
    pub extension: Box<str>,
    /// The state.
    pub state: MemberState,
}

/// What a pass over one queue found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueuePass {
    /// The number of members in each state.
    pub counts: BTreeMap<MemberState, usize>,
    /// The members that are not [`MemberState::Confirmed`], in the order of their extensions.
    pub differences: Vec<Difference>,
    /// The steps to carry out, each with its extension and its state.
    pub steps: Vec<(Box<str>, MemberJudgement)>,
    /// The bounded steps that are left out, likewise.
    pub held: Vec<(Box<str>, MemberJudgement)>,
    /// The number of members that the PBX has.
    pub members: usize,
    /// The number of login sessions.
    pub sessions: usize,
    /// The bounded steps that are left out because they are too large a share of the queue; 0: none are left out.
    pub stopped: usize,
}

/// Judges every member and every session of one queue. `beliefs` has the sessions, and what the sidecar knows of ended
/// ones, by extension. `circumstances` are those of one extension. `resumed`: an operator has admitted any share.
#[must_use]
pub fn pass<'a>(
    queue: &PolledQueue,
    beliefs: &BTreeMap<Box<str>, Belief>,
    circumstances: impl Fn(&str) -> Circumstances<'a>,
    bounds: UndoBounds,
    share: UndoShare,
    resumed: bool,
) -> QueuePass {
    let mut found = QueuePass::default();
    let extensions: BTreeSet<&Box<str>> = queue.members.keys().chain(beliefs.keys()).collect();
    for extension in extensions {
        let belief = beliefs.get(extension).unwrap_or(&Belief::Nothing);
        let judgement = judge(queue.members.get(extension), belief, &circumstances(extension));
        if let Some(state) = judgement.state {
            *found.counts.entry(state).or_default() += 1;
            if state != MemberState::Confirmed {
                found.differences.push(Difference { extension: extension.clone(), state });
            }
        }
        if judgement.step.is_some() {
            found.steps.push((extension.clone(), judgement));
        }
    }
    let bounded = found.steps.iter().filter(|(_, judgement)| is_bounded(judgement)).count();
    found.sessions = beliefs.values().filter(|belief| matches!(belief, Belief::Session(_))).count();
    found.members = queue.members.len() + queue.unparsed.len();
    if !resumed && !share.admits(bounds, bounded, found.members, found.sessions) {
        (found.held, found.steps) = found.steps.into_iter().partition(|(_, judgement)| is_bounded(judgement));
        found.stopped = bounded;
    }
    found
}

/// Whether the judgement asks for a step that the bounds count.
#[must_use]
pub fn is_bounded(judgement: &MemberJudgement) -> bool {
    judgement.state.zip(judgement.step.as_ref()).is_some_and(|(state, step)| Step::is_bounded(step, state))
}
