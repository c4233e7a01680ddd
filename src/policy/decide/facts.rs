//! Which facts hold for a question: one line for each [`Fact`].

use crate::event::{AttributeSet, Key};
use crate::policy::decide::SessionView;
use crate::policy::directory::User;
use crate::policy::facts::{Fact, FactSet};
use crate::policy::model::{Action, Grant};
use crate::policy::resolve::Question;
use crate::telephony::{GroupId, QueueId};

/// The facts of the question, with [`Fact::TargetHoldsRole`] if the target holds a role that this grant names.
pub(in crate::policy) fn with_target_role(question: &Question<'_>, grant: &Grant, mut facts: FactSet) -> FactSet {
    if question.target.is_some_and(|target| target.roles().meets(grant.target_roles)) {
        facts.insert(Fact::TargetHoldsRole);
    }
    facts
}

/// The facts that hold for the question, of those that a grant of the action requires.
pub(in crate::policy) fn gather(
    question: &Question<'_>,
    action: &Action,
    queue: Option<QueueId>,
    sessions: &impl SessionView,
) -> FactSet {
    action.facts.iter().filter(|&fact| holds(fact, question, queue, sessions)).collect()
}

/// Whether the fact holds. If the question names no queue, no fact about the queue holds except `queue.none`; the same
/// goes for the target and the group.
fn holds(fact: Fact, question: &Question<'_>, queue: Option<QueueId>, sessions: &impl SessionView) -> bool {
    let organization = question.organization;
    let (model, directory, actor) = (&*organization.model, &organization.directory, question.actor);
    let queue_that = |is: &dyn Fn(QueueId) -> bool| queue.is_some_and(is);
    let target_that = |is: &dyn Fn(User<'_>) -> bool| question.target.is_some_and(is);
    let group_that = |is: &dyn Fn(GroupId) -> bool| question.group.is_some_and(is);
    let callback = |queue: QueueId| directory.queue(queue).is_some_and(|queue| queue.callback);
    let leads = |target: User<'_>| {
        let led = directory.led_groups(actor.id());
        led.iter().any(|&(_, group)| directory.is_member(target.id(), group))
    };
    let is_serving = |target: User<'_>| target.roles().meets(model.serving);
    match fact {
        Fact::RoleLower => question.role.is_some_and(|role| model.rank(role) < model.rank(actor.roles())),
        Fact::RoleAtQueue => question.role.is_some_and(|role| role.meets(model.serving.union(model.supervising))),
        Fact::ActorOutboundByGroup => directory.outbound_by_groups(actor.id()) == Some(true),
        Fact::ActorOutboundUnset => directory.outbound_by_groups(actor.id()).is_none(),
        Fact::TargetOther => target_that(&|target| target.id() != actor.id()),
        Fact::QueueNone => queue.is_none(),
        Fact::QueueGiven => queue.is_some(),
        Fact::TargetInSupervisedQueue => {
            target_that(&|target| directory.supervised(actor).iter().any(|&(_, queue, _)| target.serves(queue)))
        }
        Fact::SessionOpen => queue_that(&|queue| sessions.in_this_queue(queue).is_some()),
        Fact::QueueServed => queue_that(&|queue| actor.serves(queue)),
        Fact::QueueSupervised => queue_that(&|queue| directory.supervises(actor, queue)),
        Fact::QueueCallback => queue_that(&callback),
        Fact::TargetNone => question.target.is_none(),
        Fact::TargetSelf => target_that(&|target| target.id() == actor.id()),
        Fact::TargetLed => target_that(&leads),
        Fact::TargetManaged => target_that(&|target| is_serving(target) && leads(target)),
        Fact::TargetLower => target_that(&|target| model.rank(target.roles()) < model.rank(actor.roles())),
        // `with_target_role` adds it for each grant: the roles are the grant's.
        Fact::TargetHoldsRole => false,
        Fact::TargetServing => target_that(&is_serving),
        Fact::TargetServesQueue => target_that(&|target| queue_that(&|queue| target.serves(queue))),
        Fact::TargetServesFrom => target_that(&|target| question.from.is_some_and(|from| target.serves(from))),
        Fact::TargetInOwnGroup => target_that(&|target| {
            is_serving(target)
                && directory.groups_of(actor.id()).iter().any(|&group| directory.is_member(target.id(), group))
        }),
        Fact::TargetInServedCallbackQueue => {
            target_that(&|target| actor.served().iter().any(|queue| callback(queue) && target.serves(queue)))
        }
        Fact::GroupNone => question.group.is_none(),
        Fact::GroupLed => group_that(&|group| directory.led_groups(actor.id()).iter().any(|&(_, led)| led == group)),
        Fact::GroupOwn => group_that(&|group| directory.is_member(actor.id(), group)),
        Fact::FromEdited => question.from.is_some_and(|from| directory.edits(actor, from)),
        Fact::QueueEdited => queue_that(&|queue| directory.edits(actor, queue)),
        Fact::TargetUnprotected => target_that(&|target| !target.is_protected()),
        Fact::QueueSupervisable => !concerns_closed_queue(question, queue, sessions),
        Fact::TargetNotPeer => target_that(&|target| !target.roles().meets(model.supervising)),
        Fact::QueueWrapUp => queue_that(&|queue| directory.queue(queue).is_some_and(|queue| queue.wrap_up_seconds > 0)),
        Fact::ObjectFree => {
            AttributeSet::value(Key::InUse, "no").is_some_and(|free| !question.attributes.intersection(free).is_empty())
        }
    }
}

/// Whether the question concerns a queue that is closed to supervision ([`Fact::QueueSupervisable`]).
fn concerns_closed_queue(question: &Question<'_>, queue: Option<QueueId>, sessions: &impl SessionView) -> bool {
    let directory = &question.organization.directory;
    if !directory.has_closed_queue() {
        return false;
    }
    let is_closed = |queue: QueueId| directory.queue(queue).is_some_and(|queue| !queue.supervisable);
    if queue.is_some_and(is_closed) {
        return true;
    }
    let Some(target) = question.target.filter(|_| !question.names_call) else { return false };
    // The PBX may connect the supervisor to any call of the target.
    sessions.has_call_of(target.id(), &is_closed)
        || (queue.is_none()
            && (target.served().iter().any(is_closed) || sessions.is_logged_in_to(target.id(), &is_closed)))
}
