//! A naive model of the state: login sessions, supervisions and calls in lists with linear search. It has no grants:
//! every user of a [`ModelOrganization`] may do the actions of their role, so only state, time and limits decide.

use std::collections::BTreeSet;

/// The organization of the model: users by role, queues and limits.
#[derive(Clone, Debug, Default)]
pub(crate) struct ModelOrganization {
    pub(crate) agents: BTreeSet<&'static str>,
    pub(crate) supervisors: BTreeSet<&'static str>,
    pub(crate) protected: BTreeSet<&'static str>,
    pub(crate) queues: BTreeSet<&'static str>,
    pub(crate) lease_default_seconds: u64,
    pub(crate) one_queue_at_a_time: bool,
    pub(crate) logins_per_user: usize,
    pub(crate) logins_per_queue: usize,
    pub(crate) logins: usize,
    pub(crate) supervisions_per_target: usize,
    pub(crate) supervisions_per_supervisor: usize,
}

impl ModelOrganization {
    pub(crate) fn has_user(&self, name: &str) -> bool {
        self.agents.contains(name) || self.supervisors.contains(name)
    }
}

/// A moment by the wall clock, which may jump, and by the uptime clock, which only advances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ModelTime {
    pub(crate) wall_ms: u64,
    pub(crate) uptime_ms: u64,
}

impl ModelTime {
    /// The moment this number of seconds later.
    const fn after(self, seconds: u64) -> Self {
        Self { wall_ms: self.wall_ms + seconds * 1_000, uptime_ms: self.uptime_ms + seconds * 1_000 }
    }

    const fn is_over(self, now: Self) -> bool {
        self.wall_ms <= now.wall_ms || self.uptime_ms <= now.uptime_ms
    }
}

