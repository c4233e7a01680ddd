//! Counts the rights that a change gives: the questions that a user may ask by phone after it and not before it.
//!
//! The count is exact, and most questions are not judged to find it. An action is left out if no step touches what its
//! grants depend on, or if the actor holds no role of its grants. Queues that no fact tells apart count as often as
//! there are of them, and one of them is judged; groups likewise. And a count ends when it is greater than that of a
//! smaller change.

use std::collections::BTreeMap;

use crate::policy::advice::draft::{Draft, user_id};
use crate::policy::advice::remedies::Steps;
use crate::policy::advice::step::Step;
use crate::policy::directory::User;
use crate::policy::facts::Fact;
use crate::policy::feature_codes::FeatureCodes;
use crate::policy::model::{Action, Effect, Grant};
use crate::policy::resolve::{Question, accepts};
use crate::policy::survey::{Survey, SurveyFilter, listed_reason};
use crate::policy::{Organization, Policy};
use crate::telephony::{GroupId, QueueId, QueueSet, UserId, Via};

/// Questions of one user that are judged for one list of steps.
const RIGHTS_QUESTIONS_MAX: usize = 20_000;

/// The facts that depend on the queue of a question, or on the queue that the target is moved from.
const QUEUE_FACTS: [Fact; 9] = [
    Fact::SessionOpen,
    Fact::QueueServed,
    Fact::QueueSupervised,
    Fact::QueueCallback,
    Fact::QueueEdited,
    Fact::QueueWrapUp,
    Fact::FromEdited,
    Fact::TargetServesQueue,
    Fact::TargetServesFrom,
];

/// Counts the rights that changes of one draft give.
pub(super) struct RightsCount<'d> {
    draft: &'d Draft<'d>,
    /// The draft before any change. `None`: its configuration would not load.
    before: Option<Policy>,
}

impl<'d> RightsCount<'d> {
    pub(super) fn of(draft: &'d Draft<'d>) -> Self {
        Self { draft, before: draft.policy(FeatureCodes::default()) }
    }

    /// Questions that a user may ask after the steps and might not ask before them. Counting ends when they are more
    /// than `most`.
    pub(super) fn gained(&self, steps: &Steps, most: u64) -> u64 {
        let granting: Vec<&Step> = steps.iter().filter(|step| step.grants_rights()).collect();
        let Some(policy) = self.draft.after(steps).and_then(|draft| draft.policy(FeatureCodes::default())) else {
            return u64::MAX;
        };
        let name = &*self.draft.base.name;
        let Some(after) = policy.organization(name) else { return u64::MAX };
        let before = self.before.as_ref().and_then(|policy| policy.organization(name));
        let mut users: Vec<UserId> = if granting.iter().all(|step| step.gains().is_some()) {
            granting.iter().filter_map(|step| user_id(step.gains()?)).collect()
        } else {
            after.directory.users().map(User::id).collect()
        };
        users.sort_unstable();
        users.dedup();
        let mut gained: u64 = 0;
        for actor in users.into_iter().filter_map(|user| after.directory.user(user)) {
            let actions = after.model.actions.iter().filter(|action| {
                let judged = judged_without_session(after, action);
                let grants = || after.model.grants_of(judged).map(|(_, grant)| grant);
                grants().any(|grant| may_hold(after, actor, grant))
                    && granting.iter().any(|step| step.touches(judged, grants()))
            });
            let (of_queues, others): (Vec<&Action>, Vec<&Action>) = actions.partition(|action| {
                let facts = judged_without_session(after, action).facts;
                QUEUE_FACTS.iter().any(|&fact| facts.contains(fact))
            });
            let change = Change { before, after, actor };
            for (actions, tells_apart) in [(of_queues, true), (others, false)] {
                gained = change.count(actions, tells_apart, gained, most);
                if gained > most {
                    return gained;
                }
            }
        }
        gained
    }
}

/// The action that is judged while nobody is logged in: a toggle has no grants of its own.
fn judged_without_session<'p>(organization: &'p Organization, action: &'p Action) -> &'p Action {
    match action.effect {
        Effect::Toggle { login: judged, .. } | Effect::TogglePause { pause: judged, .. } => {
            organization.model.action(judged).unwrap_or(action)
        }
        _ => action,
    }
}

/// Whether the actor holds a role of the grant and its settings are as it needs them.
fn may_hold(organization: &Organization, actor: User<'_>, grant: &Grant) -> bool {
    let settings = organization.settings;
    grant.roles.is_none_or(|roles| roles.meets(actor.roles()))
        && grant.on.without(settings).is_empty()
        && !grant.off.meets(settings)
}

/// An organization before and after a change, and the user whose new rights are counted.
#[derive(Clone, Copy)]
struct Change<'p> {
    /// `None`: it would not load.
    before: Option<&'p Organization>,
    after: &'p Organization,
    actor: User<'p>,
}

