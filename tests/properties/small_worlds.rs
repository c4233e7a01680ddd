//! Every small world: one actor, one target, two queues, two groups, and every combination of roles, assignments, flags
//! and settings that can change an answer.

use std::sync::Arc;

use queuewarden::config;
use queuewarden::decision::{Reason, Transition};
use queuewarden::event::{AttributeSet, Event, Intent, Key, KeySet, Request};
use queuewarden::policy::decide::decide;
use queuewarden::policy::directory::{DirectoryBuilder, Group, NewUser, Queue, User};
use queuewarden::policy::feature_codes::FeatureCodes;
use queuewarden::policy::model::{Model, PositionSet, SettingSet, Subject};
use queuewarden::policy::resolve::{Question, resolve};
use queuewarden::policy::shifts::LoginBounds;
use queuewarden::policy::{LeaseTerms, Limits, Organization, Policy};
use queuewarden::sessions::table::{LoginTerms, SessionTable};
use queuewarden::telephony::{
    Ground, Moment, OrganizationId, Origin, QueueId, QueueKind, QueueSet, Token, UnixMillis, UserId, Via,
};

use crate::properties::models;
use crate::properties::worlds::RandomOrganization;

pub(crate) const NOW: Moment = Moment { wall: UnixMillis(1_000_000_000), uptime_ms: 1 };

/// A user. The fields are bit sets of the roles of the model, of the two queues, and of the two groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Person {
    pub(crate) roles: u16,
    pub(crate) serves: u8,
    pub(crate) supervises: u8,
    pub(crate) edits: u8,
    pub(crate) leads: u8,
    pub(crate) member: u8,
    pub(crate) protected: bool,
}

pub(crate) const QUEUES: [QueueId; 2] = [QueueId(0), QueueId(1)];

/// The items whose bit in `mask` is set.
fn selected<T: Copy>(items: &[T], mask: u8) -> Vec<T> {
    items.iter().enumerate().filter(|(bit, _)| mask & 1 << bit != 0).map(|(_, &it)| it).collect()
}

/// Builds an organization of these users.
pub(crate) fn organization(id: u16, name: &str, model: &Arc<Model>, people: &[(&str, &str, Person)]) -> Organization {
    let mut builder = DirectoryBuilder::new(None);
    for (id, number, kind, wrap_up_seconds, callback) in
        [("q0", "600", QueueKind::Call, 30, false), ("q1", "601", QueueKind::RingGroup, 0, true)]
    {
        builder
            .queue(Queue { id: id.into(), number: number.into(), kind, wrap_up_seconds, callback, supervisable: true })
            .unwrap();
    }
    let mut ids = vec![];
    for &(id, extension, person) in people {
        let supervised: Vec<(QueueId, bool)> = selected(&QUEUES, person.supervises)
            .into_iter()
            .map(|queue| (queue, person.edits & 1 << queue.0 != 0))
            .collect();
        let user = NewUser {
            id,
            extension,
            roles: PositionSet(person.roles),
            protected: person.protected,
            served: &selected(&QUEUES, person.serves),
            supervised: &supervised,
        };
        ids.push(builder.user(&user).unwrap());
    }
    for (bit, id) in ["g0", "g1"].into_iter().enumerate() {
        let users_with = |groups: fn(&Person) -> u8| -> Vec<UserId> {
            let people = people.iter().zip(&ids).filter(|((_, _, person), _)| groups(person) & 1 << bit != 0);
            people.map(|(_, &id)| id).collect()
        };
        let group = Group { id: id.into(), outbound: [None, Some(false)][bit] };
        builder.group(group, &users_with(|person| person.leads), &users_with(|person| person.member)).unwrap();
    }
    Organization {
        name: name.into(),
        domains: vec![],
        id: OrganizationId(id),
        model: Arc::clone(model),
        settings: model.default_settings(),
        feature_codes: FeatureCodes::default(),
        directory: builder.finish(),
        limits: Limits::default(),
        leases: LeaseTerms::default(),
        login_bounds: LoginBounds::default(),
    }
}

