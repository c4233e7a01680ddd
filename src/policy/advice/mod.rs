//! Advice: the smallest change that turns a denial into an allow, tried before it is proposed.
//!
//! A proposal is a list of steps. Every step is carried out on a [`draft::Draft`], a small copy of the organization,
//! and a list is proposed only if the draft would load, the same question is then allowed, and no step of the list can
//! be left out. Of several such lists the smallest is the one that gives the fewest other rights: every question that a
//! user may ask after the change and may not ask before it counts, by [`super::survey`]. Where no list turns the
//! denial, the advice says why.

mod draft;
mod remedies;
mod rights;
mod scope;
mod step;

use std::collections::{HashMap, VecDeque};

use crate::decision::{Decision, DenyReason};
use crate::event::{Event, Request};
use crate::policy::Organization;
use crate::policy::advice::draft::Draft;
use crate::policy::advice::remedies::{DeniedQuestion, Steps, missing_keys, unresolved};
use crate::policy::advice::rights::RightsCount;
use crate::policy::advice::step::Step;
use crate::policy::decide::{JudgedQueues, SessionView, SupervisionCounts, decide};
use crate::policy::facts::Fact;
use crate::policy::feature_codes::{DialedArguments, FeatureCodes};
use crate::policy::resolve::{self, Question, ReportedCall, ResolveError, resolve};
use crate::telephony::{QueueId, QueueSet};

/// Lists of steps that are tried for one denial.
const TRIALS_MAX: usize = 400;

/// Denials that one list may have to turn one after the other, for example an unknown user, then a missing role.
const DENIALS_PER_LIST_MAX: usize = 4;

/// Lists whose rights are counted.
const COUNTED_LISTS_MAX: usize = 16;

/// What would turn a denial.
#[derive(Debug, Default)]
pub(super) struct Advice {
    /// The steps that together turn the denial, in order. Empty: no change was found.
    pub(super) steps: Vec<String>,
    /// The grant that allows the question after the steps, by position in the role model. `None`: there are no steps.
    pub(super) grant: Option<u16>,
    /// Why no change turns the denial. `None`: there are steps.
    pub(super) why_none: Option<String>,
}

/// The smallest change that turns the denial of the event. `subject` names the user whose login sessions `sessions`
/// are.
pub(super) fn advise(
    organization: &Organization,
    event: &Event<'_>,
    call: Option<ReportedCall>,
    sessions: &impl SessionView,
    supervisions: SupervisionCounts,
    subject: &str,
) -> Advice {
    if let Some(why) = why_swapped(organization, event) {
        return Advice { why_none: Some(why), ..Advice::default() };
    }
    let draft = Draft::new(organization, event, call, sessions, supervisions);
    let trials = Trials { event, codes: codes_for(organization, event) };
    let lists = trials.search(&draft);
    let Some((steps, grant)) = trials.smallest(&draft, lists) else {
        return Advice { why_none: Some(trials.why_none(&draft)), ..Advice::default() };
    };
    let mut before = draft;
    let mut sentences = vec![];
    for (position, step) in steps.iter().enumerate() {
        // A limit that is raised again later is set once, to its last value.
        let is_raised_again =
            matches!(step, Step::Raise { .. }) && steps.get(position + 1..).is_some_and(|later| later.contains(step));
        if !is_raised_again {
            sentences.push(step.sentence(&before, subject));
        }
        step.apply(&mut before);
    }
    Advice { steps: sentences, grant, why_none: None }
}

/// The feature codes that a trial needs: none for an action that is named.
fn codes_for(organization: &Organization, event: &Event<'_>) -> FeatureCodes {
    match event.request {
        Request::Dial(_) => organization.feature_codes.clone(),
        Request::Action(_) => FeatureCodes::default(),
    }
}

/// The result of one trial.
enum Trial {
    /// The question is allowed, by this grant.
    Allowed(Option<u16>),
    /// It is denied; one of these lists of further steps may turn it.
    Denied(Vec<Steps>),
    /// The draft does not load, or the question is an error.
    Hopeless,
}

/// The lists of steps that were tried, and whether they turn the denial.
type TriedSteps = HashMap<Steps, bool>;

struct Trials<'e> {
    event: &'e Event<'e>,
    codes: FeatureCodes,
}

