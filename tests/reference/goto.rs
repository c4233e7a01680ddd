//! The model `goto`: rules R1-R58, L1-L18, C1-C15.

use super::{Case, Keys, Route, Stage, Verdict, best, keys, sessions};

const NONE: &[&str] = &[];

/// Every action of the model and the keys it takes (conformance/goto.md, section 6).
///
/// OPEN: a key is needed where a rule depends on it. Other keys of an action are looked up if the
/// question has them.
pub(super) const KEYS: &[Keys] = &[
    keys("queue.login", NONE, &["queue", "via"]),
    keys("queue.logout", NONE, &["queue"]),
    keys("queue.toggle", NONE, &["queue", "via"]),
    keys("queue.toggle_pause", NONE, &["queue", "via"]),
    keys("queue.pause", NONE, &["queue", "via"]),
    keys("queue.resume", NONE, &["queue", "via"]),
    keys("agent.login", &["target", "queue"], NONE),
    keys("agent.logout", &["target", "queue"], NONE),
    keys("agent.pause", &["target", "queue"], NONE),
    keys("agent.resume", &["target", "queue"], NONE),
    keys("agent.end_wrapup", &["target", "queue"], NONE),
    keys("call.listen", &["target|call"], &["queue"]),
    keys("call.whisper", &["target|call"], &["queue"]),
    keys("call.barge", &["target|call"], &["queue"]),
    keys("call.join", &["target|call"], &["queue"]),
    keys("call.replace", &["target|call"], &["queue"]),
    keys("call.watch", &["target|call"], &["queue"]),
    // The queue is optional: a direct call has none, with its own reason (R56).
    keys("disposition.set", NONE, &["queue"]),
    keys("call.outbound", NONE, NONE),
    keys("call.direct_in", NONE, NONE),
    keys("permissions.view", NONE, NONE),
    keys("permissions.edit", NONE, NONE),
    keys("license.assign", NONE, &["target"]),
    keys("queue.assign", &["target", "queue", "role"], NONE),
    keys("analytics.view", NONE, &["queue"]),
    keys("report.view", NONE, &["target", "queue"]),
    keys("state.view", NONE, &["target", "queue"]),
    keys("portal.open", NONE, NONE),
    keys("queue.settings.view", &["queue"], NONE),
    keys("queue.settings.edit", &["queue"], NONE),
    keys("pause_reason.view", NONE, NONE),
    keys("pause_reason.edit", NONE, NONE),
    keys("skill.view", NONE, NONE),
    keys("skill.edit", NONE, NONE),
    keys("message.audio.edit", NONE, NONE),
    keys("message.text.edit", NONE, NONE),
    keys("tag.create", NONE, NONE),
];

pub(super) fn decide(case: &Case<'_>) -> Verdict {
    match case.action.as_str() {
        "queue.login" => {
            dashboard_needs_an_agent(case)?;
            sessions::login(case, case.world.setting("allow_unassigned_login"))
        }
        "queue.logout" => sessions::logout(case),
        "queue.pause" | "queue.resume" => {
            dashboard_needs_an_agent(case)?;
            sessions::pause(case)
        }
        "agent.login" => {
            supervise(case)?;
            sessions::login_other(case)
        }
        "agent.logout" => {
            supervise(case)?;
            sessions::logout_other(case)
        }
        "agent.pause" | "agent.resume" => {
            supervise(case)?;
            sessions::pause_other(case)
        }
        // OPEN: the target need not be logged in or in wrap-up.
        "call.watch" if is_lamp_of_colleague(case) => {
            let protected = case.target.is_some_and(|target| target.protected) || case.concerns_closed_queue();
            let route = Route::open().need(Stage::SelfTarget, !case.is_self_target(), "self_target").need(
                Stage::Protection,
                !protected,
                "target_protected",
            );
            best(&[route], "supervisor_role_required")?;
            Ok(sessions::unchanged(case, "role_permits"))
        }
        "agent.end_wrapup" | "call.listen" | "call.whisper" | "call.barge" | "call.join" | "call.replace"
        | "call.watch" => {
            supervise(case)?;
            Ok(sessions::unchanged(case, "role_permits"))
        }
        "disposition.set" | "call.outbound" | "call.direct_in" => {
            best(&agents(case), "agent_role_required")?;
            Ok(sessions::unchanged(case, "role_permits"))
        }
        _ => {
            let mut routes = agents(case);
            routes.extend(supervisors(case));
            routes.extend(contact_admins(case));
            best(&routes, "role_forbids")?;
            Ok(sessions::unchanged(case, "role_permits"))
        }
    }
}