/// A pause with its reason, if one was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pause(pub(crate) Option<&'static str>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Login {
    pub(crate) user: &'static str,
    pub(crate) queue: &'static str,
    pub(crate) ground: &'static str,
    pub(crate) pause: Option<Pause>,
    pub(crate) by: Option<&'static str>,
    pub(crate) ends: Option<ModelTime>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Supervision {
    pub(crate) supervisor: &'static str,
    pub(crate) target: &'static str,
    pub(crate) queue: &'static str,
    pub(crate) call: Option<&'static str>,
    pub(crate) mode: &'static str,
    pub(crate) ends: ModelTime,
    pub(crate) revoked: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Call {
    id: &'static str,
    agent: &'static str,
    queue: &'static str,
    ends: ModelTime,
}

/// A question. Its users and queues may be unknown.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ModelQuestion {
    Login { user: &'static str, queue: Option<&'static str> },
    Logout { user: &'static str, queue: Option<&'static str> },
    Toggle { user: &'static str, queue: Option<&'static str> },
    Pause { user: &'static str, queue: Option<&'static str>, reason: Option<&'static str> },
    Resume { user: &'static str, queue: Option<&'static str> },
    SupervisorLogin { by: &'static str, user: &'static str, queue: &'static str, seconds: Option<u64> },
    SupervisorLogout { by: &'static str, user: &'static str, queue: &'static str },
    CallBegin { agent: &'static str, call: &'static str, queue: &'static str },
    CallEnd { agent: &'static str, call: &'static str },
    Supervise { by: &'static str, mode: &'static str, target: SupervisionTarget },
    SupervisionEnd { by: &'static str, target: Option<&'static str> },
}

/// The target of a supervision.
#[derive(Clone, Copy, Debug)]
pub(crate) enum SupervisionTarget {
    Target { target: &'static str, queue: &'static str, call: Option<&'static str> },
    Call(&'static str),
}

#[derive(Clone, Debug, Default)]
pub(crate) struct NaiveModel {
    pub(crate) organization: ModelOrganization,
    pub(crate) logins: Vec<Login>,
    pub(crate) supervisions: Vec<Supervision>,
    calls: Vec<Call>,
}

/// Seconds for which a supervision goes on after a restart.
const RESTORED_SECONDS: u64 = 30;
/// Longest supervision: four hours.
const SUPERVISION_SECONDS: u64 = 14_400;
/// Longest call: a day.
const CALL_SECONDS: u64 = 86_400;
/// Longest lease: 31 days.
const LEASE_SECONDS_MAX: u64 = 31 * 86_400;

impl NaiveModel {
    /// Returns the reason of the answer. Makes the change unless `is_may`.
    pub(crate) fn ask(&mut self, ask: ModelQuestion, is_may: bool, now: ModelTime) -> &'static str {
        let before = is_may.then(|| self.clone());
        let reason = match self.act(ask, now) {
            Ok(reason) | Err(reason) => reason,
        };
        if let Some(before) = before {
            *self = before;
        }
        reason
    }

    fn act(&mut self, ask: ModelQuestion, now: ModelTime) -> Result<&'static str, &'static str> {
        match ask {
            ModelQuestion::Login { user, queue } => {
                self.check_names(user, queue)?;
                self.login(user, queue)
            }
            ModelQuestion::Logout { user, queue } => {
                self.check_names(user, queue)?;
                self.end(|login| login.user == user && queue.is_none_or(|queue| login.queue == queue), "logged_out")
            }
            ModelQuestion::Toggle { user, queue } => {
                let is_logged_in =
                    |login: &&Login| login.user == user && queue.is_none_or(|queue| login.queue == queue);
                let logout = self.logins.iter().find(is_logged_in).is_some();
                self.act(
                    if logout { ModelQuestion::Logout { user, queue } } else { ModelQuestion::Login { user, queue } },
                    now,
                )
            }
            ModelQuestion::Pause { user, queue, reason } => {
                self.check_names(user, queue)?;
                self.pause(user, queue, Some(Pause(reason)), "paused")
            }
            ModelQuestion::Resume { user, queue } => {
                self.check_names(user, queue)?;
                self.pause(user, queue, None, "resumed")
            }
            ModelQuestion::SupervisorLogin { by, user, queue, seconds } => {
                self.check_names_with_target(by, user, queue)?;
                self.supervisor_login(by, user, queue, seconds, now)
            }
            ModelQuestion::SupervisorLogout { by, user, queue } => {
                self.check_names_with_target(by, user, queue)?;
                self.end(|login| login.user == user && login.queue == queue, "supervisor_logout")
            }
            ModelQuestion::CallBegin { agent, call, queue } => {
                self.check_names(agent, Some(queue))?;
                self.calls.retain(|known| known.id != call);
                self.calls.push(Call { id: call, agent, queue, ends: now.after(CALL_SECONDS) });
                Ok("reported")
            }
            ModelQuestion::CallEnd { agent, call } => {
                self.check_names(agent, None)?;
                let was_known = self.call(call, now).is_some();
                self.calls.retain(|known| known.id != call);
                let before = self.supervisions.len();
                self.supervisions.retain(|supervision| supervision.call != Some(call));
                if was_known || self.supervisions.len() < before { Ok("reported") } else { Err("unknown_call") }
            }
            ModelQuestion::Supervise { by, mode, target } => self.supervise(by, mode, target, now),
            ModelQuestion::SupervisionEnd { by, target } => {
                self.check_names(by, None)?;
                if target.is_some_and(|target| !self.organization.has_user(target)) {
                    return Err("unknown_target");
                }
                let before = self.supervisions.len();
                self.supervisions.retain(|at| at.supervisor != by || target.is_some_and(|target| at.target != target));
                if self.supervisions.len() < before { Ok("reported") } else { Err("not_supervising") }
            }
        }
    }

    fn check_names(&self, user: &str, queue: Option<&str>) -> Result<(), &'static str> {
        if !self.organization.has_user(user) {
            return Err("unknown_user");
        }
        if queue.is_some_and(|queue| !self.organization.queues.contains(queue)) { Err("unknown_queue") } else { Ok(()) }
    }

    fn check_names_with_target(&self, by: &str, user: &str, queue: &str) -> Result<(), &'static str> {
        self.check_names(by, Some(queue))?;
        if self.organization.has_user(user) { Ok(()) } else { Err("unknown_target") }
    }

    /// The limit that logins of the user to these queues would exceed.
    fn exceeded_limit(&self, user: &str, queues: &[&'static str]) -> Option<&'static str> {
        let user_logins = self.logins.iter().filter(|login| login.user == user).count() + queues.len();
        let in_queue = |queue: &str| self.logins.iter().filter(|login| login.queue == queue).count();
        if self.organization.one_queue_at_a_time && user_logins > 1 {
            Some("logged_in_elsewhere")
        } else if user_logins > self.organization.logins_per_user {
            Some("user_logins_at_limit")
        } else if queues.iter().any(|queue| in_queue(queue) >= self.organization.logins_per_queue) {
            Some("queue_logins_at_limit")
        } else if self.logins.len() + queues.len() > self.organization.logins {
            Some("organization_logins_at_limit")
        } else {
            None
        }
    }

    fn login(&mut self, user: &'static str, queue: Option<&'static str>) -> Result<&'static str, &'static str> {
        let requested: Vec<&'static str> =
            self.organization.queues.iter().copied().filter(|&at| queue.is_none_or(|queue| at == queue)).collect();
        let is_logged_in = |queue: &&str| self.logins.iter().any(|login| login.user == user && login.queue == *queue);
        let missing: Vec<&'static str> = requested.into_iter().filter(|queue| !is_logged_in(queue)).collect();
        if missing.is_empty() {
            return Ok("already_logged_in");
        }
        if let Some(exceeded_limit) = self.exceeded_limit(user, &missing) {
            return Err(exceeded_limit);
        }
        for queue in missing {
            self.logins.push(Login { user, queue, ground: "assigned", pause: None, by: None, ends: None });
        }
        Ok("assigned")
    }

    fn supervisor_login(
        &mut self,
        by: &'static str,
        user: &'static str,
        queue: &'static str,
        seconds: Option<u64>,
        now: ModelTime,
    ) -> Result<&'static str, &'static str> {
        if let Some(login) = self.logins.iter_mut().find(|login| login.user == user && login.queue == queue) {
            // Only a session that a supervisor began has an end, and only a login with a time changes the end.
            return match seconds {
                Some(seconds) if login.ground == "supervisor" => {
                    login.ends = Some(now.after(seconds));
                    Ok("supervisor_login")
                }
                _ => Ok("already_logged_in"),
            };
        }
        if let Some(exceeded_limit) = self.exceeded_limit(user, &[queue]) {
            return Err(exceeded_limit);
        }
        let seconds = seconds.or(Some(self.organization.lease_default_seconds).filter(|&seconds| seconds > 0));
        let ends = seconds.map(|seconds| now.after(seconds));
        self.logins.push(Login { user, queue, ground: "supervisor", pause: None, by: Some(by), ends });
        Ok("supervisor_login")
    }

    fn end(&mut self, ends: impl Fn(&Login) -> bool, reason: &'static str) -> Result<&'static str, &'static str> {
        let before = self.logins.len();
        self.logins.retain(|login| !ends(login));
        if self.logins.len() < before { Ok(reason) } else { Err("not_logged_in") }
    }

    fn pause(
        &mut self,
        user: &str,
        queue: Option<&str>,
        pause: Option<Pause>,
        reason: &'static str,
    ) -> Result<&'static str, &'static str> {
        let mut is_logged_in = false;
        for login in &mut self.logins {
            if login.user == user && queue.is_none_or(|queue| login.queue == queue) {
                is_logged_in = true;
                // A pause of a paused session keeps the first reason.
                if login.pause.is_some() != pause.is_some() {
                    login.pause = pause;
                }
            }
        }
        if is_logged_in { Ok(reason) } else { Err("not_logged_in") }
    }

    fn call(&self, id: &str, now: ModelTime) -> Option<&Call> {
        self.calls.iter().find(|call| call.id == id && !call.ends.is_over(now))
    }

    fn supervise(
        &mut self,
        by: &'static str,
        mode: &'static str,
        target: SupervisionTarget,
        now: ModelTime,
    ) -> Result<&'static str, &'static str> {
        self.check_names(by, None)?;
        let (target, queue, call) = match target {
            SupervisionTarget::Target { target, queue, call } => {
                self.check_names_with_target(by, target, queue)?;
                let reported = call.and_then(|call| self.call(call, now));
                if reported.is_some_and(|reported| (reported.agent, reported.queue) != (target, queue)) {
                    return Err("call_mismatch");
                }
                (target, queue, call)
            }
            SupervisionTarget::Call(id) => {
                let call = self.call(id, now).ok_or("unknown_call")?;
                (call.agent, call.queue, Some(id))
            }
        };
        if self.organization.protected.contains(target) {
            return Err("target_protected");
        }
        let others: Vec<&Supervision> =
            self.supervisions.iter().filter(|at| !at.revoked && (at.supervisor, at.target) != (by, target)).collect();
        if others.iter().filter(|at| at.target == target).count() >= self.organization.supervisions_per_target {
            return Err("target_supervisions_at_limit");
        }
        if others.iter().filter(|at| at.supervisor == by).count() >= self.organization.supervisions_per_supervisor {
            return Err("supervisor_supervisions_at_limit");
        }
        self.supervisions.retain(|at| (at.supervisor, at.target) != (by, target));
        let ends = now.after(SUPERVISION_SECONDS);
        self.supervisions.push(Supervision { supervisor: by, target, queue, call, mode, ends, revoked: false });
        Ok("role_permits")
    }

    /// Ends every login session of a user, as an operator does.
    pub(crate) fn end_all_of(&mut self, user: &str) {
        self.logins.retain(|login| login.user != user);
    }

    /// Ends the sessions and supervisions that are over at this moment.
    pub(crate) fn pass(&mut self, now: ModelTime) {
        self.logins.retain(|login| login.ends.is_none_or(|ends| !ends.is_over(now)));
        self.supervisions.retain(|at| !at.ends.is_over(now));
    }

    /// Replaces the organization. Removed users and queues lose their sessions.
    pub(crate) fn reload(&mut self, organization: ModelOrganization) {
        self.logins.retain(|login| organization.has_user(login.user) && organization.queues.contains(login.queue));
        for login in &mut self.logins {
            login.by = login.by.filter(|by| organization.has_user(by));
        }
        self.calls.retain(|call| organization.has_user(call.agent) && organization.queues.contains(call.queue));
        self.supervisions.retain(|at| organization.has_user(at.supervisor) && organization.has_user(at.target));
        for at in &mut self.supervisions {
            at.revoked |= !organization.queues.contains(at.queue) || organization.protected.contains(at.target);
        }
        self.organization = organization;
    }

    /// Restarts the process. Login sessions go on, leases with the rest of their time; supervisions go on for 30 s;
    /// calls are lost.
    pub(crate) fn restart(&mut self, now: ModelTime, measured_ms: u64) {
        for login in &mut self.logins {
            login.ends = login.ends.map(|ends| {
                let left = ends.wall_ms.saturating_sub(now.wall_ms.max(measured_ms)).min(LEASE_SECONDS_MAX * 1_000);
                ModelTime { wall_ms: now.wall_ms + left, uptime_ms: now.uptime_ms + left }
            });
        }
        self.supervisions.retain(|at| !at.revoked);
        for at in &mut self.supervisions {
            let left = at.ends.wall_ms.saturating_sub(now.wall_ms.max(measured_ms)).min(RESTORED_SECONDS * 1_000);
            at.ends = ModelTime { wall_ms: now.wall_ms + left, uptime_ms: now.uptime_ms + left };
        }
        self.calls.clear();
    }
}
