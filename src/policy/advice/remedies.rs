//! What could turn a denial: for each condition that does not hold, the alternatives that would make it hold.
//!
//! The alternatives are only candidates. [`super::advise`] tries each on a draft, and proposes none that does not turn
//! the denial.

use crate::decision::DenyReason;
use crate::event::{AttributeSet, Event, Key, KeySet};
use crate::policy::advice::draft::Draft;
use crate::policy::advice::step::Step;
use crate::policy::decide::{gather, with_target_role};
use crate::policy::facts::{Fact, FactSet};
use crate::policy::feature_codes::DialedArguments;
use crate::policy::model::{Action, Effect, Grant, Model, RoleSet};
use crate::policy::resolve::Question;
use crate::telephony::QueueId;

/// Combinations of alternatives that are tried for one grant.
const COMBINATIONS_PER_GRANT_MAX: usize = 64;

/// Entries of the draft that are tried as the value of a key.
const VALUES_PER_KEY_MAX: usize = 8;

/// Steps of which all are needed.
pub(super) type Steps = Vec<Step>;

/// A denied question on a draft. Ids in the question are positions in the draft.
#[derive(Clone, Copy)]
pub(super) struct DeniedQuestion<'d> {
    pub(super) draft: &'d Draft<'d>,
    pub(super) question: &'d Question<'d>,
    pub(super) action: &'d Action,
    /// The queue that is judged. `None`: none is.
    pub(super) queue: Option<QueueId>,
    pub(super) reason: DenyReason,
}