/// R28: the dashboard is for agents, also for a user who is already logged in.
fn dashboard_needs_an_agent(case: &Case<'_>) -> Result<(), &'static str> {
    if case.is_dashboard() && !case.actor.is("agent") {
        return Err("agent_role_required");
    }
    Ok(())
}

/// `agent.*` and `call.*`: for supervisors, and for contact admins with the setting `may_supervise`
/// (R8-R12, R18, R19).
fn supervise(case: &Case<'_>) -> Result<(), &'static str> {
    let is_call = case.action.starts_with("call.");
    let mut routes = Vec::new();
    if case.actor.is("supervisor") {
        routes.push(within_queue_limit(case, Route::open()));
    }
    if case.actor.is("contact_admin") {
        let may_supervise = case.world.setting("contact_admin.may_supervise");
        routes.push(Route::open().need(Stage::Switch, may_supervise, "permission_off"));
    }
    for route in &mut routes {
        *route = route.need(Stage::SelfTarget, !case.is_self_target(), "self_target").need(
            Stage::Protection,
            !(is_call && is_protected(case)),
            "target_protected",
        );
    }
    best(&routes, "supervisor_role_required")
}

/// Whether the target is a protected user, or another supervisor without the setting
/// `supervise_peers` (C14).
fn is_protected(case: &Case<'_>) -> bool {
    let Some(target) = case.target else {
        return false;
    };
    target.protected
        || case.concerns_closed_queue()
        || (target.is("supervisor") && !case.world.setting("supervisor.supervise_peers"))
}

/// TRUTH 3: with the setting, whoever they are, colleagues watch each other's calls; what a role allows beside that is
/// never more.
fn is_lamp_of_colleague(case: &Case<'_>) -> bool {
    case.world.setting("watch_colleagues")
}

/// R37, R38 and C13: the limit to assigned queues.
fn within_queue_limit(case: &Case<'_>, route: Route) -> Route {
    if !case.world.setting("supervisor.limit_to_assigned_queues") {
        return route;
    }
    match case.queue {
        Some(queue) => route.need(Stage::QueueScope, case.actor.supervises(queue), "queue_out_of_scope"),
        None => route.need(Stage::QueueScope, is_allowed_outside_queues(case), "no_queue_context"),
    }
}

/// OPEN: only for `call.*`; a report or a state without a queue is not a supervision.
fn is_allowed_outside_queues(case: &Case<'_>) -> bool {
    if !case.action.starts_with("call.") || !case.world.setting("supervisor.supervise_outside_queues") {
        return false;
    }
    let Some(target) = case.target else {
        return false;
    };
    case.world.queues.iter().any(|queue| target.serves(queue) && case.actor.supervises(queue))
}

/// The routes of the agent role (R16, R17, R51-R57).
fn agents(case: &Case<'_>) -> Vec<Route> {
    if !case.actor.is("agent") {
        return Vec::new();
    }
    let switch = |name| Route::open().need(Stage::Switch, case.world.setting(name), "permission_off");
    match case.action.as_str() {
        "call.outbound" | "call.direct_in" => vec![Route::open()],
        "message.audio.edit" => vec![switch("agent.manage_prerecorded_messages")],
        "message.text.edit" => vec![switch("agent.manage_public_prewritten_messages")],
        "tag.create" => vec![switch("agent.create_custom_tags")],
        // R54: the agent's own calls, which are those of a queue that the agent serves or is logged in to.
        "disposition.set" => {
            let has_wrap_up = case.queue.is_some_and(|queue| queue.wrap_up_seconds > 0);
            let is_own = case
                .queue
                .is_none_or(|queue| case.actor.serves(queue) || sessions::has_session(case, case.actor, queue));
            vec![switch("agent.enable_dispositions").need(Stage::QueueScope, is_own, "queue_out_of_scope").need(
                Stage::Condition,
                has_wrap_up,
                "wrapup_not_configured",
            )]
        }
        _ => Vec::new(),
    }
}

/// The routes of the supervisor role on the control plane (R9, R13, R14, R39-R49).
fn supervisors(case: &Case<'_>) -> Vec<Route> {
    if !case.actor.is("supervisor") {
        return Vec::new();
    }
    let is_on = |name: &str| case.world.setting(&format!("supervisor.{name}"));
    let switch = |is_met| Route::open().need(Stage::Switch, is_met, "permission_off");
    let has_portal = is_on("access_configuration_portal");
    match case.action.as_str() {
        // OPEN: the limit to assigned queues applies to the analytics of one queue, not to those of
        // the organization.
        "analytics.view" if case.queue.is_none() => vec![Route::open()],
        "analytics.view" | "report.view" | "state.view" => {
            vec![within_queue_limit(case, Route::open())]
        }
        "portal.open" => vec![switch(has_portal)],
        "queue.settings.view" => vec![within_queue_limit(case, Route::open())],
        "queue.settings.edit" => vec![within_queue_limit(case, switch(is_on("manage_queue_settings")))],
        "pause_reason.view" => {
            vec![switch(has_portal && (is_on("view_pause_reasons") || is_on("manage_pause_reasons")))]
        }
        "pause_reason.edit" => vec![switch(has_portal && is_on("manage_pause_reasons"))],
        "skill.view" => vec![switch(has_portal && (is_on("view_skills") || is_on("manage_skills")))],
        "skill.edit" => vec![switch(has_portal && is_on("manage_skills"))],
        // R40: the permissions are hidden from supervisors, always.
        _ => Vec::new(),
    }
}

/// The routes of the contact admin role on the control plane, without a queue limit (R1-R6, section
/// 7).
fn contact_admins(case: &Case<'_>) -> Vec<Route> {
    if !case.actor.is("contact_admin") {
        return Vec::new();
    }
    match case.action.as_str() {
        "permissions.view"
        | "permissions.edit"
        | "license.assign"
        | "analytics.view"
        | "portal.open"
        | "queue.settings.view"
        | "queue.settings.edit"
        | "pause_reason.view"
        | "pause_reason.edit"
        | "skill.view"
        | "skill.edit" => vec![Route::open()],
        // R4: as an agent or as a supervisor.
        "queue.assign" if matches!(case.question.value("role"), Some("agent" | "supervisor")) => vec![Route::open()],
        // OPEN: without `may_supervise` the reason is `permission_off`, as for `call.*`.
        "report.view" | "state.view" => {
            let may_supervise = case.world.setting("contact_admin.may_supervise");
            vec![Route::open().need(Stage::Switch, may_supervise, "permission_off")]
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::World;
    use super::super::tests::{answer_text, ask, check, session};

    /// a1, a2, a3 and vip are agents, u1 and u2 plain users, s1 and s2 supervisors of q1 and q2;
    /// both is an agent of q1 and supervises q2; fake supervises q1 without the supervisor role.
    fn world(settings: &str) -> World {
        World::from_toml(&format!(
            r#"
            organization = "o"
            model = "goto"
            {settings}
            [[queues]]
            id = "q1"
            number = "601"
            wrap_up_seconds = 30
            [[queues]]
            id = "q2"
            number = "602"
            [[queues]]
            id = "q3"
            number = "603"
            kind = "ring_group"
            wrap_up_seconds = 30
            [[users]]
            id = "a1"
            extension = "1001"
            roles = ["agent"]
            queues = ["q1"]
            [[users]]
            id = "a2"
            extension = "1002"
            roles = ["agent"]
            queues = ["q1", "q3"]
            [[users]]
            id = "a3"
            extension = "1003"
            roles = ["agent"]
            [[users]]
            id = "u1"
            extension = "1101"
            queues = ["q1"]
            [[users]]
            id = "u2"
            extension = "1102"
            [[users]]
            id = "vip"
            extension = "1009"
            roles = ["agent"]
            queues = ["q1"]
            protected = true
            [[users]]
            id = "s1"
            extension = "2001"
            roles = ["supervisor"]
            supervises = ["q1"]
            [[users]]
            id = "s2"
            extension = "2002"
            roles = ["supervisor"]
            supervises = ["q2"]
            [[users]]
            id = "both"
            extension = "2003"
            roles = ["agent", "supervisor"]
            queues = ["q1"]
            supervises = ["q2"]
            [[users]]
            id = "fake"
            extension = "2004"
            supervises = ["q1"]
            [[users]]
            id = "chief"
            extension = "2005"
            roles = ["contact_admin", "supervisor"]
            supervises = ["q1"]
            [[users]]
            id = "adm"
            extension = "3001"
            roles = ["contact_admin"]
            "#
        ))
    }

    fn barred() -> World {
        world("")
    }

    fn open() -> World {
        world("[settings]\nallow_unassigned_login = true")
    }

    fn unlimited() -> World {
        world("[settings.supervisor]\nlimit_to_assigned_queues = false")
    }

    #[test]
    fn l1_to_l9_login_of_oneself() {
        check(
            &barred(),
            &[],
            "L1: actor=a1 queue.login queue=q1 => allow assigned
             L1: actor=u1 queue.login queue=q1 => allow assigned
             L3: actor=a1 queue.login queue=q2 => deny unassigned_barred
             L4: actor=u2 queue.login queue=q2 => deny unassigned_barred
             L6: actor=u1 queue.login queue=q1 via=dashboard => deny agent_role_required
             L7: actor=a1 queue.login queue=q1 via=dashboard => allow assigned
             L9: actor=a1 queue.login queue=q2 via=dashboard => deny unassigned_barred",
        );
        check(
            &open(),
            &[],
            "L2: actor=a1 queue.login queue=q2 => allow unassigned_allowed
             L2: actor=u2 queue.login queue=q2 => allow unassigned_allowed
             L6: actor=u1 queue.login queue=q2 via=dashboard => deny agent_role_required
             L8: actor=a1 queue.login queue=q2 via=dashboard => allow unassigned_allowed",
        );
        check(
            &barred(),
            &[session("a1", "q2", "unassigned"), session("u2", "q2", "unassigned")],
            "L5: actor=a1 queue.login queue=q2 => allow already_logged_in
             L5: actor=a1 queue.login queue=q2 via=dashboard => allow already_logged_in
             L5: actor=u2 queue.login queue=q2 => allow already_logged_in
             L6: actor=u2 queue.login queue=q2 via=dashboard => deny agent_role_required",
        );
    }

    #[test]
    fn l10_to_l16_login_of_others_and_logout() {
        check(
            &barred(),
            &[],
            "L10: actor=s1 agent.login target=a1 queue=q1 => allow supervisor_login
             L10: actor=s2 agent.login target=u2 queue=q2 => allow supervisor_login
             L11: actor=s1 agent.login target=a1 queue=q2 => deny queue_out_of_scope
             L12: actor=a1 agent.login target=u1 queue=q1 => deny supervisor_role_required
             L12: actor=fake agent.login target=u1 queue=q1 => deny supervisor_role_required
             L13: actor=nobody queue.login queue=q1 => deny unknown_user
             L13: actor=a1 queue.login queue=nothing => deny unknown_queue
             L15: actor=a1 queue.logout queue=q1 => deny not_logged_in
             L16: actor=s1 agent.logout target=a1 queue=q1 => deny not_logged_in
             C14: actor=s1 agent.login target=s1 queue=q1 => deny self_target
             C14: actor=s1 agent.login target=s1 queue=q2 => deny self_target
             C14: actor=s1 agent.login target=s2 queue=q1 => allow supervisor_login
             s7: actor=s1 agent.login target=vip queue=q1 => allow supervisor_login
             s7: actor=s1 agent.end_wrapup target=a1 queue=q1 => allow role_permits
             s7: actor=s1 agent.end_wrapup target=a1 queue=q2 => deny queue_out_of_scope",
        );
        let logged_in = [session("a1", "q1", "assigned"), session("u2", "q1", "supervisor")];
        check(
            &barred(),
            &logged_in,
            "L10: actor=s1 agent.login target=a1 queue=q1 => allow already_logged_in
             L14: actor=a1 queue.logout queue=q1 => allow logged_out
             L14: actor=u2 queue.logout queue=q1 via=dashboard => allow logged_out
             L16: actor=s1 agent.logout target=a1 queue=q1 => allow supervisor_logout
             L16: actor=s2 agent.logout target=a1 queue=q1 => deny queue_out_of_scope",
        );
        let answer = ask(&barred(), &[], "actor=2002 agent.login target=1102 queue=602");
        assert_eq!(answer.sessions_after, [session("u2", "q2", "supervisor")]);
        assert_eq!((answer.queues, answer.target), (vec!["602".to_owned()], Some("1102".to_owned())));
    }

    #[test]
    fn v1_to_v9_and_v40_unassigned_login_and_kept_sessions() {
        check(
            &barred(),
            &[],
            "V1: actor=a1 queue.login queue=q2 => deny unassigned_barred
             V3: actor=u2 queue.login queue=q1 => deny unassigned_barred
             V4: actor=a1 queue.login queue=q1 => allow assigned",
        );
        check(&open(), &[], "V2: actor=a1 queue.login queue=q2 => allow unassigned_allowed");
        // V5, L17, L18, V40: the sessions are an argument, so another policy does not change them.
        let kept = ask(&open(), &[], "actor=a1 queue.login queue=q2").sessions_after;
        assert_eq!(kept, [session("a1", "q2", "unassigned")]);
        check(
            &barred(),
            &kept,
            "V7: actor=s2 agent.logout target=a1 queue=q2 => allow supervisor_logout
             V8: actor=a1 queue.login queue=q3 => deny unassigned_barred
             V9: actor=a1 queue.login queue=q2 => allow already_logged_in",
        );
        for line in ["actor=a1 queue.login queue=q3", "actor=a1 queue.login queue=q2"] {
            assert_eq!(ask(&barred(), &kept, line).sessions_after, kept, "V8, V9: {line}");
        }
        for line in ["actor=a1 queue.logout queue=q2", "actor=s2 agent.logout target=a1 queue=q2"] {
            let after = ask(&barred(), &kept, line).sessions_after;
            assert_eq!(after, [], "V6, V7: {line}");
            check(&barred(), &after, "V6: actor=a1 queue.login queue=q2 => deny unassigned_barred");
        }
    }

    #[test]
    fn v10_to_v19_and_v21_supervisors() {
        check(
            &barred(),
            &[],
            "V10: actor=s2 agent.login target=u1 queue=q2 => allow supervisor_login
             V11: actor=s1 agent.login target=u1 queue=q2 => deny queue_out_of_scope
             V13: actor=a1 agent.login target=u1 queue=q2 => deny supervisor_role_required
             V14: actor=u1 queue.login queue=q1 via=dashboard => deny agent_role_required
             V15: actor=s1 call.listen target=a1 queue=q1 => allow role_permits
             V15: actor=s1 call.whisper target=a1 queue=q1 => allow role_permits
             V15: actor=s1 call.barge target=a1 queue=q1 => allow role_permits
             V16: actor=s1 call.listen target=a1 queue=q2 => deny queue_out_of_scope
             V18: actor=a1 call.listen target=a2 queue=q1 => deny supervisor_role_required
             V19: actor=adm call.barge target=a1 queue=q1 => deny permission_off
             V21: actor=s1 permissions.view => deny role_forbids
             R19: actor=adm agent.login target=a1 queue=q1 => deny permission_off
             R4: actor=chief call.listen target=a1 queue=q1 => allow role_permits
             R4: actor=chief call.listen target=a1 queue=q2 => deny queue_out_of_scope
             R4: actor=chief report.view queue=q2 => deny queue_out_of_scope
             R4: actor=chief queue.settings.edit queue=q2 => allow role_permits
             R4: actor=both call.listen target=a1 queue=q2 => allow role_permits
             R4: actor=both call.listen target=a1 queue=q1 => deny queue_out_of_scope
             R4: actor=both queue.login queue=q1 via=dashboard => allow assigned",
        );
        check(
            &unlimited(),
            &[],
            "V12: actor=s1 agent.login target=u1 queue=q2 => allow supervisor_login
             V17: actor=s1 call.listen target=a1 queue=q2 => allow role_permits",
        );
        check(
            &world("[settings.contact_admin]\nmay_supervise = true"),
            &[],
            "V19: actor=adm call.barge target=a1 queue=q1 => allow role_permits
             R19: actor=adm call.barge target=a1 => allow role_permits
             R19: actor=adm agent.login target=a1 queue=q3 => allow supervisor_login",
        );
        check(
            &world("[settings.supervisor]\naccess_configuration_portal = true"),
            &[],
            "V21: actor=s1 permissions.view => deny role_forbids
             V21: actor=s1 permissions.edit => deny role_forbids",
        );
    }

    #[test]
    fn c13_c14_without_a_queue_and_protected_targets() {
        check(
            &barred(),
            &[],
            "C13: actor=s1 call.listen target=a1 => deny no_queue_context
             C14: actor=s1 call.listen target=s1 queue=q2 => deny self_target
             C14: actor=s1 call.listen target=s2 queue=q1 => deny target_protected
             s7: actor=s1 call.listen target=vip queue=q1 => deny target_protected
             s7: actor=s1 call.listen target=vip queue=q2 => deny queue_out_of_scope",
        );
        check(
            &world("[settings.supervisor]\nsupervise_outside_queues = true"),
            &[],
            "C13: actor=s1 call.listen target=a1 => allow role_permits
             C13: actor=s2 call.listen target=a1 => deny no_queue_context",
        );
        check(&unlimited(), &[], "C13: actor=s2 call.listen target=a1 => allow role_permits");
        check(
            &world("[settings.supervisor]\nsupervise_peers = true"),
            &[],
            "C14: actor=s1 call.listen target=s2 queue=q1 => allow role_permits
             s7: actor=s1 call.listen target=vip queue=q1 => deny target_protected",
        );
    }

    #[test]
    fn v22_to_v24_dispositions() {
        check(
            &world("[settings.agent]\nenable_dispositions = true"),
            &[session("a1", "q2", "supervisor")],
            "V22: actor=a1 disposition.set queue=q2 => deny wrapup_not_configured
             V23: actor=a1 disposition.set queue=q1 => allow role_permits
             R54: actor=s1 disposition.set queue=q1 => deny agent_role_required
             R55: actor=u1 disposition.set queue=q3 => deny wrong_kind
             R54: actor=a2 disposition.set queue=q2 => deny queue_out_of_scope
             R56: actor=a1 disposition.set => deny wrapup_not_configured",
        );
        check(&barred(), &[], "V24: actor=a1 disposition.set queue=q1 => deny permission_off");
    }

    #[test]
    fn r1_to_r57_control_plane() {
        check(
            &barred(),
            &[],
            "R1: actor=adm permissions.edit => allow role_permits
             R1: actor=a1 permissions.edit => deny role_forbids
             R3: actor=adm license.assign target=u1 => allow role_permits
             R3: actor=adm license.assign target=nobody => deny unknown_target
             R4: actor=adm queue.assign target=u1 queue=q1 role=agent => allow role_permits
             R4: actor=adm queue.assign target=u1 queue=q1 role=supervisor => allow role_permits
             R4: actor=adm queue.assign target=u1 queue=q1 role=contact_admin => deny role_forbids
             R4: actor=adm queue.assign target=u1 queue=q1 role=owner => error malformed role
             R4: actor=adm queue.assign target=u1 queue=q1 => deny missing_attribute
             R4: actor=s1 queue.assign target=u1 queue=q1 role=agent => deny role_forbids
             R5: actor=adm analytics.view queue=q3 => allow role_permits
             R6: actor=adm queue.settings.edit queue=q3 => allow role_permits
             R9: actor=s1 state.view queue=q1 => allow role_permits
             R9: actor=s1 state.view queue=q2 => deny queue_out_of_scope
             R13: actor=s1 report.view => deny no_queue_context
             R13: actor=adm report.view queue=q1 => deny permission_off
             R14: actor=s1 analytics.view => allow role_permits
             R14: actor=s1 analytics.view queue=q2 => deny queue_out_of_scope
             R16: actor=a1 call.direct_in => allow role_permits
             R17: actor=u1 call.outbound => deny agent_role_required
             R39: actor=s1 portal.open => deny permission_off
             R41: actor=s1 queue.settings.view queue=q1 => allow role_permits
             R41: actor=s1 queue.settings.view queue=q2 => deny queue_out_of_scope
             R41: actor=adm queue.settings.view => deny missing_attribute
             R43: actor=s1 queue.settings.edit queue=q2 => deny permission_off
             R44: actor=adm pause_reason.view => allow role_permits
             R52: actor=a1 message.text.edit => deny permission_off
             R52: actor=s1 message.text.edit => deny role_forbids",
        );
        check(&unlimited(), &[], "R13: actor=s1 report.view => allow role_permits");
        check(
            &world("[settings.supervisor]\nmanage_pause_reasons = true"),
            &[],
            "C8: actor=s1 pause_reason.edit => deny permission_off",
        );
        let switches = "[settings.supervisor]
            access_configuration_portal = true
            manage_queue_settings = true
            manage_pause_reasons = true
            view_skills = true
            [settings.agent]
            manage_prerecorded_messages = true
            create_custom_tags = true
            [settings.contact_admin]
            may_supervise = true";
        check(
            &world(switches),
            &[],
            "R13: actor=adm report.view queue=q1 => allow role_permits
             R39: actor=s1 portal.open => allow role_permits
             R43: actor=s1 queue.settings.edit queue=q1 => allow role_permits
             R43: actor=s1 queue.settings.edit queue=q2 => deny queue_out_of_scope
             R44: actor=s1 pause_reason.view => allow role_permits
             R45: actor=s1 pause_reason.edit => allow role_permits
             R46: actor=s1 skill.view => allow role_permits
             R47: actor=s1 skill.edit => deny permission_off
             R51: actor=a1 message.audio.edit => allow role_permits
             R52: actor=a1 message.text.edit => deny permission_off
             R53: actor=a1 tag.create => allow role_permits
             R57: actor=u1 message.audio.edit => deny role_forbids",
        );
    }

    #[test]
    fn without_a_queue_it_is_about_all_of_them() {
        let answer = ask(&barred(), &[], "actor=a2 queue.login");
        assert_eq!(answer.queues, ["601", "603"]);
        let all = answer.sessions_after;
        assert_eq!(all, [session("a2", "q1", "assigned"), session("a2", "q3", "assigned")]);
        check(
            &barred(),
            &[],
            "actor=a2 queue.login => allow assigned
             actor=a3 queue.login => deny no_assigned_queue
             actor=u2 queue.login via=dashboard => deny agent_role_required
             actor=a2 queue.logout => deny not_logged_in
             actor=a2 queue.pause => deny not_logged_in",
        );
        check(
            &barred(),
            &all,
            "actor=a2 queue.login => allow already_logged_in
             actor=a2 queue.logout => allow logged_out
             actor=a2 queue.pause => allow paused
             actor=a2 queue.pause queue=q3 => allow paused
             actor=a2 queue.pause queue=q2 => deny not_logged_in
             actor=a2 queue.resume => allow resumed
             actor=s1 agent.pause target=a2 queue=q1 => allow paused
             actor=s1 agent.pause target=a1 queue=q1 => deny not_logged_in",
        );
        check(
            &barred(),
            &[session("u1", "q1", "assigned")],
            "actor=u1 queue.pause => allow paused
             actor=u1 queue.pause via=dashboard => deny agent_role_required",
        );
        let paused = ask(&barred(), &all, "actor=a2 queue.pause queue=q3").sessions_after;
        assert_eq!(paused.iter().map(|session| session.paused).collect::<Vec<_>>(), [false, true]);
        assert_eq!(ask(&barred(), &all, "actor=a2 queue.logout").queues, ["601", "603"]);
        // Only the missing sessions are added.
        let half = ask(&barred(), &all[1..], "actor=a2 queue.login");
        assert_eq!((half.reason.as_str(), half.sessions_after.len()), ("assigned", 2));
    }

    #[test]
    fn a_toggle_is_judged_as_what_it_becomes() {
        check(
            &barred(),
            &[session("u2", "q2", "unassigned")],
            "actor=a1 queue.toggle queue=q1 => allow assigned
             actor=a1 queue.toggle queue=q2 => deny unassigned_barred
             actor=u2 queue.toggle queue=q2 via=dashboard => allow logged_out
             actor=u2 queue.toggle queue=q1 via=dashboard => deny agent_role_required
             actor=u2 queue.toggle => allow logged_out
             actor=a2 queue.toggle => allow assigned",
        );
        let answer = ask(&barred(), &[], "actor=a1 queue.toggle queue=q2");
        assert_eq!(answer.action.as_deref(), Some("queue.login"));
    }

    #[test]
    fn bounds_are_last_and_user_queue_organization() {
        let limits = "[limits]\nlogins_per_user_max = 1\nlogins_per_queue_max = 2\nlogins_max = 3";
        let bounded = world(limits);
        let three =
            [session("a2", "q1", "assigned"), session("u1", "q1", "assigned"), session("u2", "q2", "supervisor")];
        check(&bounded, &[], "actor=a2 queue.login => deny user_logins_at_limit");
        assert_eq!(ask(&bounded, &[], "actor=a2 queue.login").sessions_after, []);
        check(
            &bounded,
            &three[..1],
            "actor=a2 queue.login queue=q3 => deny user_logins_at_limit
             actor=a2 queue.login queue=q1 => allow already_logged_in
             actor=a1 queue.login queue=q1 => allow assigned",
        );
        check(
            &bounded,
            &three[..2],
            "actor=a1 queue.login queue=q1 => deny queue_logins_at_limit
             actor=s1 agent.login target=a1 queue=q1 => deny queue_logins_at_limit",
        );
        check(
            &bounded,
            &three,
            "actor=s2 agent.login target=a1 queue=q2 => deny organization_logins_at_limit
             actor=a1 queue.login queue=q2 => deny unassigned_barred",
        );
    }

    #[test]
    fn v38_v39_same_roles_same_answer_and_the_limit_only_takes_away() {
        let (on, off) = (barred(), unlimited());
        for action in super::KEYS {
            for actor in ["a1", "a2", "u1", "s1", "s2", "both", "adm"] {
                for target in ["a1", "s1", "vip"] {
                    for queue in ["", " queue=q1", " queue=q2"] {
                        let line = format!("actor={actor} {} target={target}{queue}", action.action);
                        let is_allowed = ask(&on, &[], &line).verdict == "allow";
                        let is_allowed_unlimited = ask(&off, &[], &line).verdict == "allow";
                        assert!(!is_allowed || is_allowed_unlimited, "V39: {line}");
                    }
                }
            }
            // V38: a1 and vip differ only in their names and in the protection of vip.
            let line = format!("{} target=a2 queue=q1", action.action);
            let (one, other) = (format!("actor=a1 {line}"), format!("actor=vip {line}"));
            assert_eq!(answer_text(&on, &[], &one), answer_text(&on, &[], &other), "V38: {line}");
        }
    }
}