impl<'p> Change<'p> {
    /// `gained` and the new rights to these actions. `tells_apart`: the actions depend on the queue.
    fn count(&self, actions: Vec<&'p Action>, tells_apart: bool, mut gained: u64, most: u64) -> u64 {
        if actions.is_empty() {
            return gained;
        }
        let queues = alike(self.after.directory.queues().map(|(queue, _)| queue), |queue| {
            self.both(|organization| queue_traits(organization, queue, self.actor.id(), tells_apart))
        });
        let groups = alike(self.after.directory.groups(), |group| {
            self.both(|organization| group_traits(organization, group, self.actor.id()))
        });
        let weight = |queue: Option<QueueId>| queue.map_or(1, |queue| weight_of(&queues, queue));
        let filter =
            SurveyFilter { actor: Some(self.actor.id()), action: None, queue: None, target: None, via: Via::Phone };
        let (queue_ids, group_ids) = (queues.iter().map(|&(queue, _)| queue), groups.iter().map(|&(group, _)| group));
        let groups_asked: Vec<GroupId> = group_ids.collect();
        let survey = Survey::among(self.after, filter, actions, queue_ids.collect(), &groups_asked);
        let mut all = QueueSet::new();
        for question in survey.questions().take(RIGHTS_QUESTIONS_MAX) {
            if listed_reason(&question, &mut all).is_some() && !self.was_allowed(&question, &mut all) {
                let of_group = question.group.map_or(1, |group| weight_of(&groups, group));
                gained += weight(question.queue) * weight(question.from) * of_group;
                if gained > most {
                    break;
                }
            }
        }
        gained
    }

    /// The traits before and after the change. `None` before it: there was no such entry.
    fn both<T>(&self, traits: impl Fn(&Organization) -> Option<T>) -> (Option<T>, Option<T>) {
        (self.before.and_then(&traits), traits(self.after))
    }

    /// Whether the question was allowed before the change. A question about an entry that the change adds was not.
    fn was_allowed(&self, question: &Question<'p>, all: &mut QueueSet) -> bool {
        let asked = || {
            let organization = self.before?;
            let directory = &organization.directory;
            let is_known =
                [question.queue, question.from].into_iter().flatten().all(|it| directory.queue(it).is_some())
                    && question.group.is_none_or(|group| directory.group(group).is_some());
            let target = match question.target {
                Some(target) => Some(directory.user(target.id())?),
                None => None,
            };
            let actor = directory.user(self.actor.id())?;
            is_known.then_some(Question { organization, actor, target, ..*question })
        };
        asked().is_some_and(|question| accepts(&question) && listed_reason(&question, all).is_some())
    }
}

/// The first of each kind of entries that no fact tells apart, with the number of its kind.
fn alike<T: Copy, K: Ord>(entries: impl Iterator<Item = T>, kind: impl Fn(T) -> K) -> Vec<(T, u64)> {
    let mut kinds: BTreeMap<K, (T, u64)> = BTreeMap::new();
    for entry in entries {
        kinds.entry(kind(entry)).or_insert((entry, 0)).1 += 1;
    }
    kinds.into_values().collect()
}

fn weight_of<T: PartialEq>(alike: &[(T, u64)], entry: T) -> u64 {
    alike.iter().find(|(known, _)| *known == entry).map_or(1, |(_, count)| *count)
}

/// What a question of the actor can depend on of a queue. `tells_apart`: also what users have to do with it.
fn queue_traits(
    organization: &Organization,
    queue: QueueId,
    actor: UserId,
    tells_apart: bool,
) -> Option<(&'static str, Vec<bool>)> {
    let directory = &organization.directory;
    let entry = directory.queue(queue)?;
    let mut traits = vec![];
    if tells_apart {
        traits.extend([entry.callback, entry.wrap_up_seconds > 0]);
        traits.extend(directory.user(actor).map(|actor| directory.supervises(actor, queue)));
        traits.extend(directory.user(actor).map(|actor| directory.edits(actor, queue)));
        traits.extend(directory.users().map(|user| user.serves(queue)));
    }
    Some((entry.kind.name(), traits))
}

/// What a question of the actor can depend on of a group.
fn group_traits(organization: &Organization, group: GroupId, actor: UserId) -> Option<(bool, bool)> {
    let directory = &organization.directory;
    directory.group(group)?;
    let leads = directory.led_groups(actor).iter().any(|&(_, led)| led == group);
    Some((leads, directory.is_member(actor, group)))
}