impl DeniedQuestion<'_> {
    fn model(&self) -> &Model {
        &self.question.organization.model
    }

    fn actor(&self) -> usize {
        position(self.question.actor.id().0)
    }

    fn target(&self) -> Option<usize> {
        self.question.target.map(|target| position(target.id().0))
    }

    fn judged_queue(&self) -> Option<usize> {
        self.queue.map(|queue| usize::from(queue.0))
    }

    /// The alternatives that could turn the denial.
    pub(super) fn alternatives(&self) -> Vec<Steps> {
        let behind = self.behind_grants();
        if !behind.is_empty() {
            return behind;
        }
        let facts = gather(self.question, self.action, self.queue, &self.draft.sessions);
        let mut alternatives = vec![];
        for (_, grant) in self.model().grants_of(self.action) {
            alternatives.extend(combinations(&self.unmet(grant, facts)));
        }
        alternatives
    }

    /// The alternatives for a denial of which no grant is the cause.
    fn behind_grants(&self) -> Vec<Steps> {
        match self.reason {
            DenyReason::NotLoggedIn => match self.judged_queue() {
                Some(queue) => vec![vec![Step::LogIn { queue }]],
                None => (0..self.draft.queues.len()).take(1).map(|queue| vec![Step::LogIn { queue }]).collect(),
            },
            DenyReason::NoAssignedQueue => {
                let queues = (0..self.draft.queues.len()).take(VALUES_PER_KEY_MAX);
                queues.map(|queue| vec![Step::Serve { user: self.actor(), queue }]).collect()
            }
            DenyReason::UserLoginsAtLimit
            | DenyReason::QueueLoginsAtLimit
            | DenyReason::OrganizationLoginsAtLimit
            | DenyReason::LoggedInElsewhere
            | DenyReason::SupervisorSupervisionsAtLimit
            | DenyReason::TargetSupervisionsAtLimit => vec![vec![Step::Raise { limit: self.reason }]],
            _ => vec![],
        }
    }

    /// Each condition of the grant that does not hold, as its alternatives.
    fn unmet(&self, grant: &Grant, facts: FactSet) -> Vec<Vec<Steps>> {
        let mut unmet = vec![];
        if let Some(roles) = grant.roles.filter(|roles| !roles.meets(self.question.actor.roles())) {
            unmet.push(roles.positions().map(|role| self.give(self.actor(), role)).collect());
        }
        let barred = self.question.attributes.intersection(grant.attributes_barred);
        if !barred.is_empty() {
            unmet.push(other_channel(grant, barred));
        }
        let settings = self.question.organization.settings;
        let switches = grant.on.without(settings).positions().map(|setting| (setting, true));
        let switches = switches.chain(grant.off.intersection(settings).positions().map(|setting| (setting, false)));
        for (setting, on) in switches {
            let is_locked = self.model().settings.get(setting).is_none_or(|setting| setting.locked);
            unmet.push(if is_locked { vec![] } else { vec![vec![Step::Switch { setting, on }]] });
        }
        let facts = with_target_role(self.question, grant, facts);
        unmet.extend(grant.facts.difference(facts).iter().map(|fact| self.remedies(fact, grant)));
        for clause in grant.any_of.iter().filter(|clause| clause.is_disjoint(facts)) {
            unmet.push(clause.iter().flat_map(|fact| self.remedies(fact, grant)).collect());
        }
        unmet
    }

    /// The steps that give the role. A role that exactly one user holds is taken from its holder, who gets another one.
    fn give(&self, user: usize, role: usize) -> Steps {
        let mut steps = vec![Step::GiveRole { user, role }];
        if self.model().held_by_one.has(role) {
            let holder = self.draft.users.iter().position(|holder| holder.roles.has(role));
            let others = (0..self.model().roles.len()).filter(|other| !self.model().held_by_one.has(*other));
            let next = others.max_by_key(|&other| self.model().roles.get(other).map(|role| role.rank));
            steps.extend(holder.zip(next).map(|(user, role)| Step::GiveRole { user, role }));
        }
        steps
    }

    fn give_one_of(&self, user: usize, roles: RoleSet) -> Vec<Steps> {
        roles.positions().map(|role| self.give(user, role)).collect()
    }

    /// As [`Self::give_one_of`], without a role that would replace a higher one: that takes rights from the target.
    fn give_target_one_of(&self, target: usize, roles: RoleSet) -> Vec<Steps> {
        let model = self.model();
        let held = self.draft.users.get(target).map(|user| user.roles).unwrap_or_default();
        let least = model.rank(held).filter(|_| model.roles_per_user_max == 1).unwrap_or(0);
        self.give_one_of(target, roles.intersection(self.ranked(|rank| rank >= least)))
    }

    /// The roles whose rank is as asked.
    fn ranked(&self, is_asked: impl Fn(u8) -> bool) -> RoleSet {
        let roles = self.model().roles.iter().enumerate().filter(|(_, role)| is_asked(role.rank));
        roles.fold(RoleSet::default(), |set, (position, _)| set.with(position))
    }

    /// The alternatives that make the fact hold. Empty: no change does.
    fn remedies(&self, fact: Fact, grant: &Grant) -> Vec<Steps> {
        let (actor, queue) = (self.actor(), self.judged_queue());
        let from = self.question.from.map(|queue| usize::from(queue.0));
        let group = self.question.group.map(|group| usize::from(group.0));
        let of_queue = |queue: Option<usize>, step: &dyn Fn(usize) -> Steps| queue.map(step).into_iter().collect();
        match fact {
            Fact::QueueNone
            | Fact::TargetOther
            | Fact::TargetNone
            | Fact::TargetSelf
            | Fact::GroupNone
            | Fact::ObjectFree => vec![],
            Fact::RoleLower => self.lower_role(),
            Fact::RoleAtQueue => self.name_role(self.model().serving.union(self.model().supervising)),
            Fact::ActorOutboundByGroup => self.outbound_on(),
            Fact::ActorOutboundUnset => vec![self.outbound_unset()],
            Fact::QueueGiven => self.name_entries(Key::Queue),
            // To be logged in already is no way to log in.
            Fact::SessionOpen if matches!(self.action.effect, Effect::Login(_)) => vec![],
            Fact::SessionOpen => of_queue(queue, &|queue| vec![Step::LogIn { queue }]),
            Fact::QueueServed => of_queue(queue, &|queue| vec![Step::Serve { user: actor, queue }]),
            Fact::QueueSupervised => of_queue(queue, &|queue| vec![Step::Supervise { user: actor, queue }]),
            Fact::QueueCallback => of_queue(queue, &|queue| vec![Step::Callback { queue }]),
            Fact::QueueSupervisable => self.open_queues(),
            Fact::QueueWrapUp => of_queue(queue, &|queue| vec![Step::WrapUp { queue }]),
            Fact::QueueEdited => of_queue(queue, &|queue| self.edit(queue)),
            Fact::FromEdited => of_queue(from, &|queue| self.edit(queue)),
            Fact::GroupLed => of_queue(group, &|group| vec![Step::Lead { group, user: actor }]),
            Fact::GroupOwn => of_queue(group, &|group| vec![Step::Join { group, user: actor }]),
            _ => self.target().map_or_else(Vec::new, |target| self.target_remedies(fact, grant, target)),
        }
    }

    /// As [`Self::remedies`], for the facts about the target.
    fn target_remedies(&self, fact: Fact, grant: &Grant, target: usize) -> Vec<Steps> {
        let serve = |queue: Option<QueueId>| {
            queue.map(|queue| vec![Step::Serve { user: target, queue: usize::from(queue.0) }]).into_iter().collect()
        };
        match fact {
            Fact::TargetInSupervisedQueue => self.in_supervised_queue(target),
            Fact::TargetLed => self.in_led_group(target),
            Fact::TargetManaged => self.and_serving(target, self.in_led_group(target)),
            Fact::TargetInOwnGroup => self.and_serving(target, self.in_own_group(target)),
            Fact::TargetInServedCallbackQueue => self.in_callback_queue(target),
            Fact::TargetLower => self.lower_target(target),
            Fact::TargetHoldsRole => self.give_target_one_of(target, grant.target_roles),
            Fact::TargetServing => self.give_target_one_of(target, self.model().serving),
            Fact::TargetServesQueue => serve(self.queue),
            Fact::TargetServesFrom => serve(self.question.from),
            Fact::TargetUnprotected => vec![vec![Step::Unprotect { user: target }]],
            // A target who loses a role is no way to give the actor a right: `TargetNotPeer` has no remedy.
            _ => vec![],
        }
    }

    /// Opens every queue that closes the question to supervision.
    fn open_queues(&self) -> Vec<Steps> {
        let named = self.queue.map(|queue| usize::from(queue.0));
        let of_target = |queue: usize| {
            let serves = |target: usize| self.draft.users.get(target).is_some_and(|user| user.served.contains(&queue));
            self.target().is_some_and(|target| serves(target) || self.draft.sessions.has(target, queue))
        };
        let closed = self.draft.queues.iter().enumerate().filter(|(_, queue)| !queue.supervisable);
        let concerned = closed.map(|(queue, _)| queue).filter(|&queue| Some(queue) == named || of_target(queue));
        let steps: Steps = concerned.map(|queue| Step::Open { queue }).collect();
        if steps.is_empty() { vec![] } else { vec![steps] }
    }

    fn edit(&self, queue: usize) -> Steps {
        let user = self.actor();
        vec![Step::Supervise { user, queue }, Step::Edit { user, queue }]
            .into_iter()
            .filter(|step| !matches!(step, Step::Supervise { .. }) || !self.supervises(user, queue))
            .collect()
    }

    fn supervises(&self, user: usize, queue: usize) -> bool {
        self.draft.users.get(user).is_some_and(|user| user.supervised.iter().any(|&(known, _)| known == queue))
    }

    fn lower_role(&self) -> Vec<Steps> {
        let model = self.model();
        let own = model.rank(self.question.actor.roles()).unwrap_or(0);
        let mut alternatives = self.name_role(self.ranked(|rank| rank < own));
        if let Some(asked) = self.question.role.and_then(|role| model.rank(role)) {
            alternatives.extend(self.give_one_of(self.actor(), self.ranked(|rank| rank > asked)));
        }
        alternatives
    }

    fn name_role(&self, roles: RoleSet) -> Vec<Steps> {
        let names = roles.positions().filter_map(|role| self.model().roles.get(role));
        names.map(|role| vec![Step::Name { key: Key::Role, value: role.name.clone() }]).collect()
    }

    fn lower_target(&self, target: usize) -> Vec<Steps> {
        let model = self.model();
        let rank_of = |user: usize| self.draft.users.get(user).and_then(|user| model.rank(user.roles)).unwrap_or(0);
        let (own, theirs) = (rank_of(self.actor()), rank_of(target));
        let mut alternatives = self.give_target_one_of(target, self.ranked(|rank| rank < own));
        alternatives.extend(self.give_one_of(self.actor(), self.ranked(|rank| rank > theirs)));
        alternatives
    }

    /// The groups in which the user is a member (`true`), or which the user leads.
    fn groups(&self, user: usize, as_member: bool) -> impl Iterator<Item = usize> {
        let groups = self.draft.groups.iter().enumerate();
        let of_user = move |group: &crate::policy::advice::draft::DraftGroup| {
            if as_member { group.members.contains(&user) } else { group.leaders.contains(&user) }
        };
        groups.filter(move |(_, group)| of_user(group)).map(|(position, _)| position)
    }

    fn outbound_on(&self) -> Vec<Steps> {
        let is_off =
            |group: &usize| self.draft.groups.get(*group).is_some_and(|group| group.group.outbound == Some(false));
        let on = |group: usize| Step::Outbound { group, allowed: Some(true) };
        let off: Vec<usize> = self.groups(self.actor(), true).filter(is_off).collect();
        if off.is_empty() {
            self.groups(self.actor(), true).map(|group| vec![on(group)]).collect()
        } else {
            vec![off.into_iter().map(on).collect()]
        }
    }

    fn outbound_unset(&self) -> Steps {
        let groups = self.groups(self.actor(), true);
        let set =
            groups.filter(|&group| self.draft.groups.get(group).is_some_and(|group| group.group.outbound.is_some()));
        set.map(|group| Step::Outbound { group, allowed: None }).collect()
    }

    fn in_supervised_queue(&self, target: usize) -> Vec<Steps> {
        let actor = self.actor();
        let user = |user: usize| self.draft.users.get(user);
        let supervised = user(actor).map(|user| user.supervised.iter().map(|&(queue, _)| queue).collect());
        let supervised: Vec<usize> = supervised.unwrap_or_default();
        let served = user(target).map(|user| user.served.clone()).unwrap_or_default();
        let mut alternatives: Vec<Steps> = supervised
            .into_iter()
            .take(VALUES_PER_KEY_MAX)
            .map(|queue| vec![Step::Serve { user: target, queue }])
            .collect();
        alternatives.extend(
            served.into_iter().take(VALUES_PER_KEY_MAX).map(|queue| vec![Step::Supervise { user: actor, queue }]),
        );
        if alternatives.is_empty() && !self.draft.queues.is_empty() {
            alternatives.push(vec![Step::Supervise { user: actor, queue: 0 }, Step::Serve { user: target, queue: 0 }]);
        }
        alternatives
    }

    fn in_led_group(&self, target: usize) -> Vec<Steps> {
        let actor = self.actor();
        let join = self.groups(actor, false).map(|group| vec![Step::Join { group, user: target }]);
        let lead = self.groups(target, true).map(|group| vec![Step::Lead { group, user: actor }]);
        let mut alternatives: Vec<Steps> = join.chain(lead).take(VALUES_PER_KEY_MAX).collect();
        if alternatives.is_empty() && !self.draft.groups.is_empty() {
            alternatives.push(vec![Step::Lead { group: 0, user: actor }, Step::Join { group: 0, user: target }]);
        }
        alternatives
    }

    fn in_own_group(&self, target: usize) -> Vec<Steps> {
        let actor = self.actor();
        let theirs = self.groups(actor, true).map(|group| vec![Step::Join { group, user: target }]);
        let ours = self.groups(target, true).map(|group| vec![Step::Join { group, user: actor }]);
        let mut alternatives: Vec<Steps> = theirs.chain(ours).take(VALUES_PER_KEY_MAX).collect();
        if alternatives.is_empty() && !self.draft.groups.is_empty() {
            alternatives.push(vec![Step::Join { group: 0, user: actor }, Step::Join { group: 0, user: target }]);
        }
        alternatives
    }

    /// Each alternative as it is and with a role that serves, for a target without one.
    fn and_serving(&self, target: usize, alternatives: Vec<Steps>) -> Vec<Steps> {
        let roles = self.draft.users.get(target).map(|user| user.roles).unwrap_or_default();
        if roles.meets(self.model().serving) {
            return alternatives;
        }
        let roles = self.give_target_one_of(target, self.model().serving);
        // A target who is in a right group already lacks only the role.
        let groups = alternatives.into_iter().chain([vec![]]);
        groups.flat_map(|steps| roles.iter().map(move |role| [steps.clone(), role.clone()].concat())).collect()
    }

    fn in_callback_queue(&self, target: usize) -> Vec<Steps> {
        let serves =
            |user: usize, queue: usize| self.draft.users.get(user).is_some_and(|user| user.served.contains(&queue));
        let steps = |(queue, entry): (usize, &crate::policy::directory::Queue)| {
            let callback = (!entry.callback).then_some(Step::Callback { queue });
            let missing = [self.actor(), target].into_iter().filter(|&user| !serves(user, queue));
            callback.into_iter().chain(missing.map(|user| Step::Serve { user, queue })).collect()
        };
        self.draft.queues.iter().enumerate().take(VALUES_PER_KEY_MAX).map(steps).collect()
    }

    fn name_entries(&self, key: Key) -> Vec<Steps> {
        values_of(self.draft, self.model(), key).into_iter().map(|value| vec![Step::Name { key, value }]).collect()
    }
}

