//! A draft: a small copy of an organization on which proposed changes are tried.
//!
//! A decision depends on the records of its actor and its target, on the queues and groups that the two have in common,
//! on the settings and on the limits. A draft holds these and, so that rights can be counted, some further users,
//! queues and groups: all of a small organization, the first of a large one and of the lists of its users. A trial
//! therefore takes microseconds, whatever the size of the organization.

use std::sync::Arc;

use crate::event::{AttributeSet, Event, Key, Request};
use crate::policy::advice::step::Step;
use crate::policy::decide::{SessionView, SupervisionCounts};
use crate::policy::directory::{Directory, DirectoryBuilder, DirectoryError, Group, NewUser, Queue, User};
use crate::policy::feature_codes::FeatureCodes;
use crate::policy::model::{RoleSet, SettingSet};
use crate::policy::resolve::ReportedCall;
use crate::policy::shifts::LoginBounds;
use crate::policy::{Limits, Organization, Policy};
use crate::telephony::{GroupId, LoginSession, QueueId, Token, UserId, Via};

/// Users, queues and groups of a draft beside those that the question has to do with: how far rights are counted.
const FURTHER_USERS_MAX: usize = 6;
/// As [`FURTHER_USERS_MAX`].
const FURTHER_QUEUES_MAX: usize = 4;
/// As [`FURTHER_USERS_MAX`].
const FURTHER_GROUPS_MAX: usize = 4;
/// Queues, and groups, that are copied of each list of a user: more of a list make no other decision.
const LISTED_MAX: usize = 8;

/// A user of a draft. Queues are positions in [`Draft::queues`].
#[derive(Clone, Debug)]
pub(super) struct DraftUser {
    pub(super) id: Box<str>,
    pub(super) extension: Box<str>,
    pub(super) roles: RoleSet,
    pub(super) is_protected: bool,
    pub(super) served: Vec<usize>,
    /// The queues that the user supervises; `true` with the editor flag.
    pub(super) supervised: Vec<(usize, bool)>,
}

/// A group of a draft. Users are positions in [`Draft::users`].
#[derive(Clone, Debug)]
pub(super) struct DraftGroup {
    pub(super) group: Group,
    pub(super) leaders: Vec<usize>,
    pub(super) members: Vec<usize>,
}

/// A small copy of an organization, with the question and the login sessions that are tried on it.
#[derive(Clone, Debug)]
pub(super) struct Draft<'p> {
    pub(super) base: &'p Organization,
    pub(super) users: Vec<DraftUser>,
    pub(super) queues: Vec<Queue>,
    pub(super) groups: Vec<DraftGroup>,
    pub(super) settings: SettingSet,
    pub(super) limits: Limits,
    pub(super) sessions: DraftSessions,
    /// The reported call that the question names, by positions of this draft.
    call: Option<(usize, Option<usize>)>,
    /// Keys of the question with other values than those of the peer.
    pub(super) named: Vec<(Key, Box<str>)>,
}

/// The login sessions of the subject, and the counts that limits are compared with.
#[derive(Clone, Debug, Default)]
pub(super) struct DraftSessions {
    /// Sorted by queue; the queue ids are positions in [`Draft::queues`].
    of_subject: Vec<LoginSession>,
    in_queue: Vec<usize>,
    in_organization: usize,
    supervisions: SupervisionCounts,
    /// The users who are the agent of a reported call of a queue, with the queue; positions in the draft.
    calls: Vec<(UserId, QueueId)>,
    /// The users who are logged in to a queue, with the queue; positions in the draft.
    logged_in: Vec<(UserId, QueueId)>,
}

impl DraftSessions {
    /// Whether the user is on a reported call of the queue, or logged in to it, of the queues that are closed to
    /// supervision; both are positions in the draft.
    pub(super) fn has(&self, user: usize, queue: usize) -> bool {
        let Some(pair) = user_id(user).zip(queue_id(queue)) else { return false };
        self.calls.contains(&pair) || self.logged_in.contains(&pair)
    }

    pub(super) fn begin(&mut self, session: LoginSession) {
        if let Err(position) = self.of_subject.binary_search_by_key(&session.queue, |session| session.queue) {
            self.of_subject.insert(position, session);
        }
    }
}

impl SessionView for DraftSessions {
    fn of_subject(&self) -> &[LoginSession] {
        &self.of_subject
    }

