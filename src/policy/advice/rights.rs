//! Counts the rights that a change gives: the questions that a user may ask by phone after it and not before it.
//!
//! The count is exact, and most questions are not judged to find it. A question that no step can turn is left out: of
//! an action that no step touches, of an actor without a role of the action, and about other entries than those that a
//! step changes ([`Scope`]). Queues that no fact tells apart count as often as there are of them, and one of them is
//! judged; groups likewise. And a count ends when it is greater than that of a smaller change.

use std::collections::BTreeMap;

use crate::event::{AttributeSet, Key};
use crate::policy::advice::draft::{Draft, user_id};
use crate::policy::advice::remedies::Steps;
use crate::policy::advice::scope::{Lists, Scope};
use crate::policy::advice::step::Step;
use crate::policy::directory::User;
use crate::policy::facts::{Fact, FactSet};
use crate::policy::feature_codes::FeatureCodes;
use crate::policy::model::{Action, Effect, Grant};
use crate::policy::resolve::{Question, accepts, needed_keys};
use crate::policy::survey::{ActionQuestions, SurveyFilter, listed_reason};
use crate::policy::{Organization, Policy};
use crate::telephony::{GroupId, QueueId, QueueSet, UserId, Via};

/// Questions of one user about one action that are judged for one list of steps.
const QUESTIONS_PER_ACTION_MAX: u64 = 20_000;

/// The facts that depend on the queue of a question.
const QUEUE_FACTS: [Fact; 7] = [
    Fact::QueueServed,
    Fact::QueueSupervised,
    Fact::QueueCallback,
    Fact::QueueEdited,
    Fact::QueueWrapUp,
    Fact::QueueSupervisable,
    Fact::TargetServesQueue,
];

/// The facts that depend on the queue that the target is moved from.
const FROM_FACTS: [Fact; 2] = [Fact::FromEdited, Fact::TargetServesFrom];

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
        let mut users: Vec<UserId> = granting.iter().filter_map(|step| user_id(step.gains()?)).collect();
        if !granting.iter().all(|step| step.gains().is_some()) {
            let is_new = |user: UserId| before.is_none_or(|before| before.directory.user(user).is_none());
            // Who gains most is counted first, so that a count that is too great ends early.
            users.extend(after.directory.users().map(User::id).filter(|&user| is_new(user)));
            users.extend(after.directory.users().map(User::id));
        }
        let mut counted: Vec<UserId> = vec![];
        let mut count = Count { gained: 0, most, all: QueueSet::new() };
        for user in users {
            if !counted.contains(&user) {
                counted.push(user);
                if let Some(actor) = after.directory.user(user) {
                    Change { before, after, actor, steps: &granting }.count(&mut count);
                }
            }
        }
        count.gained
    }
}

/// Rights that were found, and how many are too many.
struct Count {
    gained: u64,
    most: u64,
    all: QueueSet,
}

impl Count {
    const fn is_over(&self) -> bool {
        self.gained > self.most
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
    steps: &'p [&'p Step],
}

/// Which queues and groups are alike for an action.
struct Kinds<'k> {
    queues: &'k Alike<QueueId>,
    from: &'k Alike<QueueId>,
    groups: &'k Alike<GroupId>,
}

impl Kinds<'_> {
    /// Questions that are alike.
    fn number(&self, question: &Question<'_>) -> u64 {
        let of_queue = question.queue.map_or(1, |queue| self.queues.number(queue));
        let of_from = question.from.map_or(1, |queue| self.from.number(queue));
        of_queue * of_from * question.group.map_or(1, |group| self.groups.number(group))
    }
}

impl<'p> Change<'p> {
    /// Counts the new rights of the actor.
    fn count(&self, count: &mut Count) {
        let mut kinds: Vec<(FactSet, Alike<QueueId>)> = vec![];
        let groups = Alike::of(self.after.directory.groups(), |group| {
            self.both(|organization| group_traits(organization, group, self.actor.id()))
        });
        for action in &self.after.model.actions {
            let judged = judged_without_session(self.after, action);
            let grants = || self.after.model.grants_of(judged).map(|(_, grant)| grant);
            if count.is_over() || !grants().any(|grant| may_hold(self.after, self.actor, grant)) {
                continue;
            }
            let mut scope = Scope::default();
            for step in self.steps.iter().filter(|step| step.touches(judged, grants())) {
                scope.add(step, judged, self.actor.id(), &self.after.directory, self.before);
            }
            if scope.is_empty() {
                continue;
            }
            let of = |facts: &[Fact]| facts.iter().copied().filter(|&fact| judged.facts.contains(fact)).collect();
            let (of_queue, of_from): (FactSet, FactSet) = (of(&QUEUE_FACTS), of(&FROM_FACTS));
            for facts in [of_queue, of_from] {
                if !kinds.iter().any(|(known, _)| *known == facts) {
                    kinds.push((facts, self.queues_alike(facts)));
                }
            }
            let alike = |facts: FactSet| kinds.iter().find(|(known, _)| *known == facts).map(|(_, alike)| alike);
            if let (Some(queues), Some(from)) = (alike(of_queue), alike(of_from)) {
                self.count_action(action, &scope, &Kinds { queues, from, groups: &groups }, count);
            }
        }
    }