impl Step {
    /// Whether a question about the action can be allowed after the step that was denied before it. `grants` are those
    /// of the action.
    fn touches<'g>(&self, action: &Action, mut grants: impl Iterator<Item = &'g Grant>) -> bool {
        let any_of = |facts: &[Fact]| facts.iter().any(|&fact| action.facts.contains(fact));
        match *self {
            Self::GiveRole { role, .. } => {
                any_of(&ROLE_FACTS)
                    || grants
                        .any(|grant| grant.roles.is_some_and(|roles| roles.has(role)) || grant.target_roles.has(role))
            }
            Self::Switch { setting, .. } => grants.any(|grant| grant.on.has(setting) || grant.off.has(setting)),
            // A question that names no queue is about every queue that the actor serves.
            Self::Serve { .. } => any_of(&SERVE_FACTS) || action.effect.subject().is_some(),
            Self::Supervise { .. } | Self::Edit { .. } => {
                any_of(&[Fact::QueueSupervised, Fact::TargetInSupervisedQueue, Fact::QueueEdited, Fact::FromEdited])
            }
            Self::Join { .. } => any_of(&JOIN_FACTS),
            Self::Lead { .. } => any_of(&[Fact::TargetLed, Fact::TargetManaged, Fact::GroupLed]),
            Self::Outbound { .. } => any_of(&[Fact::ActorOutboundByGroup, Fact::ActorOutboundUnset]),
            Self::Unprotect { .. } => any_of(&[Fact::TargetUnprotected]),
            Self::WrapUp { .. } => any_of(&[Fact::QueueWrapUp]),
            Self::Callback { .. } => any_of(&[Fact::QueueCallback, Fact::TargetInServedCallbackQueue]),
            // There are questions about the new entry.
            Self::AddUser { .. } | Self::AddQueue { .. } | Self::AddGroup { .. } => true,
            Self::Raise { .. } | Self::Name { .. } | Self::LogIn { .. } => false,
        }
    }
}

/// The facts that depend on the roles of the actor or of the target.
const ROLE_FACTS: [Fact; 7] = [
    Fact::RoleLower,
    Fact::TargetManaged,
    Fact::TargetLower,
    Fact::TargetHoldsRole,
    Fact::TargetServing,
    Fact::TargetInOwnGroup,
    Fact::TargetNotPeer,
];

/// The facts that depend on the queues that a user serves.
const SERVE_FACTS: [Fact; 5] = [
    Fact::QueueServed,
    Fact::TargetServesQueue,
    Fact::TargetServesFrom,
    Fact::TargetInSupervisedQueue,
    Fact::TargetInServedCallbackQueue,
];

