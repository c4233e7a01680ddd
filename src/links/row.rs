//! A link as an operator sees it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::links::Link;
use crate::links::members::judge::MemberState;

/// A link in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkRow {
    /// The name of the link.
    pub link: String,
    /// The kind of the PBX.
    pub kind: String,
    /// The address of the PBX.
    pub address: String,
    /// The organization.
    pub org: String,
    /// How far the link goes with members.
    pub members: String,
    /// Whether the link is logged in.
    pub up: bool,
    /// When it came up or went down, in seconds since 1970. `None`: it was never up.
    pub since_unix_seconds: Option<u64>,
    /// The end of the last complete poll, in seconds since 1970. `None`: there was none.
    pub last_poll_unix_seconds: Option<u64>,
    /// The number of members in each state at that poll, and `unparsed`.
    pub counts: BTreeMap<String, usize>,
    /// Queues in which the share bound stops the link until `links resume`.
    pub stopped: Vec<String>,
    /// Why the connection could not be opened, or broke last.
    pub last_error: Option<String>,
    /// What an operator last asked of the link: `reconcile`, `dry-run`, `adopt` or `resume`. `None`: nothing yet.
    #[serde(default)]
    pub last_command: Option<String>,
    /// The operator who asked.
    #[serde(default)]
    pub last_command_by: Option<String>,
    /// When the operator asked, in seconds since 1970.
    #[serde(default)]
    pub last_command_unix_seconds: Option<u64>,
}

/// A member that differs, for `links show`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DifferenceRow {
    /// The number of the queue.
    pub queue: String,
    /// The extension of the user, or the name at the PBX that the link cannot read.
    pub member: String,
    /// The state.
    pub state: String,
}

/// A link with its differences.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkDetails {
    /// The link.
    #[serde(flatten)]
    pub row: LinkRow,
    /// The members that differed at the last poll.
    pub differences: Vec<DifferenceRow>,
    /// Queues of the organization that the PBX lacks.
    pub missing_queues: Vec<String>,
    /// Actions that the PBX refused.
    pub refused: Vec<String>,
}

impl LinkDetails {
    /// The link as it is now.
    #[must_use]
    pub fn of(link: &Link) -> Self {
        let (state, terms, (kind, address)) = (link.status.state(), link.terms(), link.peer());
        let mut counts = BTreeMap::new();
        let mut differences = vec![];
        for member_state in MemberState::ALL {
            let passes = state.report.queues.values();
            let count = passes.filter_map(|pass| pass.counts.get(member_state)).sum::<usize>();
            counts.insert(member_state.name().to_owned(), count);
        }
        counts.insert("unparsed".to_owned(), state.report.unparsed.len());
        for (queue, pass) in &state.report.queues {
            for difference in &pass.differences {
                let (member, state) = (difference.extension.to_string(), difference.state.name().to_owned());
                differences.push(DifferenceRow { queue: queue.to_string(), member, state });
            }
        }
        for (queue, name) in &state.report.unparsed {
            let (queue, member) = (queue.to_string(), name.to_string());
            differences.push(DifferenceRow { queue, member, state: "unparsed".to_owned() });
        }
        let strings = |names: &mut dyn Iterator<Item = &Box<str>>| names.map(ToString::to_string).collect();
        let row = LinkRow {
            link: terms.name.to_string(),
            kind: kind.to_owned(),
            address,
            org: terms.organization.to_string(),
            members: terms.members.name().to_owned(),
            up: state.is_up,
            since_unix_seconds: state.since.map(|since| since.second().0),
            last_poll_unix_seconds: state.last_poll.map(|at| at.second().0),
            counts,
            stopped: strings(&mut state.stopped.iter()),
            last_error: state.last_error.clone(),
            last_command: state.last_command.as_ref().map(|last| last.command.clone()),
            last_command_by: state.last_command.as_ref().map(|last| last.by.clone()),
            last_command_unix_seconds: state.last_command.as_ref().map(|last| last.at.second().0),
        };
        let missing_queues = strings(&mut state.report.missing.iter());
        Self { row, differences, missing_queues, refused: state.refusals.into_iter().collect() }
    }
}
