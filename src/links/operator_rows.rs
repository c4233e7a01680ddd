//! A link as an operator sees it: the rows of `queuewarden links` and of the admin API.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::limits::LINK_DIFFERENCES_SHOWN_MAX;
use crate::links::Link;
use crate::links::evapi::EvapiLink;
use crate::links::members::judge::MemberState;
use crate::links::status::LinkTimes;
use crate::links::supervisions::Listener;

/// A link in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkRow {
    /// The name of the link.
    pub link: String,
    /// The kind of the PBX.
    pub kind: String,
    /// The address of the PBX.
    pub address: String,
    /// The organization. `None`: the PBX names the organization in each question.
    pub org: Option<String>,
    /// How far the link goes with members. `None`: the PBX has no queue members.
    pub members: Option<String>,
    /// How far the link goes with channels that listen. `None`: the link does not see channels.
    pub supervisions: Option<String>,
    /// Whether the link is logged in.
    pub up: bool,
    /// When it came up or went down, in seconds since 1970. `None`: it was not tried yet.
    pub since_unix_seconds: Option<u64>,
    /// The end of the last complete poll, in seconds since 1970. `None`: there was none.
    pub last_poll_unix_seconds: Option<u64>,
    /// The number of members in each state at that poll, and `unparsed`; empty without queue members.
    pub counts: BTreeMap<String, usize>,
    /// Queues in which the share bound stops the link until `links resume`.
    pub stopped: Vec<String>,
    /// Why the connection could not be opened, or broke last. `None`: it was opened at once, and never broke.
    pub last_error: Option<String>,
    /// When the connection could not be opened or broke, in seconds since 1970. `None`: as for `last_error`.
    pub last_error_unix_seconds: Option<u64>,
    /// What an operator last asked of the link: `reconcile`, `dry-run`, `adopt` or `resume`. `None`: nothing yet.
    #[serde(default)]
    pub last_command: Option<String>,
    /// The operator who asked. `None`: as for `last_command`.
    #[serde(default)]
    pub last_command_by: Option<String>,
    /// When the operator asked, in seconds since 1970. `None`: as for `last_command`.
    #[serde(default)]
    pub last_command_unix_seconds: Option<u64>,
}

impl LinkRow {
    /// A row without the results of a poll.
    fn new(name: &str, kind: &str, address: String, times: &LinkTimes) -> Self {
        let (last_error, last_error_at) = times.last_error.clone().unzip();
        Self {
            link: name.to_owned(),
            kind: kind.to_owned(),
            address,
            org: None,
            members: None,
            supervisions: None,
            up: times.is_up,
            since_unix_seconds: times.since.map(|since| since.second().0),
            last_poll_unix_seconds: None,
            counts: BTreeMap::new(),
            stopped: vec![],
            last_error,
            last_error_unix_seconds: last_error_at.map(|at| at.second().0),
            last_command: None,
            last_command_by: None,
            last_command_unix_seconds: None,
        }
    }
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

/// A channel that listened and that nobody allowed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViolationRow {
    /// The unique id of the channel.
    pub channel: String,
    /// The extension of the user of the channel. `None`: unknown.
    pub supervisor: Option<String>,
    /// The extension of the user who was listened to. `None`: unknown.
    pub target: Option<String>,
}

/// A link with its differences.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkDetails {
    /// The link.
    #[serde(flatten)]
    pub row: LinkRow,
    /// The members that differed at the last poll; at most [`LINK_DIFFERENCES_SHOWN_MAX`].
    pub differences: Vec<DifferenceRow>,
    /// The number of further members that differed.
    pub left_out: usize,
    /// Queues of the organization that the PBX lacks.
    pub missing_queues: Vec<String>,
    /// Actions that the PBX refused.
    pub refused: Vec<String>,
    /// The last channels that listened and that nobody allowed, the oldest first.
    pub violations: Vec<ViolationRow>,
}

impl LinkDetails {
    /// The connection to a Kamailio as it is now.
    #[must_use]
    pub fn of_evapi(link: &EvapiLink) -> Self {
        let row = LinkRow::new(&link.name, "kamailio", link.address.to_string(), &link.times());
        Self { row, differences: vec![], left_out: 0, missing_queues: vec![], refused: vec![], violations: vec![] }
    }

    /// The link without its differences, for a list of links.
    #[must_use]
    pub fn in_list(mut self) -> Self {
        self.left_out += self.differences.len();
        self.differences.clear();
        self
    }

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
            let (queue, member) = (queue.to_string(), printable(name));
            differences.push(DifferenceRow { queue, member, state: "unparsed".to_owned() });
        }
        let strings = |names: &mut dyn Iterator<Item = &Box<str>>| names.map(ToString::to_string).collect();
        let row = LinkRow {
            org: Some(terms.organization.to_string()),
            members: Some(terms.members.name().to_owned()),
            supervisions: Some(terms.supervisions.name().to_owned()),
            last_poll_unix_seconds: state.last_poll.map(|at| at.second().0),
            counts,
            stopped: strings(&mut state.stopped.iter()),
            last_command: state.last_command.as_ref().map(|last| last.command.clone()),
            last_command_by: state.last_command.as_ref().map(|last| last.by.clone()),
            last_command_unix_seconds: state.last_command.as_ref().map(|last| last.at.second().0),
            ..LinkRow::new(&terms.name, kind, address, &state.times)
        };
        let missing_queues = strings(&mut state.report.missing.iter());
        let left_out = differences.len().saturating_sub(LINK_DIFFERENCES_SHOWN_MAX);
        differences.truncate(LINK_DIFFERENCES_SHOWN_MAX);
        let text = |name: &Option<Box<str>>| name.as_deref().map(printable);
        let violation = |listener: &Listener| ViolationRow {
            channel: printable(&listener.channel),
            supervisor: text(&listener.supervisor),
            target: text(&listener.target),
        };
        let violations = state.violations.iter().map(violation).collect();
        let refused = state.refusals.iter().map(|refused| printable(refused)).collect();
        Self { row, differences, left_out, missing_queues, refused, violations }
    }
}

/// A name at the PBX without the characters that a terminal obeys.
fn printable(name: &str) -> String {
    name.chars().map(|character| if character.is_control() { '?' } else { character }).collect()
}