/// The facts that depend on the groups that a user is in.
const JOIN_FACTS: [Fact; 6] = [
    Fact::ActorOutboundByGroup,
    Fact::ActorOutboundUnset,
    Fact::TargetLed,
    Fact::TargetManaged,
    Fact::TargetInOwnGroup,
    Fact::GroupOwn,
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::config;
    use crate::event::{Event, Intent, Request};
    use crate::policy::decide::{NoSessions, SupervisionCounts};
    use crate::policy::survey::AllowedQuestion;
    use crate::telephony::Token;

    /// Queues of which some are alike and some are not, and users of every role.
    const ENTRIES: &str = r#"
queues = [
    { id = "a", number = "600" }, { id = "b", number = "601" }, { id = "c", number = "602", callback = true },
    { id = "d", number = "603", wrap_up_seconds = 9 }, { id = "e", number = "604", kind = "ring_group" },
    { id = "f", number = "605" }, { id = "g", number = "606" }, { id = "h", number = "607", kind = "inbox" },
]
groups = [
    { id = "one", supervisors = ["sue"], members = ["ann", "ben"] },
    { id = "two", supervisors = ["sue", "tom"], members = ["ben", "sue"], outbound = true },
    { id = "three", members = ["ann"] }, { id = "four", members = ["max"], outbound = false },
]
"#;
    const GOTO_USERS: &str = r#"users = [
    { id = "ann", extension = "1001", roles = ["agent"], queues = ["a", "c"] },
    { id = "ben", extension = "1002", roles = ["agent"], queues = ["b", "c", "d"], protected = true },
    { id = "sue", extension = "2001", roles = ["supervisor"], queues = ["c"], supervises = ["a", "b", "f"], edits = ["b"] },
    { id = "tom", extension = "2002", roles = ["supervisor", "agent"], queues = ["g"], supervises = ["d"] },
    { id = "max", extension = "3001", roles = ["contact_admin"] }, { id = "pat", extension = "3002" },
]"#;

    fn load(folder: &Path, model: &str) -> Policy {
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/models");
        fs::create_dir_all(folder.join("models")).unwrap();
        fs::create_dir_all(folder.join("organizations")).unwrap();
        fs::copy(models.join(format!("{model}.toml")), folder.join(format!("models/{model}.toml"))).unwrap();
        fs::write(folder.join("queuewarden.toml"), "").unwrap();
        let mut users = GOTO_USERS.to_owned();
        if model == "voximplant" {
            users = users.replace("[\"supervisor\", \"agent\"]", "[\"manager\"]").replace("contact_admin", "owner");
            users = users.replace("\"3002\"", "\"3002\", roles = [\"administrator\"]");
        }
        let organization = format!("organization = \"o\"\nmodel = \"{model}\"\n{users}\n{ENTRIES}");
        fs::write(folder.join("organizations/o.toml"), organization).unwrap();
        config::load(folder, &Policy::default()).unwrap_or_else(|problems| panic!("{model}: {problems}")).policy
    }

    /// Every single step that the draft admits.
    fn every_step(draft: &Draft<'_>) -> Vec<Step> {
        let (users, queues, groups) = (0..draft.users.len(), 0..draft.queues.len(), 0..draft.groups.len());
        let model = &draft.base.model;
        let mut steps = vec![
            Step::AddUser { name: "new".into() },
            Step::AddQueue { name: "new".into() },
            Step::AddGroup { name: "new".into() },
        ];
        for setting in 0..model.settings.len() {
            steps.extend([true, false].map(|on| Step::Switch { setting, on }));
        }
        for queue in queues.clone() {
            steps.extend([Step::WrapUp { queue }, Step::Callback { queue }, Step::LogIn { queue }]);
        }
        for group in groups.clone() {
            steps.extend([Some(true), Some(false), None].map(|allowed| Step::Outbound { group, allowed }));
        }
        for user in users {
            steps.push(Step::Unprotect { user });
            steps.extend((0..model.roles.len()).map(|role| Step::GiveRole { user, role }));
            for queue in queues.clone() {
                steps.extend([
                    Step::Serve { user, queue },
                    Step::Supervise { user, queue },
                    Step::Edit { user, queue },
                ]);
            }
            for group in groups.clone() {
                steps.extend([Step::Join { group, user }, Step::Lead { group, user }]);
            }
        }
        steps
    }

    /// As [`RightsCount::gained`], by two whole surveys of each user. `None`: the draft does not load.
    fn counted_one_by_one(draft: &Draft<'_>, steps: &Steps) -> Option<u64> {
        let granting = || steps.iter().filter(|step| step.grants_rights());
        let after = draft.after(steps)?.policy(FeatureCodes::default())?;
        let before = draft.policy(FeatureCodes::default())?;
        let rights = |policy: &Policy, actor: UserId| -> HashSet<AllowedQuestion> {
            let organization = policy.organization("o").unwrap();
            if organization.directory.user(actor).is_none() {
                return HashSet::new();
            }
            let filter = SurveyFilter { actor: Some(actor), action: None, queue: None, target: None, via: Via::Phone };
            let page = Survey::new(organization, filter).page(0, usize::MAX, u64::MAX);
            page.allowed.into_iter().map(|question| AllowedQuestion { reason: "", ..question }).collect()
        };
        let users: HashSet<UserId> = if granting().all(|step| step.gains().is_some()) {
            granting().filter_map(|step| user_id(step.gains()?)).collect()
        } else {
            after.organization("o").unwrap().directory.users().map(User::id).collect()
        };
        let gained = users.into_iter().map(|user| rights(&after, user).difference(&rights(&before, user)).count());
        Some(gained.sum::<usize>() as u64)
    }

    /// FIELD E20: the count of rights, which decides between changes, is that of two whole surveys.
    #[test]
    fn rights_are_counted_as_by_whole_surveys() {
        let mut random = fastrand::Rng::with_seed(11);
        for model in ["goto", "voximplant"] {
            let folder = tempfile::tempdir().unwrap();
            let policy = load(folder.path(), model);
            let token = |text: &'static str| Token::parse(text.as_bytes()).unwrap();
            let request = Request::Action(token("queue.login"));
            let event = Event::new(Intent::May, token("o"), token("1001"), request);
            let organization = policy.organization("o").unwrap();
            let draft = Draft::new(organization, &event, None, &NoSessions, SupervisionCounts::default());
            let rights = RightsCount::of(&draft);
            let every = every_step(&draft);
            let mut lists: Vec<Steps> = every.iter().map(|step| vec![step.clone()]).collect();
            random.shuffle(&mut lists);
            lists.truncate(30);
            for _ in 0..20 {
                lists.push((0..2).map(|_| every[random.usize(..every.len())].clone()).collect());
            }
            let mut nonzero = 0;
            for steps in lists {
                let Some(expected) = counted_one_by_one(&draft, &steps) else { continue };
                assert_eq!(rights.gained(&steps, u64::MAX), expected, "{model}: {steps:?}");
                nonzero += usize::from(expected > 0);
                let capped = rights.gained(&steps, expected / 2);
                assert!(capped > expected / 2 || expected == 0, "{model}: {steps:?}");
            }
            assert!(nonzero > 10, "{model}: {nonzero}");
        }
    }
}
