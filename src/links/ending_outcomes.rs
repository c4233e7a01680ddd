//! What became of queue members and listening channels after a command ended their login sessions or supervisions, in
//! words for the operator (TRUTH 2).
//!
//! A command waits at most [`MEMBER_OUTCOME_MAX`] for the outcome: a link looks at a member 300 ms after its session
//! ended.

use std::sync::Arc;

use tokio::time::{Duration, Instant, sleep};

use crate::config::links::SupervisionsMode;
use crate::gate::Gate;
use crate::limits::MEMBER_OUTCOME_MAX;
use crate::links::members::{Belief, MemberKey};
use crate::links::recent_acts::{ActMark, LinkAct};
use crate::links::supervisions::Listener;
use crate::links::{Link, Links};

/// Pause between two looks at what the links did.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// The outcome in an organization without a link.
const NO_LINK: &str = "no link";

/// The outcomes of one command at the PBXs of its organization.
#[derive(Debug)]
pub struct EndingOutcomes {
    organization: String,
    /// The links of the organization, each with the point in its acts before the command.
    links: Vec<(Arc<Link>, ActMark)>,
}

/// An ended supervision, by the names of the organization.
#[derive(Clone, Copy, Debug)]
pub struct EndedSupervision<'a> {
    /// The channel that asked. `None`: the dialect names no channel.
    pub channel: Option<&'a str>,
    /// The extension of the supervisor.
    pub supervisor: &'a str,
    /// The extension of the target. `None`: a conversation of no user.
    pub target: Option<&'a str>,
}

impl EndingOutcomes {
    /// Notes what each link has done so far. Called before the command ends anything.
    #[must_use]
    pub fn begin(links: &Links, organization: &str) -> Self {
        let own = links.all().filter(|link| *link.terms().organization == *organization);
        let links = own.map(|link| (Arc::clone(link), link.status.acts.mark())).collect();
        Self { organization: organization.to_owned(), links }
    }

    /// What became of the members of ended sessions: a list for each member, with a text for each link.
    pub async fn of_members(&self, gate: &Gate, keys: &[MemberKey]) -> Vec<Vec<String>> {
        let outcome = |link: &Link, mark, key: &MemberKey| self.member_outcome(gate, link, mark, key);
        self.of_all(keys, |_| true, outcome, |link| format!("{} has not removed it yet", link.terms().name)).await
    }

    /// What became of the channels of ended supervisions: a list for each supervision, with a text for each link.
    pub async fn of_supervisions(&self, ended: &[EndedSupervision<'_>]) -> Vec<Vec<String>> {
        let sees = |link: &Link| link.terms().supervisions != SupervisionsMode::Off;
        self.of_all(ended, sees, supervision_outcome, |link| format!("{} sees no such listener", link.terms().name))
            .await
    }

    async fn of_all<T>(
        &self,
        ended: &[T],
        concerns: impl Fn(&Link) -> bool,
        outcome: impl Fn(&Link, ActMark, &T) -> Option<String>,
        nothing_yet: impl Fn(&Link) -> String,
    ) -> Vec<Vec<String>> {
        let links: Vec<_> = self.links.iter().filter(|(link, _)| concerns(link)).collect();
        if links.is_empty() {
            return ended.iter().map(|_| vec![NO_LINK.to_owned()]).collect();
        }
        let mut outcomes: Vec<Vec<Option<String>>> = ended.iter().map(|_| vec![None; links.len()]).collect();
        let deadline = Instant::now() + MEMBER_OUTCOME_MAX;
        loop {
            for (one, texts) in ended.iter().zip(&mut outcomes) {
                for ((link, mark), text) in links.iter().zip(texts) {
                    if text.is_none() {
                        *text = outcome(link, *mark, one);
                    }
                }
            }
            let is_complete = outcomes.iter().flatten().all(Option::is_some);
            if is_complete || Instant::now() >= deadline {
                break;
            }
            sleep(LOOK_INTERVAL).await;
        }
        let known = |texts: Vec<Option<String>>| {
            let texts = texts.into_iter().zip(&links);
            texts.map(|(text, (link, _))| text.unwrap_or_else(|| nothing_yet(link))).collect()
        };
        outcomes.into_iter().map(known).collect()
    }

    /// What became of one member at one PBX. `None`: that is not known yet.
    fn member_outcome(&self, gate: &Gate, link: &Link, mark: ActMark, key: &MemberKey) -> Option<String> {
        let (name, acts) = (&link.terms().name, &link.status.acts);
        if acts.any_since(mark, |act| matches!(act, LinkAct::Removed(removed) if removed == key)) {
            return Some(format!("removed from {name}"));
        }
        let id = gate.policy().organization(&*self.organization)?.id;
        match gate.linked(&self.organization, id).belief(key, name) {
            Belief::Session(_) => Some("logged in again".to_owned()),
            Belief::Nothing => Some(format!("no member at {name}")),
            Belief::Leaving if !link.status.is_up() => Some(format!("{name} is down, will be removed")),
            Belief::Leaving => acts
                .any_since(mark, |act| matches!(act, LinkAct::RemovalRefused(refused) if refused == key))
                .then(|| format!("{name} refuses to remove it, will be tried again")),
        }
    }
}

/// What became of the channel of one supervision at one PBX. `None`: nothing until now.
fn supervision_outcome(link: &Link, mark: ActMark, ended: &EndedSupervision<'_>) -> Option<String> {
    let name = &link.terms().name;
    let is_its = |listener: &Listener| match ended.channel {
        Some(channel) => *listener.channel == *channel,
        None => listener.supervisor.as_deref() == Some(ended.supervisor) && listener.target.as_deref() == ended.target,
    };
    let acts = &link.status.acts;
    if acts.any_since(mark, |act| matches!(act, LinkAct::HungUp(listener) if is_its(listener))) {
        return Some(format!("hung up at {name}"));
    }
    if acts.any_since(mark, |act| matches!(act, LinkAct::HangUpRefused(listener) if is_its(listener))) {
        return Some(format!("{name} refuses to hang up"));
    }
    (!link.status.is_up()).then(|| format!("{name} is down"))
}
