//! Which lines of the audit log are selected, and the names by which: an extension or an id, by what the line holds and
//! by the configuration of today.

use std::collections::BTreeMap;
use std::path::Path;

use clap::Args;
use jiff::Timestamp;
use memchr::memmem::Finder;
use serde_json::{Map, Value};
use thiserror::Error;

use crate::audit::search::{Period, time_of};
use crate::cli::audit::line_text::{parsed, text};
use crate::cli::audit::times;
use crate::config::{self, suggest};
use crate::decision::{AllowReason, DenyReason, ErrorReason};
use crate::gate::change_feed::Cause;
use crate::policy::{Organization, Policy};

/// Texts of which a line must hold one: with more of them the line is parsed at once, which costs less.
const NEEDLES_MAX: usize = 16;

/// Selects lines of the log.
#[derive(Debug, Args)]
pub(super) struct FilterArguments {
    /// Only lines of this time or later: 18:29, '2026-11-28 18:29' in local time, or 2026-11-28T17:29:00Z.
    #[arg(long, value_name = "TIME", value_parser = times::parse_past)]
    from: Option<Timestamp>,
    /// Only lines before this time.
    #[arg(long, value_name = "TIME", value_parser = times::parse)]
    to: Option<Timestamp>,
    /// Only of this organization.
    #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
    pub(super) org: Option<String>,
    /// Only with this actor, or with this user of an event that no peer asked for: an extension or a user id.
    #[arg(long, value_name = "USER", allow_hyphen_values = true)]
    actor: Option<String>,
    /// Only with this target: an extension or a user id.
    #[arg(long, value_name = "USER", allow_hyphen_values = true)]
    target: Option<String>,
    /// Only with this queue: a number or an id.
    #[arg(long, value_name = "QUEUE", allow_hyphen_values = true)]
    queue: Option<String>,
    /// Only with this verdict.
    #[arg(long, value_name = "VERDICT", value_parser = ["allow", "deny"])]
    verdict: Option<String>,
    /// Only with this reason.
    #[arg(long, value_name = "REASON", value_parser = parse_reason)]
    reason: Option<&'static str>,
}

/// Why a text is not a reason.
#[derive(Debug, Error)]
#[error("there is no such reason{hint}")]
struct ReasonError {
    hint: String,
}

fn parse_reason(text: &str) -> Result<&'static str, ReasonError> {
    let allow = AllowReason::ALL.iter().map(|reason| reason.code());
    let deny = DenyReason::ALL.iter().map(|reason| reason.code());
    let error = ErrorReason::ALL.iter().map(|reason| reason.code());
    let codes: Vec<&'static str> =
        allow.chain(deny).chain(error).chain(Cause::ALL.iter().map(|it| it.name())).collect();
    let known = codes.iter().copied().find(|code| *code == text);
    known.ok_or_else(|| ReasonError { hint: suggest::hint(text, codes) })
}

/// What kind of thing a name is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NameKind {
    Organization,
    Queue,
    User,
}

/// A name that the configuration of today does not have.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("no line was found, and the configuration has no {kind} `{name}`{hint}")]
pub(super) struct UnknownName {
    kind: &'static str,
    name: String,
    hint: String,
}

/// A name to look for in some members of a line.
#[derive(Debug)]
struct NameFilter {
    members: &'static [&'static str],
    /// The name as it was given.
    given: String,
    /// The other name of the same user or queue, by organization.
    others: BTreeMap<Box<str>, Box<str>>,
}

impl NameFilter {
    fn admits(&self, line: &Map<String, Value>) -> bool {
        let other = line.get("organization").and_then(Value::as_str).and_then(|name| self.others.get(name));
        let is_wanted = |name: &str| name == self.given || other.is_some_and(|other| **other == *name);
        self.members.iter().any(|member| match line.get(*member) {
            Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).any(is_wanted),
            Some(Value::String(name)) => is_wanted(name),
            _ => false,
        })
    }

    /// The texts of which a line must hold one. `None`: there are too many.
    fn needles(&self) -> Option<Vec<String>> {
        let mut names: Vec<&str> = self.others.values().map(|name| &**name).chain([&*self.given]).collect();
        names.sort_unstable();
        names.dedup();
        (names.len() <= NEEDLES_MAX).then(|| names.into_iter().map(|name| Value::from(name).to_string()).collect())
    }
}

/// Selects lines of the log, with every name that they may have.
#[derive(Debug)]
pub(super) struct LineFilter {
    pub(super) period: Period,
    names: Vec<NameFilter>,
    verdict: Option<String>,
    reason: Option<&'static str>,
    /// Of each list, a line must hold one.
    needles: Vec<Vec<Finder<'static>>>,
    /// The names that the configuration of today does not have.
    pub(super) unknown: Vec<UnknownName>,
    /// The configuration does not load: names are not checked, and a line is found by the name that it holds only.
    pub(super) is_unresolved: bool,
}