/// The shipped role model.
pub(crate) fn shipped(name: &str) -> Arc<Model> {
    let folder = crate::properties::folder_with_models();
    std::fs::write(folder.path().join("organizations/o.toml"), RandomOrganization::smallest(name)).unwrap();
    let loaded = config::load(folder.path(), &Policy::default()).unwrap();
    Arc::clone(&loaded.policy.organization("o").unwrap().model)
}

/// Every question of `actor` in organization `o`: each action with each choice of the keys that it reads.
pub(crate) fn all_events(model: &models::Model, compiled: &Model, actor: &'static str) -> Vec<Event<'static>> {
    let token = |text: &'static str| Token::parse(text.as_bytes());
    let mut events = vec![];
    for &name in model.actions {
        let uses = compiled.action_named(name).unwrap().uses;
        let request = Request::Action(token(name).unwrap());
        let mut variants = vec![Event::new(Intent::May, token("o").unwrap(), token(actor).unwrap(), request)];
        let mut vary = |key: Key, choices: &[&'static str], set: fn(&mut Event<'static>, &'static str)| {
            if uses.has(key) {
                let varied = variants.iter().flat_map(|event| {
                    choices.iter().map(move |choice| {
                        let mut event = *event;
                        set(&mut event, choice);
                        event
                    })
                });
                let varied: Vec<_> = varied.collect();
                variants.extend(varied);
            }
        };
        vary(Key::Queue, &["q0", "q1"], |event, text| event.queue = Token::parse(text.as_bytes()));
        vary(Key::From, &["q0", "q1"], |event, text| event.from = Token::parse(text.as_bytes()));
        vary(Key::Target, &["t", "a"], |event, text| event.target = Token::parse(text.as_bytes()));
        vary(Key::Group, &["g0"], |event, text| event.group = Token::parse(text.as_bytes()));
        vary(Key::Role, model.roles, |event, text| event.role = Token::parse(text.as_bytes()));
        let keys = [Key::Conversation, Key::Field, Key::Section, Key::Kind, Key::Verb, Key::InUse];
        for key in keys.into_iter().filter(|&key| uses.has(key)) {
            let values = AttributeSet::all_of(KeySet::EMPTY.with(key));
            let given = variants.iter().flat_map(|event| {
                values.iter().map(move |(key, text)| {
                    let attributes = event.attributes.union(AttributeSet::value(key, text).unwrap());
                    Event { attributes, ..*event }
                })
            });
            let given: Vec<_> = given.collect();
            variants.extend(given);
        }
        if name.starts_with("queue.") {
            let dashboard: Vec<_> = variants.iter().map(|event| Event { via: Via::Dashboard, ..*event }).collect();
            variants.extend(dashboard);
        }
        events.extend(variants);
    }
    events
}

/// The questions of the events that can be resolved. They are valid in every organization of the same users.
pub(crate) fn resolve_all<'p>(policy: &'p Policy, events: &[Event<'_>]) -> Vec<Question<'p>> {
    events.iter().filter_map(|event| resolve(policy, event, None).ok()).collect()
}

/// The set of allowed questions, one bit a question.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Allowed(pub(crate) [u64; 16]);

impl Allowed {
    pub(crate) fn with(mut self, position: usize) -> Self {
        self.0[position / 64] |= 1 << (position % 64);
        self
    }

    /// The first question that is allowed in this set and not in `other`.
    pub(crate) fn first_beyond(&self, other: &Self) -> Option<usize> {
        let words = self.0.iter().zip(other.0).enumerate();
        let mut beyond = words.map(|(word, (this, other))| (word, this & !other)).filter(|(_, rest)| *rest != 0);
        beyond.next().map(|(word, rest)| word * 64 + rest.trailing_zeros() as usize)
    }
}

/// The reasons of the decisions on these questions.
pub(crate) fn decide_all(
    organization: &Organization,
    questions: &[Question<'_>],
    sessions: &SessionTable,
    queue_buffer: &mut QueueSet,
) -> impl Iterator<Item = Reason> {
    questions.iter().map(move |question| {
        // The users with the same ids in this organization.
        let user_here = |user: User<'_>| organization.directory.user(user.id()).unwrap();
        let (actor, target) = (user_here(question.actor), question.target.map(user_here));
        let question = Question { organization, actor, target, ..*question };
        let subject = match question.action.effect.subject() {
            Some(Subject::Target) => target.unwrap(),
            _ => actor,
        };
        decide(&question, &sessions.view(subject.id()), queue_buffer).decision.reason()
    })
}

/// The set of allowed questions.
pub(crate) fn allowed(
    organization: &Organization,
    questions: &[Question<'_>],
    sessions: &SessionTable,
    queue_buffer: &mut QueueSet,
) -> Allowed {
    let reasons = decide_all(organization, questions, sessions, queue_buffer).enumerate();
    let allowed = reasons.filter(|(_, reason)| matches!(reason, Reason::Allow(_)));
    allowed.fold(Allowed::default(), |set, (position, _)| set.with(position))
}

/// Two states: no login sessions, and a session of each user in the first queue.
pub(crate) fn session_states(people: &[UserId]) -> [SessionTable; 2] {
    let mut logged_in = SessionTable::default();
    for &user in people {
        let terms = LoginTerms { at: NOW, by: None, ends: None, origin: Origin::Phone };
        logged_in.apply(user, &QUEUES[..1], Transition::Begin(Ground::Assigned), terms);
    }
    [SessionTable::default(), logged_in]
}

/// The settings with these names on and the others off.
pub(crate) fn settings(model: &Model, on: &[&str]) -> SettingSet {
    let positions = model.settings.iter().enumerate();
    positions.fold(SettingSet::default(), |set, (position, setting)| {
        set.switched(position, setting.locked && setting.default || on.contains(&&*setting.name))
    })
}

/// The settings for every subset of `names`, with `beside` always on. Bit `n` of a position says whether name `n` is
/// on.
pub(crate) fn all_settings(model: &Model, names: &[&'static str], beside: &[&'static str]) -> Vec<SettingSet> {
    let subset = |mask: usize| {
        let on = names.iter().enumerate().filter(|(bit, _)| mask & 1 << bit != 0).map(|(_, &name)| name);
        settings(model, &on.chain(beside.iter().copied()).collect::<Vec<_>>())
    };
    (0..1 << names.len()).map(subset).collect()
}

/// The settings that are tried in every combination. The first is the queue limit.
pub(crate) const GOTO_SETTINGS: [&str; 5] = [
    "supervisor.limit_to_assigned_queues",
    "allow_unassigned_login",
    "supervisor.supervise_peers",
    "supervisor.supervise_outside_queues",
    "contact_admin.may_supervise",
];

/// The actors in GoTo: every set of roles, served queues and supervised queues, at the position `roles + 8 * serves +
/// 32 * supervises`.
pub(crate) fn goto_actors() -> Vec<Person> {
    let person = |bits: u8| Person {
        roles: u16::from(bits % 8),
        serves: bits / 8 % 4,
        supervises: bits / 32,
        ..Person::default()
    };
    (0..128).map(person).collect()
}

/// The targets, without the queues that they serve.
pub(crate) fn goto_targets() -> Vec<Person> {
    let roles = [0b000, 0b001, 0b010, 0b100, 0b111];
    let person = |roles| [false, true].map(|protected| Person { roles, protected, ..Person::default() });
    roles.into_iter().flat_map(person).collect()
}

/// The actors and targets in Voximplant, with one queue and one group.
pub(crate) fn voximplant_people() -> Vec<Person> {
    let mut people = vec![];
    for roles in [0, 1, 2, 4, 8, 16] {
        for bits in 0..64_u8 {
            let (supervises, edits) = (bits >> 1 & 1, bits >> 2 & 1);
            if edits & !supervises != 0 {
                continue;
            }
            people.push(Person {
                roles,
                serves: bits & 1,
                supervises,
                edits,
                leads: bits >> 3 & 1,
                member: bits >> 4 & 1,
                protected: bits >> 5 == 1,
            });
        }
    }
    people
}