    /// The queues, of which those are alike that none of these facts tells apart.
    fn queues_alike(&self, facts: FactSet) -> Alike<QueueId> {
        Alike::of(self.after.directory.queues().map(|(queue, _)| queue), |queue| {
            self.both(|organization| queue_traits(organization, queue, self.actor.id(), facts))
        })
    }

    fn count_action(&self, action: &'p Action, scope: &Scope, kinds: &Kinds<'_>, count: &mut Count) {
        let filter =
            SurveyFilter { actor: Some(self.actor.id()), action: None, queue: None, target: None, via: Via::Phone };
        let fields = ActionQuestions::new(self.after, action, &filter);
        let users: Vec<UserId> = self.after.directory.users().map(User::id).collect();
        let targets = fields.targets.list(&users).into_iter();
        let user = |target: Option<UserId>| match target {
            Some(target) => self.after.directory.user(target).map(Some),
            None => Some(None),
        };
        let is_counted = |group: &Option<GroupId>| group.is_none_or(|group| kinds.groups.has(group));
        let all = Lists {
            targets: targets.filter_map(user).collect(),
            queues: fields.queues.list(&kinds.queues.first()),
            from: fields.from.list(&kinds.from.first()),
            groups: fields.groups.iter().copied().filter(is_counted).collect(),
        };
        let mut room = QUESTIONS_PER_ACTION_MAX;
        for lists in scope.parts(all) {
            self.each(action, &fields, &lists, &mut |question| {
                room = room.saturating_sub(1);
                if listed_reason(&question, &mut count.all).is_some() && !self.was_allowed(&question, &mut count.all) {
                    count.gained += kinds.number(&question);
                }
                room > 0 && !count.is_over()
            });
        }
    }

    /// Calls `each` with every question, until it returns `false`.
    fn each(
        &self,
        action: &'p Action,
        fields: &ActionQuestions<'p>,
        lists: &Lists<'p>,
        each: &mut dyn FnMut(Question<'p>) -> bool,
    ) {
        let judged = judged_without_session(self.after, action);
        let is_barred = |attributes: AttributeSet| {
            let mut grants = self.after.model.grants_of(judged).map(|(_, grant)| grant);
            !grants.any(|grant| {
                attributes.intersection(grant.attributes_barred).is_empty() && may_hold(self.after, self.actor, grant)
            })
        };
        for &attributes in fields.attributes.iter().filter(|attributes| !is_barred(**attributes)) {
            let asks_for_role = needed_keys(action, attributes).has(Key::Role);
            // A role that the attribute values do not ask for changes no answer.
            for &role in fields.roles.iter().filter(|role| role.is_none() || asks_for_role) {
                for (&group, &from) in product(&lists.groups, &lists.from) {
                    for (&queue, &target) in product(&lists.queues, &lists.targets) {
                        let asked = Question::new(self.after, action, self.actor);
                        let question = Question { queue, from, target, group, role, attributes, ..asked };
                        if accepts(&question) && !each(question) {
                            return;
                        }
                    }
                }
            }
        }
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

fn product<'l, A, B>(first: &'l [A], second: &'l [B]) -> impl Iterator<Item = (&'l A, &'l B)> {
    first.iter().flat_map(move |one| second.iter().map(move |other| (one, other)))
}

/// Entries that no fact tells apart: the first of each kind, with the number of its kind.
struct Alike<T>(Vec<(T, u64)>);

impl<T: Copy + PartialEq> Alike<T> {
    fn of<K: Ord>(entries: impl Iterator<Item = T>, kind: impl Fn(T) -> K) -> Self {
        let mut kinds: BTreeMap<K, (T, u64)> = BTreeMap::new();
        for entry in entries {
            kinds.entry(kind(entry)).or_insert((entry, 0)).1 += 1;
        }
        Self(kinds.into_values().collect())
    }

    fn first(&self) -> Vec<T> {
        self.0.iter().map(|&(entry, _)| entry).collect()
    }

    fn has(&self, entry: T) -> bool {
        self.0.iter().any(|(known, _)| *known == entry)
    }

    fn number(&self, entry: T) -> u64 {
        self.0.iter().find(|(known, _)| *known == entry).map_or(1, |(_, number)| *number)
    }
}

/// What these facts depend on of a queue, for questions of the actor.
fn queue_traits(
    organization: &Organization,
    queue: QueueId,
    actor: UserId,
    facts: FactSet,
) -> Option<(&'static str, Vec<bool>)> {
    let directory = &organization.directory;
    let (entry, user) = (directory.queue(queue)?, directory.user(actor));
    let mut traits = vec![];
    for fact in facts {
        match fact {
            Fact::QueueCallback => traits.push(entry.callback),
            Fact::QueueSupervisable => traits.push(entry.supervisable),
            Fact::QueueWrapUp => traits.push(entry.wrap_up_seconds > 0),
            Fact::QueueServed => traits.extend(user.map(|user| user.serves(queue))),
            Fact::QueueSupervised => traits.extend(user.map(|user| directory.supervises(user, queue))),
            Fact::QueueEdited | Fact::FromEdited => traits.extend(user.map(|user| directory.edits(user, queue))),
            _ => traits.extend(directory.users().map(|user| user.serves(queue))),
        }
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

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::config;
    use crate::event::{Event, Intent, Request};
    use crate::policy::decide::{NoSessions, SupervisionCounts};
    use crate::policy::survey::{AllowedQuestion, Survey};
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
            lists.truncate(60);
            for _ in 0..40 {
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