impl LineFilter {
    /// The filter of the arguments, by the configuration in this folder.
    pub(super) fn new(arguments: &FilterArguments, folder: &Path) -> Self {
        let period = Period { from: arguments.from, to: arguments.to };
        let FilterArguments { org, actor, target, queue, verdict, reason, .. } = arguments;
        let given = [
            (NameKind::Organization, &["organization"][..], org),
            (NameKind::User, &["actor", "user"], actor),
            (NameKind::User, &["target"], target),
            (NameKind::Queue, &["queues", "from"], queue),
        ];
        let given = given.into_iter().filter_map(|(kind, members, name)| Some((kind, members, name.as_deref()?)));
        let mut filter = Self {
            period,
            names: vec![],
            verdict: verdict.clone(),
            reason: *reason,
            needles: vec![],
            unknown: vec![],
            is_unresolved: false,
        };
        let given: Vec<_> = given.collect();
        let loaded = if given.is_empty() { None } else { config::load(folder, &Policy::default()).ok() };
        let policy = loaded.as_ref().map(|loaded| &loaded.policy);
        filter.is_unresolved = policy.is_none() && !given.is_empty();
        for (kind, members, name) in given {
            let names = policy.map_or_else(BTreeMap::new, |policy| filter.look_up(policy, org.as_deref(), kind, name));
            filter.names.push(NameFilter { members, given: name.to_owned(), others: names });
        }
        let words = [verdict.as_deref(), *reason].into_iter().flatten().map(|word| vec![Value::from(word).to_string()]);
        let needles = filter.names.iter().filter_map(NameFilter::needles).chain(words);
        let finders = |texts: Vec<String>| texts.iter().map(|text| Finder::new(text.as_bytes()).into_owned()).collect();
        filter.needles = needles.map(finders).collect();
        filter
    }

    /// The other names of what a name means, by organization; notes a name that means nothing.
    fn look_up(
        &mut self,
        policy: &Policy,
        org: Option<&str>,
        kind: NameKind,
        name: &str,
    ) -> BTreeMap<Box<str>, Box<str>> {
        let organizations = || policy.organizations().filter(|it| org.is_none_or(|org| *it.name == *org));
        if kind == NameKind::Organization {
            if organizations().next().is_none() {
                let hint = suggest::hint(name, policy.organizations().map(|organization| &*organization.name));
                self.unknown.push(UnknownName { kind: "organization", name: name.to_owned(), hint });
            }
            return BTreeMap::new();
        }
        let mut others = BTreeMap::new();
        for organization in organizations() {
            if let Some(other) = other_name(organization, kind, name) {
                others.insert(organization.name.as_ref().into(), other.into());
            }
        }
        // Of an unknown organization nothing is known; that it is unknown is noted already.
        if others.is_empty() && organizations().next().is_some() {
            let (kind, hint) = match kind {
                NameKind::Queue => ("queue", suggest::hint(name, organizations().flat_map(queue_names))),
                _ => ("user", suggest::hint(name, organizations().flat_map(user_names))),
            };
            self.unknown.push(UnknownName { kind, name: name.to_owned(), hint });
        }
        others
    }

    /// Whether a line of the block can be selected: the block has a text of each list. Most blocks of a log have none
    /// of a rare name, and one search in a block is much quicker than one in each of its lines.
    pub(super) fn may_admit(&self, block: &[u8]) -> bool {
        self.needles.iter().all(|texts| texts.iter().any(|text| text.find(block).is_some()))
    }

    /// Whether the line, as it is in the log, is selected.
    pub(super) fn admits(&self, line: &[u8]) -> Option<Map<String, Value>> {
        let has_one = |texts: &Vec<Finder<'_>>| texts.iter().any(|text| text.find(line).is_some());
        if !self.needles.iter().all(has_one) {
            return None;
        }
        if !self.period.is_endless() && !time_of(line).is_some_and(|time| self.period.has(time)) {
            return None;
        }
        let line = parsed(line)?;
        let is = |wanted: Option<&str>, key: &str| wanted.is_none_or(|wanted| text(&line, key) == wanted);
        let is_admitted = is(self.verdict.as_deref(), "verdict")
            && is(self.reason, "reason")
            && self.names.iter().all(|name| name.admits(&line));
        is_admitted.then_some(line)
    }
}

/// The id of an extension or number, or the extension or number of an id. `None`: the organization has no such name.
fn other_name<'p>(organization: &'p Organization, kind: NameKind, name: &str) -> Option<&'p str> {
    let directory = &organization.directory;
    let (id, number) = match kind {
        NameKind::Organization => return None,
        NameKind::Queue => {
            let queue = directory.queue(directory.queue_named(name)?)?;
            (&*queue.id, &*queue.number)
        }
        NameKind::User => {
            let user = directory.user_named(name)?;
            (user.configured_id(), user.extension())
        }
    };
    Some(if id == name { number } else { id })
}

fn user_names(organization: &Organization) -> impl Iterator<Item = &str> {
    organization.directory.users().flat_map(|user| [user.configured_id(), user.extension()])
}

fn queue_names(organization: &Organization) -> impl Iterator<Item = &str> {
    organization.directory.queues().flat_map(|(_, queue)| [&*queue.id, &*queue.number])
}