/// Another channel, if the channel is all that the grant bars.
fn other_channel(grant: &Grant, barred: AttributeSet) -> Vec<Steps> {
    let channels = AttributeSet::of(Key::Via);
    if !barred.without(channels).is_empty() {
        return vec![];
    }
    let admitted = channels.without(grant.attributes_barred);
    admitted.iter().map(|(key, value)| vec![Step::Name { key, value: value.into() }]).collect()
}

/// The alternatives for an event that was denied before it became a question.
pub(super) fn unresolved(
    draft: &Draft<'_>,
    reason: DenyReason,
    event: &Event<'_>,
    dialed: DialedArguments<'_>,
) -> Vec<Steps> {
    let directory = &draft.base.directory;
    let text = |token: Option<crate::telephony::Token<'_>>| token.map(|token| token.as_str().to_owned());
    let unknown_queue = || {
        let names = [text(event.queue), dialed.queue.map(str::to_owned), text(event.from)];
        names.into_iter().flatten().find(|name| directory.queue_named(name).is_none())
    };
    let steps = match reason {
        DenyReason::UnknownUser => text(Some(event.actor)).map(|name| Step::AddUser { name: name.into() }),
        DenyReason::UnknownTarget => {
            text(event.target).or(dialed.target.map(str::to_owned)).map(|name| Step::AddUser { name: name.into() })
        }
        DenyReason::UnknownQueue => unknown_queue().map(|name| Step::AddQueue { name: name.into() }),
        DenyReason::UnknownGroup => text(event.group).map(|name| Step::AddGroup { name: name.into() }),
        DenyReason::UnknownCall => {
            let targets = values_of(draft, &draft.base.model, Key::Target);
            return targets.into_iter().map(|value| vec![Step::Name { key: Key::Target, value }]).collect();
        }
        _ => None,
    };
    steps.map(|step| vec![step]).into_iter().collect()
}