impl Trials<'_> {
    /// Asks the question of the draft.
    fn ask(&self, draft: &Draft<'_>) -> Trial {
        let Some(policy) = draft.policy(self.codes.clone()) else { return Trial::Hopeless };
        let event = draft.event(self.event);
        let question = match resolve(&policy, &event, draft.call()) {
            Ok(question) => question,
            Err(ResolveError::Faulty(_)) => return Trial::Hopeless,
            Err(ResolveError::Denied { reason: DenyReason::MissingAttribute, known }) => {
                let missing = known.organization.map(|organization| resolve::missing_keys(organization, &event));
                return Trial::Denied(missing_keys(draft, missing.unwrap_or_default()));
            }
            Err(ResolveError::Denied { reason, .. }) => {
                return Trial::Denied(unresolved(draft, reason, &event, self.dialed_arguments()));
            }
        };
        let mut all = QueueSet::new();
        let judgement = decide(&question, &draft.sessions, &mut all);
        match judgement.decision {
            Decision::Allow { grant, .. } => Trial::Allowed(grant),
            Decision::Deny { reason } => {
                let queue = match judgement.queues {
                    JudgedQueues::Nothing => None,
                    JudgedQueues::One(queue) => Some(queue),
                    JudgedQueues::All => failing_queue(&question, draft, &all),
                };
                let denied = DeniedQuestion { draft, question: &question, action: judgement.action, queue, reason };
                Trial::Denied(denied.alternatives())
            }
        }
    }

    fn dialed_arguments(&self) -> DialedArguments<'_> {
        let Request::Dial(digits) = &self.event.request else { return DialedArguments::default() };
        self.codes.translate(digits.as_str()).map(|translation| translation.arguments).unwrap_or_default()
    }

    /// The lists of steps that turn the denial, found from the shortest on, without steps that are not needed.
    fn search(&self, draft: &Draft<'_>) -> Vec<Steps> {
        let (mut found, mut tried) = (vec![], TriedSteps::new());
        let mut pending = VecDeque::from([(Steps::new(), 0)]);
        while let Some((steps, denials)) = pending.pop_front() {
            if tried.len() >= TRIALS_MAX || found.len() >= COUNTED_LISTS_MAX * 2 {
                break;
            }
            // Several grants may need the same.
            if tried.contains_key(&steps) {
                continue;
            }
            let Some(changed) = draft.after(&steps) else { continue };
            let trial = self.ask(&changed);
            tried.insert(steps.clone(), matches!(trial, Trial::Allowed(_)));
            match trial {
                Trial::Allowed(_) => found.push(steps),
                Trial::Denied(mut alternatives) if denials < DENIALS_PER_LIST_MAX => {
                    alternatives.sort_by_key(|steps| changes_roles(steps));
                    let longer = alternatives.into_iter().map(|more| ([steps.clone(), more].concat(), denials + 1));
                    pending.extend(longer);
                }
                Trial::Denied(_) | Trial::Hopeless => {}
            }
        }
        let mut needed: Vec<Steps> = vec![];
        for list in found {
            let list = self.without_idle_steps(draft, list, &mut tried);
            if !needed.contains(&list) {
                needed.push(list);
            }
        }
        needed
    }

    /// The list that gives the fewest other rights, and the grant that then allows the question. A list that changes
    /// nobody's role comes before one that does: the setting, the queue or the group is what the role model has for
    /// this denial. Of equal lists the shortest wins, then the one that was found first.
    fn smallest(&self, draft: &Draft<'_>, mut lists: Vec<Steps>) -> Option<(Steps, Option<u16>)> {
        lists.sort_by_key(Vec::len);
        lists.truncate(COUNTED_LISTS_MAX);
        if lists.iter().any(|steps| !changes_roles(steps)) {
            lists.retain(|steps| !changes_roles(steps));
        }
        let smallest = if let [only] = &*lists { only.clone() } else { with_fewest_rights(draft, lists)? };
        match self.ask(&draft.after(&smallest)?) {
            Trial::Allowed(grant) => Some((smallest, grant)),
            _ => None,
        }
    }

    fn without_idle_steps(&self, draft: &Draft<'_>, mut steps: Steps, tried: &mut TriedSteps) -> Steps {
        let mut position = 0;
        while position < steps.len() {
            let mut fewer = steps.clone();
            fewer.remove(position);
            let ask = || draft.after(&fewer).is_some_and(|draft| matches!(self.ask(&draft), Trial::Allowed(_)));
            let known = tried.get(&fewer).copied();
            let is_enough = known.unwrap_or_else(ask);
            tried.insert(fewer.clone(), is_enough);
            if is_enough {
                steps = fewer;
            } else {
                position += 1;
            }
        }
        steps
    }

    /// Why no change of the organization's file turns the denial.
    fn why_none(&self, draft: &Draft<'_>) -> String {
        let name = &draft.base.name;
        let Some(policy) = draft.policy(self.codes.clone()) else {
            return format!("the configuration of organization `{name}` does not load");
        };
        let event = draft.event(self.event);
        match resolve(&policy, &event, draft.call()) {
            Ok(question) => why_denied(&question, draft),
            Err(ResolveError::Faulty(_)) => "the question itself is faulty".to_owned(),
            Err(ResolveError::Denied { reason, known }) => match reason {
                DenyReason::UnknownAction => {
                    format!("the role model `{}` has no such action: correct the name", draft.base.model.file)
                }
                DenyReason::UnknownFeatureCode => {
                    format!("no feature code of organization `{name}` matches the digits: correct or add the code")
                }
                DenyReason::WrongKind => {
                    let kinds = known.action.map(|action| action.kinds.iter().map(|kind| kind.name()).collect());
                    let kinds: Vec<&str> = kinds.unwrap_or_default();
                    format!("the action is for queues of kind {} only", kinds.join(", "))
                }
                DenyReason::UnknownUser
                | DenyReason::UnknownTarget
                | DenyReason::UnknownQueue
                | DenyReason::UnknownGroup => {
                    format!("organization `{name}` has no such name and cannot have it: correct the name")
                }
                DenyReason::TargetOutOfScope => {
                    let actor = self.event.actor.as_str();
                    format!("the action is about the actor alone: dial the extension of `{actor}` in the code")
                }
                DenyReason::CallMismatch => "the target or the queue is not that of the call".to_owned(),
                _ => format!("no change of organization `{name}` was found that allows the question"),
            },
        }
    }
}

