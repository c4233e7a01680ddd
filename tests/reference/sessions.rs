//! Login sessions: how login, logout and pause change them in both models, after the role has been
//! checked.

use super::{Case, Granted, Queue, Session, User, Verdict};

/// The action of a toggle: a logout if there is a session to end, else a login. Of a toggle of the pause: a resume if
/// there is a session and all are paused, else a pause.
pub(super) fn toggled(case: &Case<'_>) -> &'static str {
    if case.action == "queue.toggle_pause" {
        let is_concerned = |session: &&Session| {
            session.user == case.actor.id && case.queue.is_none_or(|queue| session.queue == queue.id)
        };
        let concerned: Vec<&Session> = case.sessions.iter().filter(is_concerned).collect();
        let is_paused = !concerned.is_empty() && concerned.iter().all(|session| session.paused);
        return if is_paused { "queue.resume" } else { "queue.pause" };
    }
    let is_logged_in = match case.queue {
        Some(queue) => has_session(case, case.actor, queue),
        None => case.sessions.iter().any(|session| session.user == case.actor.id),
    };
    if is_logged_in { "queue.logout" } else { "queue.login" }
}

/// The numbers of the queues of a session action without a queue.
///
/// OPEN: a login has every queue that the actor serves, also queues with a session, and also if it is
/// denied.
pub(super) fn concerned_queues(case: &Case<'_>) -> Vec<String> {
    let mut numbers = Vec::new();
    for queue in &case.world.queues {
        let is_concerned = match case.action.as_str() {
            "queue.login" => case.actor.serves(queue),
            "queue.logout" | "queue.pause" | "queue.resume" => has_session(case, case.actor, queue),
            _ => false,
        };
        if is_concerned {
            numbers.push(queue.number.clone());
        }
    }
    numbers
}

/// `queue.login`: to one queue, or to every queue that the actor serves.
pub(super) fn login(case: &Case<'_>, is_unassigned_allowed: bool) -> Verdict {
    let Some(queue) = case.queue else {
        return login_to_all(case);
    };
    if has_session(case, case.actor, queue) {
        return Ok(unchanged(case, "already_logged_in"));
    }
    if case.actor.serves(queue) {
        begin(case, case.actor, &[queue], "assigned", "assigned")
    } else if is_unassigned_allowed {
        begin(case, case.actor, &[queue], "unassigned", "unassigned_allowed")
    } else {
        Err("unassigned_barred")
    }
}

fn login_to_all(case: &Case<'_>) -> Verdict {
    let mut missing = Vec::new();
    let mut is_assigned = false;
    for queue in &case.world.queues {
        if case.actor.serves(queue) {
            is_assigned = true;
            if !has_session(case, case.actor, queue) {
                missing.push(queue);
            }
        }
    }
    if !is_assigned {
        return Err("no_assigned_queue");
    }
    if missing.is_empty() {
        return Ok(unchanged(case, "already_logged_in"));
    }
    begin(case, case.actor, &missing, "assigned", "assigned")
}

/// `agent.login`.
pub(super) fn login_other(case: &Case<'_>) -> Verdict {
    let (queue, target) = queue_and_target(case);
    if has_session(case, target, queue) {
        return Ok(unchanged(case, "already_logged_in"));
    }
    begin(case, target, &[queue], "supervisor", "supervisor_login")
}

/// `queue.logout`: of one queue, or of all.
pub(super) fn logout(case: &Case<'_>) -> Verdict {
    end(case, case.actor, case.queue, "logged_out")
}

/// `agent.logout`.
pub(super) fn logout_other(case: &Case<'_>) -> Verdict {
    let (queue, target) = queue_and_target(case);
    end(case, target, Some(queue), "supervisor_logout")
}

/// `queue.pause` and `queue.resume`: in one queue, or in all.
pub(super) fn pause(case: &Case<'_>) -> Verdict {
    set_paused(case, case.actor, case.queue)
}

/// `agent.pause` and `agent.resume`.
pub(super) fn pause_other(case: &Case<'_>) -> Verdict {
    let (queue, target) = queue_and_target(case);
    set_paused(case, target, Some(queue))
}

/// An allowed action that changes no session.
pub(super) fn unchanged(case: &Case<'_>, reason: &'static str) -> Granted {
    Granted { reason, sessions: case.sessions.to_vec() }
}

fn queue_and_target<'a>(case: &Case<'a>) -> (&'a Queue, &'a User) {
    (case.queue.expect("the action needs a queue"), case.target.expect("the action needs a target"))
}

pub(super) fn has_session(case: &Case<'_>, user: &User, queue: &Queue) -> bool {
    case.sessions.iter().any(|session| session.user == user.id && session.queue == queue.id)
}

/// Begins a session in each of `queues`, or in none if a limit forbids one of them.
fn begin(case: &Case<'_>, user: &User, queues: &[&Queue], ground: &'static str, reason: &'static str) -> Verdict {
    let mut logins_of_user = queues.len();
    for session in case.sessions {
        if session.user == user.id {
            logins_of_user += 1;
        }
    }
    if case.world.logins_per_user_max.is_some_and(|max| logins_of_user > max) {
        return Err("user_logins_at_limit");
    }
    for queue in queues {
        let mut logins_of_queue = 1;
        for session in case.sessions {
            if session.queue == queue.id {
                logins_of_queue += 1;
            }
        }
        if case.world.logins_per_queue_max.is_some_and(|max| logins_of_queue > max) {
            return Err("queue_logins_at_limit");
        }
    }
    if case.world.logins_max.is_some_and(|max| case.sessions.len() + queues.len() > max) {
        return Err("organization_logins_at_limit");
    }
    let mut sessions = case.sessions.to_vec();
    for queue in queues {
        sessions.push(Session { user: user.id.clone(), queue: queue.id.clone(), ground, paused: false });
    }
    Ok(Granted { reason, sessions })
}

fn end(case: &Case<'_>, user: &User, queue: Option<&Queue>, reason: &'static str) -> Verdict {
    let mut sessions = Vec::new();
    for session in case.sessions {
        if !is_concerned(session, user, queue) {
            sessions.push(session.clone());
        }
    }
    if sessions.len() == case.sessions.len() {
        return Err("not_logged_in");
    }
    Ok(Granted { reason, sessions })
}

/// Pauses or resumes. To pause a paused session, or to resume one that is not paused, is allowed and
/// changes nothing.
fn set_paused(case: &Case<'_>, user: &User, queue: Option<&Queue>) -> Verdict {
    let paused = case.action == "queue.pause" || case.action == "agent.pause";
    let mut sessions = case.sessions.to_vec();
    let mut is_logged_in = false;
    for session in &mut sessions {
        if is_concerned(session, user, queue) {
            session.paused = paused;
            is_logged_in = true;
        }
    }
    if !is_logged_in {
        return Err("not_logged_in");
    }
    Ok(Granted { reason: if paused { "paused" } else { "resumed" }, sessions })
}

fn is_concerned(session: &Session, user: &User, queue: Option<&Queue>) -> bool {
    session.user == user.id && queue.is_none_or(|queue| session.queue == queue.id)
}