/// The alternatives for an event that lacks keys that the action needs.
pub(super) fn missing_keys(draft: &Draft<'_>, missing: KeySet) -> Vec<Steps> {
    let model = &draft.base.model;
    let alternatives = missing.keys().map(|key| {
        values_of(draft, model, key).into_iter().map(|value| vec![Step::Name { key, value }]).collect::<Vec<Steps>>()
    });
    combinations(&alternatives.collect::<Vec<_>>())
}

/// Values of the key that the organization knows, at most [`VALUES_PER_KEY_MAX`].
fn values_of(draft: &Draft<'_>, model: &Model, key: Key) -> Vec<Box<str>> {
    let values: Vec<Box<str>> = match key {
        Key::Queue | Key::From => draft.queues.iter().map(|queue| queue.number.clone()).collect(),
        Key::Target => draft.users.iter().map(|user| user.extension.clone()).collect(),
        Key::Group => draft.groups.iter().map(|group| group.group.id.clone()).collect(),
        Key::Role => model.roles.iter().map(|role| role.name.clone()).collect(),
        key => AttributeSet::of(key).iter().map(|(_, value)| value.into()).collect(),
    };
    values.into_iter().take(VALUES_PER_KEY_MAX).collect()
}

/// One alternative of each condition, in every combination. Empty: a condition has no alternative.
fn combinations(conditions: &[Vec<Steps>]) -> Vec<Steps> {
    let mut combined: Vec<Steps> = vec![vec![]];
    for alternatives in conditions {
        let next = combined.iter().flat_map(|steps| {
            alternatives.iter().map(move |more| {
                let more = more.iter().filter(|step| !steps.contains(step));
                steps.iter().chain(more).cloned().collect()
            })
        });
        combined = next.take(COMBINATIONS_PER_GRANT_MAX).collect();
    }
    combined.into_iter().filter(|steps| !steps.is_empty()).collect()
}

fn position(id: u32) -> usize {
    usize::try_from(id).unwrap_or(usize::MAX)
}