    fn in_queue(&self, queue: QueueId) -> usize {
        self.in_queue.get(usize::from(queue.0)).copied().unwrap_or(0)
    }

    fn in_organization(&self) -> usize {
        self.in_organization
    }

    fn supervisions(&self, _supervisor: UserId, _target: Option<UserId>) -> SupervisionCounts {
        self.supervisions
    }

    fn has_call_of(&self, agent: UserId, is: &dyn Fn(QueueId) -> bool) -> bool {
        self.calls.iter().any(|&(of, queue)| of == agent && is(queue))
    }

    fn is_logged_in_to(&self, user: UserId, is: &dyn Fn(QueueId) -> bool) -> bool {
        self.logged_in.iter().any(|&(of, queue)| of == user && is(queue))
    }
}

/// The entries of an organization that a draft copies, by their ids.
#[derive(Default)]
struct Copied {
    users: Vec<UserId>,
    queues: Vec<QueueId>,
    groups: Vec<GroupId>,
}

impl Copied {
    /// The entries that the event has to do with, then further ones.
    fn of(
        organization: &Organization,
        event: &Event<'_>,
        call: Option<ReportedCall>,
        sessions: &impl SessionView,
    ) -> Self {
        let directory = &organization.directory;
        let dialed = match event.request {
            Request::Dial(digits) => organization.feature_codes.translate(digits.as_str()),
            Request::Action(_) => None,
        };
        let dialed = dialed.map(|translation| translation.arguments).unwrap_or_default();
        let named = |token: Option<Token<'_>>| token.map(|token| token.as_ref().to_vec());
        let digits = |digits: Option<&str>| digits.map(|digits| digits.as_bytes().to_vec());
        let mut copied = Self::default();

        let users = [named(Some(event.actor)), named(event.target), digits(dialed.target)];
        copied.users.extend(users.iter().flatten().filter_map(|name| Some(directory.user_named(name)?.id())));
        copied.users.extend(call.map(|call| call.agent));
        let queues = [named(event.queue), named(event.from), digits(dialed.queue)];
        copied.queues.extend(queues.iter().flatten().filter_map(|name| directory.queue_named(name)));
        copied.queues.extend(call.and_then(|call| call.queue));
        copied.queues.extend(sessions.of_subject().iter().map(|session| session.queue));
        copied.groups.extend(event.group.and_then(|name| directory.group_named(&name)));
        // An action that names no queue is about every queue that the actor serves.
        let names_queue = event.queue.is_some() || dialed.queue.is_some();
        let served_max = if names_queue { LISTED_MAX } else { usize::MAX };
        let people: Vec<User<'_>> = copied.users.iter().filter_map(|&user| directory.user(user)).collect();
        if let Some(actor) = directory.user_named(&event.actor) {
            copied.queues.extend(actor.served().iter().take(served_max));
            // Each of them has to allow outbound calls, or to leave them open.
            let of_outbound = |group: &GroupId| directory.group(*group).is_some_and(|group| group.outbound.is_some());
            copied.groups.extend(directory.groups_of(actor.id()).iter().copied().filter(of_outbound));
            for &other in &people {
                copied.add_common(directory, actor, other);
            }
        }
        for &user in &people {
            copied.queues.extend(user.served().iter().take(LISTED_MAX));
            copied.queues.extend(directory.supervised(user).iter().map(|&(_, queue, _)| queue).take(LISTED_MAX));
            copied.groups.extend(directory.groups_of(user.id()).iter().take(LISTED_MAX));
            copied.groups.extend(directory.led_groups(user.id()).iter().map(|&(_, group)| group).take(LISTED_MAX));
        }
        copied.queues.extend(closed_queues(directory).filter(|&queue| {
            let is_of_user = |user: &User<'_>| {
                user.serves(queue)
                    || sessions.has_call_of(user.id(), &|of_call| of_call == queue)
                    || sessions.is_logged_in_to(user.id(), &|of_session| of_session == queue)
            };
            people.iter().any(is_of_user)
        }));
        // A user who must be the only holder of a role is part of every trial: a second holder would not load.
        let sole = organization.model.held_by_one;
        if !sole.is_empty() {
            let holders = directory.users().filter(|user| user.roles().meets(sole)).map(User::id);
            copied.users.extend(holders.take(sole.positions().count()));
        }
        copied.users.extend(directory.users().map(User::id).take(FURTHER_USERS_MAX));
        copied.queues.extend(directory.queues().map(|(queue, _)| queue).take(FURTHER_QUEUES_MAX));
        copied.groups.extend(directory.groups().take(FURTHER_GROUPS_MAX));
        unique(&mut copied.users);
        unique(&mut copied.queues);
        unique(&mut copied.groups);
        copied
    }

    /// The queues and groups by which the actor has to do with the other user.
    fn add_common(&mut self, directory: &Directory, actor: User<'_>, other: User<'_>) {
        let is_callback = |queue: &QueueId| directory.queue(*queue).is_some_and(|queue| queue.callback);
        let supervised = directory.supervised(actor).iter().map(|&(_, queue, _)| queue);
        self.queues.extend(supervised.filter(|&queue| other.serves(queue)).take(LISTED_MAX));
        let shared = actor.served().iter().filter(|&queue| other.serves(queue));
        self.queues.extend(shared.filter(is_callback).take(LISTED_MAX));
        let is_member = |group: &GroupId| directory.is_member(other.id(), *group);
        let led = directory.led_groups(actor.id()).iter().map(|&(_, group)| group);
        self.groups.extend(led.filter(is_member).take(LISTED_MAX));
        self.groups.extend(directory.groups_of(actor.id()).iter().copied().filter(is_member).take(LISTED_MAX));
    }
}