/// Of these lists, sorted by length, the first of those that give the fewest rights.
fn with_fewest_rights(draft: &Draft<'_>, lists: Vec<Steps>) -> Option<Steps> {
    let rights = RightsCount::of(draft);
    let mut fewest: Option<(u64, Steps)> = None;
    for steps in lists {
        let most = fewest.as_ref().map_or(u64::MAX, |(gained, _)| *gained);
        let gained = rights.gained(&steps, most);
        if fewest.is_none() || gained < most {
            fewest = Some((gained, steps));
        }
    }
    fewest.map(|(_, steps)| steps)
}

/// Whether the steps change the role of a user whom the organization has.
fn changes_roles(steps: &[Step]) -> bool {
    steps.iter().any(|step| matches!(step, Step::GiveRole { .. }))
}

/// Why a code with two arguments is denied whose arguments are dialed in the wrong order. `None`: they are not.
fn why_swapped(organization: &Organization, event: &Event<'_>) -> Option<String> {
    let Request::Dial(digits) = &event.request else { return None };
    let DialedArguments { queue, target } = organization.feature_codes.translate(digits.as_str())?.arguments;
    let (queue, target) = (queue?, target?);
    let directory = &organization.directory;
    let is_readable = directory.user_named(target).is_some() && directory.queue_named(queue).is_some();
    let is_swapped = directory.queue_named(target).is_some() && directory.user_named(queue).is_some();
    (is_swapped && !is_readable).then(|| {
        format!("`{target}` is a queue and `{queue}` an extension: dial the two in the other order in the code")
    })
}

/// The first queue of a question about all queues that is denied by itself. `None`: a limit on all together denied it.
fn failing_queue(question: &Question<'_>, draft: &Draft<'_>, all: &QueueSet) -> Option<QueueId> {
    let mut scratch = QueueSet::new();
    let mut denied = all.as_slice().iter().copied().filter(|&queue| {
        let of_one = Question { queue: Some(queue), ..*question };
        !decide(&of_one, &draft.sessions, &mut scratch).decision.is_allowed()
    });
    denied.next().or(all.as_slice().first().copied())
}

/// The condition that no change of the configuration meets, as a sentence.
fn why_denied(question: &Question<'_>, draft: &Draft<'_>) -> String {
    let organization = question.organization;
    let action = &question.action.name;
    let actor = question.actor.configured_id();
    let is_self = question.target.is_some_and(|target| target.id() == question.actor.id());
    let needs = |fact: Fact| {
        let mut grants = organization.model.grants_of(question.action);
        grants.all(|(_, grant)| grant.facts.contains(fact))
    };
    if is_self && (needs(Fact::TargetOther) || needs(Fact::TargetLower)) {
        return format!("{actor} is the target too, and no rule allows `{action}` of oneself");
    }
    if !is_self && needs(Fact::TargetSelf) {
        return format!("every rule for `{action}` is about the actor only");
    }
    if needs(Fact::TargetLower) {
        let target = question.target.map_or("the target", |target| target.configured_id());
        return format!("no role that {actor} can be given outranks the role of {target}");
    }
    if needs(Fact::RoleLower) {
        return format!("no role that {actor} can be given outranks the role in the question");
    }
    if needs(Fact::ObjectFree) {
        return "the object is in use, and no role may delete it then".to_owned();
    }
    let barred = organization
        .model
        .grants_of(question.action)
        .all(|(_, grant)| !question.attributes.intersection(grant.attributes_barred).is_empty());
    if barred {
        let values: Vec<String> = question
            .attributes
            .iter()
            .filter(|(key, _)| *key != crate::event::Key::Via)
            .map(|(key, value)| format!("`{}={value}`", key.name()))
            .collect();
        return format!("no rule allows `{action}` with {}, whatever the role", values.join(" "));
    }
    format!("no change of organization `{}` was found that allows the question", draft.base.name)
}