/// The queues that are closed to supervision.
fn closed_queues(directory: &Directory) -> impl Iterator<Item = QueueId> {
    directory.queues().filter(|(_, queue)| !queue.supervisable).map(|(id, _)| id)
}

fn unique<T: Copy + Ord>(list: &mut Vec<T>) {
    list.sort_unstable();
    list.dedup();
}

impl<'p> Draft<'p> {
    /// Copies what the event has to do with, and the sessions by which it is judged.
    pub(super) fn new(
        organization: &'p Organization,
        event: &Event<'_>,
        call: Option<ReportedCall>,
        sessions: &impl SessionView,
        supervisions: SupervisionCounts,
    ) -> Self {
        let directory = &organization.directory;
        let copied = Copied::of(organization, event, call, sessions);
        let user_at = |user: UserId| copied.users.binary_search(&user).ok();
        let queue_at = |queue: QueueId| copied.queues.binary_search(&queue).ok();
        let users = copied.users.iter().filter_map(|&user| directory.user(user)).map(|user| DraftUser {
            id: user.configured_id().into(),
            extension: user.extension().into(),
            roles: user.roles(),
            is_protected: user.is_protected(),
            served: user.served().iter().filter_map(queue_at).collect(),
            supervised: supervised_by(organization, user.id(), queue_at),
        });
        let users = users.collect();
        let queues = copied.queues.iter().filter_map(|&queue| directory.queue(queue).cloned()).collect();
        let group_of = |id: GroupId| {
            let among = |is: &dyn Fn(UserId) -> bool| {
                copied.users.iter().zip(0..).filter(|(user, _)| is(**user)).map(|(_, position)| position).collect()
            };
            Some(DraftGroup {
                group: directory.group(id)?.clone(),
                leaders: among(&|user| directory.led_groups(user).iter().any(|&(_, led)| led == id)),
                members: among(&|user| directory.is_member(user, id)),
            })
        };
        let pairs_that = |holds: &dyn Fn(UserId, QueueId) -> bool| {
            let mut pairs = vec![];
            for queue in closed_queues(directory) {
                for &user in copied.users.iter().filter(|&&user| holds(user, queue)) {
                    pairs.extend(user_at(user).and_then(user_id).zip(queue_at(queue).and_then(queue_id)));
                }
            }
            pairs
        };
        let calls = pairs_that(&|user, queue| sessions.has_call_of(user, &|of_call| of_call == queue));
        let logged_in = pairs_that(&|user, queue| sessions.is_logged_in_to(user, &|of_session| of_session == queue));
        let of_subject = sessions.of_subject().iter().filter_map(|session| {
            let queue = QueueId(u16::try_from(queue_at(session.queue)?).ok()?);
            Some(LoginSession { queue, ..*session })
        });
        Self {
            base: organization,
            users,
            queues,
            groups: copied.groups.iter().filter_map(|&group| group_of(group)).collect(),
            settings: organization.settings,
            limits: organization.limits,
            sessions: DraftSessions {
                of_subject: of_subject.collect(),
                in_queue: copied.queues.iter().map(|&queue| sessions.in_queue(queue)).collect(),
                in_organization: sessions.in_organization(),
                supervisions,
                calls,
                logged_in,
            },
            call: call.and_then(|call| Some((user_at(call.agent)?, call.queue.and_then(queue_at)))),
            named: vec![],
        }
    }

    /// The draft after these steps. `None`: a step changes nothing.
    pub(super) fn after(&self, steps: &[Step]) -> Option<Self> {
        let mut draft = self.clone();
        steps.iter().all(|step| step.apply(&mut draft)).then_some(draft)
    }

    /// The draft as a policy of one organization. `None`: its configuration would not load.
    pub(super) fn policy(&self, codes: FeatureCodes) -> Option<Policy> {
        let model = Arc::clone(&self.base.model);
        let holders = |position| self.users.iter().filter(|user| user.roles.has(position)).count();
        if model.held_by_one.positions().any(|position| holders(position) != 1)
            || self.users.iter().any(|user| user.roles.positions().count() > model.roles_per_user_max)
        {
            return None;
        }
        let organization = Organization {
            name: self.base.name.clone(),
            domains: Vec::default(),
            id: self.base.id,
            model,
            settings: self.settings,
            feature_codes: codes,
            directory: self.directory().ok()?,
            limits: self.limits,
            leases: self.base.leases,
            // Waiting for a shift is no change of the configuration: a draft has no shifts.
            login_bounds: LoginBounds::default(),
        };
        Some(Policy::new(1, [organization]))
    }

    /// The directory. Ids are positions, because an empty [`DirectoryBuilder`] hands them out in order.
    fn directory(&self) -> Result<Directory, DirectoryError> {
        let mut builder = DirectoryBuilder::new(None);
        for queue in &self.queues {
            builder.queue(queue.clone())?;
        }
        for user in &self.users {
            let served: Vec<QueueId> = user.served.iter().filter_map(|&queue| queue_id(queue)).collect();
            let supervised: Vec<(QueueId, bool)> =
                user.supervised.iter().filter_map(|&(queue, edits)| Some((queue_id(queue)?, edits))).collect();
            builder.user(&NewUser {
                id: &user.id,
                extension: &user.extension,
                roles: user.roles,
                protected: user.is_protected,
                served: &served,
                supervised: &supervised,
            })?;
        }
        for DraftGroup { group, leaders, members } in &self.groups {
            let ids = |users: &[usize]| users.iter().filter_map(|&user| user_id(user)).collect::<Vec<_>>();
            builder.group(group.clone(), &ids(leaders), &ids(members))?;
        }
        Ok(builder.finish())
    }

    /// The question as it is asked of this draft.
    pub(super) fn event<'e>(&'e self, event: &Event<'e>) -> Event<'e> {
        let mut asked = Event { is_by_domain: false, ..*event };
        asked.organization = Token::parse(self.base.name.as_bytes()).unwrap_or(asked.organization);
        for (key, value) in &self.named {
            let token = Token::parse(value.as_bytes());
            match *key {
                Key::Queue => asked.queue = token,
                Key::From => asked.from = token,
                Key::Target => asked.target = token,
                Key::Group => asked.group = token,
                Key::Role => asked.role = token,
                Key::Via => asked.via = Via::named(&**value).unwrap_or(asked.via),
                key => {
                    let of_key = AttributeSet::value(key, value).unwrap_or_default();
                    asked.attributes = asked.attributes.without(AttributeSet::of(key)).union(of_key);
                }
            }
        }
        asked
    }

    /// The reported call, by the ids of this draft.
    pub(super) fn call(&self) -> Option<ReportedCall> {
        let (agent, queue) = self.call?;
        Some(ReportedCall { agent: user_id(agent)?, queue: queue.and_then(queue_id) })
    }
}

fn supervised_by(
    organization: &Organization,
    user: UserId,
    queue_at: impl Fn(QueueId) -> Option<usize>,
) -> Vec<(usize, bool)> {
    let directory = &organization.directory;
    let Some(user) = directory.user(user) else { return vec![] };
    directory.supervised(user).iter().filter_map(|&(_, queue, edits)| Some((queue_at(queue)?, edits))).collect()
}

pub(super) fn user_id(position: usize) -> Option<UserId> {
    u32::try_from(position).ok().map(UserId)
}

pub(super) fn queue_id(position: usize) -> Option<QueueId> {
    u16::try_from(position).ok().map(QueueId)
}
