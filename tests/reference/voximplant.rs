//! The model `voximplant`: rules R59-R110, T1-T47, VC1-VC16.

use super::{Case, Keys, Route, Stage, User, Verdict, best, keys, sessions};

pub(super) const ROLES_FROM_THE_LOWEST: &[&str] = &["agent", "supervisor", "manager", "administrator", "owner"];

const NONE: &[&str] = &[];

/// Every action of the model and the keys it takes (conformance/voximplant.md, sections 6 and 7).
///
/// OPEN: a key is needed where a rule of any role depends on it. Other keys of an action are looked
/// up if the question has them. In T9 and T10 the queue decides nothing, but the PBX may send it. T21
/// and T22 have a user, a queue or a group; each that is given must be in scope. T22 has no `field=`
/// in section 6, so the field is optional.
pub(super) const KEYS: &[Keys] = &[
    // OPEN: a login is for all five roles, so it does not depend on `via`.
    keys("queue.login", NONE, &["queue"]),
    keys("queue.logout", NONE, &["queue"]),
    keys("queue.toggle", NONE, &["queue"]),
    keys("queue.toggle_pause", NONE, &["queue"]),
    keys("queue.pause", NONE, &["queue", "via"]),
    keys("queue.resume", NONE, &["queue", "via"]),
    keys("agent.login", &["target", "queue"], NONE),
    keys("agent.logout", &["target", "queue"], NONE),
    keys("agent.pause", &["target", "queue"], NONE),
    keys("agent.resume", &["target", "queue"], NONE),
    /* T1 */ keys("user.view", &["target"], NONE),
    /* T2 */ keys("profile.edit", &["target", "field", "role"], NONE),
    /* T3 */ keys("user.invite", &["role"], NONE),
    /* T4 */ keys("user.block", &["target"], NONE),
    /* T5 */ keys("user.role.edit", &["target", "role"], NONE),
    /* T6 */ keys("user.bulk_edit", &["target", "field", "role"], NONE),
    /* T7 */ keys("group.view", &["group"], NONE),
    /* T8 */ keys("group.edit", NONE, &["group"]),
    /* T9 */ keys("conversation.view", &["target"], &["conversation", "queue"]),
    /* T10 */ keys("call.listen", &["target|call"], &["conversation", "queue"]),
    /* T10 */ keys("call.barge", &["target|call"], &["conversation", "queue"]),
    /* T10 */ keys("call.join", &["target|call"], &["conversation", "queue"]),
    /* T10 */ keys("call.replace", &["target|call"], &["conversation", "queue"]),
    /* T10 */ keys("call.watch", &["target|call"], &["conversation", "queue"]),
    /* T11 */ keys("metrics.queue.view", &["queue"], NONE),
    /* T12 */ keys("metrics.agent.view", &["target"], &["queue"]),
    /* T13 */ keys("metrics.group.view", &["group"], NONE),
    /* T14 */ keys("agent.move", &["target", "from", "queue"], NONE),
    /* T15 */ keys("report.queue.view", &["queue"], NONE),
    /* T16 */ keys("report.agent.view", &["target"], NONE),
    /* T17 */ keys("report.group.view", &["group"], NONE),
    /* T18 */ keys("report.channel.view", NONE, NONE),
    /* T19 */ keys("status_log.view", &["target"], NONE),
    /* T20 */ keys("history.view", &["target", "field"], NONE),
    /* T21 */ keys("missed_calls.view", &["target|queue|group"], NONE),
    /* T22 */ keys("callbacks.view", &["target|queue|group"], &["field"]),
    /* T23 */ keys("records.export", NONE, NONE),
    /* T24 */ keys("queue.edit", NONE, &["queue"]),
    /* T25 */ keys("queue.member.edit", NONE, &["target", "queue", "from"]),
    /* T26 */ keys("conversation.process", NONE, NONE),
    /* T27 */ keys("settings.edit", &["section"], NONE),
    /* T28 */ keys("channel.edit", &["kind", "verb"], NONE),
    /* T29 */ keys("extension.edit", NONE, NONE),
    /* T30 */ keys("skill.edit", &["verb", "in_use"], NONE),
    /* T31 */ keys("tag.edit", &["verb", "in_use"], NONE),
    /* T32 */ keys("topic_set.edit", &["verb", "in_use"], NONE),
    /* T33 */ keys("topic.edit", NONE, NONE),
    /* T34 */ keys("dnc.edit", &["verb"], NONE),
    /* T35 */ keys("scenario.edit", NONE, NONE),
    /* T36 */ keys("campaign.create", NONE, NONE),
    /* T37 */ keys("campaign.manage", NONE, &["queue"]),
    /* T38 */ keys("campaign.edit", NONE, &["queue"]),
    /* T39 */ keys("integration.edit", NONE, NONE),
    /* T40 */ keys("security.edit", NONE, NONE),
    /* T41 */ keys("activity_log.view", NONE, NONE),
    /* T42 */ keys("function.edit", NONE, NONE),
    /* T43 */ keys("number.edit", NONE, NONE),
    /* T44 */ keys("billing.open", NONE, NONE),
    /* T45 */ keys("ownership.transfer", &["target"], NONE),
    /* T46 */ keys("recording.listen", &["target"], NONE),
    /* T47 */ keys("call.outbound", NONE, NONE),
];

pub(super) fn decide(case: &Case<'_>) -> Verdict {
    match case.action.as_str() {
        "queue.login" => {
            if case.actor.roles.is_empty() {
                return Err("role_forbids");
            }
            // OPEN: for a queue that the actor does not serve the reason is `unassigned_barred`, as
            // in GoTo, and not `queue_out_of_scope`.
            sessions::login(case, false)
        }
        "queue.logout" => sessions::logout(case),
        "queue.pause" | "queue.resume" => {
            // The dashboard needs one of the five roles; the phone needs none.
            if case.is_dashboard() && case.actor.roles.is_empty() {
                return Err("role_forbids");
            }
            sessions::pause(case)
        }
        action => {
            let mut routes = Vec::new();
            for role in &case.actor.roles {
                routes.extend(routes_of(case, role));
            }
            best(&routes, "role_forbids")?;
            match action {
                "agent.login" => sessions::login_other(case),
                "agent.logout" => sessions::logout_other(case),
                "agent.pause" | "agent.resume" => sessions::pause_other(case),
                _ => Ok(sessions::unchanged(case, "role_permits")),
            }
        }
    }
}

/// The routes of one role to the action: its cell in the matrix of conformance/voximplant.md, section 2.2.
fn routes_of(case: &Case<'_>, role: &str) -> Vec<Route> {
    let is_agent = role == "agent";
    let is_supervisor = role == "supervisor";
    let is_administrator = role == "administrator" || role == "owner";
    let is_manager_or_more = is_administrator || role == "manager";

    let all = Route::open();
    let own = target_is(case.is_self_target());
    let managed = target_is(is_managed_agent(case));
    let lower = target_is(case.target.is_some_and(|target| rank_of_user(target) < rank(role)));
    let led = target_is(case.group.is_some_and(|group| group.supervisors.contains(&case.actor.id)));
    let supervised =
        all.need(Stage::QueueScope, case.queue.is_some_and(|queue| case.actor.supervises(queue)), "queue_out_of_scope");

    let field = case.question.value("field").unwrap_or("");
    let section = case.question.value("section").unwrap_or("");
    let kind = case.question.value("kind").unwrap_or("");
    let verb = case.question.value("verb").unwrap_or("");
    let given_role = case.question.value("role").unwrap_or("");
    let in_use = case.question.value("in_use") == Some("yes");
    let unused = all.need(Stage::Condition, !(verb == "delete" && in_use), "object_in_use");

    match case.action.as_str() {
        // Section 7: `agent.login` of another user is allowed where `agent.move` would be.
        "agent.login" | "agent.logout" | "agent.pause" | "agent.resume" if is_manager_or_more => not_self(case, all),
        "agent.login" | "agent.logout" | "agent.pause" | "agent.resume" if is_supervisor => {
            not_self(case, with_editor_flag(case, managed))
        }
        // T1: everybody views the own profile.
        "user.view" if is_manager_or_more => vec![all],
        "user.view" if is_supervisor => vec![managed, own],
        "user.view" if is_agent => vec![own],
        // T5 holds for a role, whichever action changes it.
        "profile.edit" | "user.bulk_edit" if field == "role" => {
            if is_manager_or_more && rank(given_role) < rank(role) {
                vec![lower]
            } else {
                Vec::new()
            }
        }
        "profile.edit" => profile(role, field, own, lower),
        // R110: nobody edits the personal settings of others, in bulk neither.
        "user.bulk_edit" if is_personal(field) => Vec::new(),
        // T3. OPEN: for a role that the actor may not give the reason is `role_forbids`, and not a
        // reason of the target.
        "user.invite" if is_manager_or_more && rank(given_role) < rank(role) => vec![all],
        "user.block" if is_manager_or_more => vec![lower],
        "user.role.edit" if is_manager_or_more && rank(given_role) < rank(role) => vec![lower],
        // T6: all other options and all users, or three options and every member of a led group.
        "user.bulk_edit" if is_manager_or_more => vec![all],
        "user.bulk_edit" if is_supervisor && ["skills", "max_chats", "notify"].contains(&field) => {
            vec![target_is(is_member_of_led_group(case))]
        }
        "group.view" | "metrics.group.view" | "report.group.view" if is_manager_or_more => {
            vec![all]
        }
        "group.view" | "metrics.group.view" | "report.group.view" if is_supervisor => vec![led],
        "conversation.view" | "call.listen" | "call.barge" | "call.join" | "call.replace" | "call.watch"
            if is_manager_or_more =>
        {
            monitor(case, &[all])
        }
        // VC1: supervisors join only conversations that they may monitor, unless the setting
        // `join_any_conversation` is on.
        "conversation.view" if is_supervisor => monitor(case, &[monitored(case, managed)]),
        "call.listen" | "call.barge" | "call.join" | "call.replace" | "call.watch" if is_supervisor => {
            let any = all.need(Stage::Switch, case.world.setting("join_any_conversation"), "permission_off");
            monitor(case, &[monitored(case, managed), any])
        }
        "metrics.queue.view" | "report.queue.view" if is_manager_or_more => vec![all],
        "metrics.queue.view" | "report.queue.view" if is_supervisor => vec![supervised],
        "metrics.agent.view" if is_manager_or_more => vec![all],
        "metrics.agent.view" if is_supervisor => match (case.queue, case.target) {
            // R78, R81: within a supervised queue, the managed agents who serve it.
            (Some(queue), Some(target)) => {
                let supervised = case.actor.supervises(queue);
                vec![managed.need(Stage::QueueScope, supervised, "queue_out_of_scope").need(
                    Stage::TargetScope,
                    target.serves(queue),
                    "target_out_of_scope",
                )]
            }
            _ => vec![managed],
        },
        "agent.move" if is_manager_or_more => not_self(case, serves_from(case, all)),
        // OPEN: only the editor flag decides; the queue need not be supervised.
        "agent.move" if is_supervisor => not_self(case, serves_from(case, with_editor_flag(case, managed))),
        "report.agent.view" | "status_log.view" if is_manager_or_more => vec![all],
        "report.agent.view" | "status_log.view" if is_supervisor => vec![managed],
        "history.view" if is_manager_or_more => vec![all],
        "history.view" if is_supervisor && field != "billing" && field != "details" => {
            vec![managed]
        }
        "missed_calls.view" | "callbacks.view" if is_manager_or_more => vec![all],
        "missed_calls.view" | "callbacks.view" => missed(case, role, field),
        // VC7: no role deletes an assigned skill. VC4, T31, T32: a manager does not delete a used
        // tag or topic set; higher roles do.
        "skill.edit" if is_manager_or_more => vec![unused],
        "tag.edit" | "topic_set.edit" if is_administrator => vec![all],
        "tag.edit" | "topic_set.edit" if is_manager_or_more => vec![unused],
        "settings.edit" if is_administrator => vec![all],
        "settings.edit" if is_manager_or_more => {
            let may = ["call_permissions", "contact_details", "dialing"].contains(&section);
            if may { vec![all] } else { Vec::new() }
        }
        "channel.edit" if is_administrator => vec![all],
        // T28. OPEN: a manager neither views nor edits channels: the table has only "create SMS" and
        // "delete".
        "channel.edit" if is_manager_or_more => {
            let may_create = verb == "create" && kind == "sms";
            let may_delete = verb == "delete" && kind != "function" && kind != "api_token";
            if may_create || may_delete { vec![all] } else { Vec::new() }
        }
        "dnc.edit" if is_manager_or_more => vec![all],
        // T34. OPEN: create and edit do not imply view.
        "dnc.edit" if is_supervisor && (verb == "create" || verb == "edit") => vec![all],
        "report.channel.view"
        | "records.export"
        | "group.edit"
        | "queue.edit"
        | "queue.member.edit"
        | "extension.edit"
        | "topic.edit"
            if is_manager_or_more =>
        {
            vec![all]
        }
        "conversation.process" => vec![all],
        "scenario.edit" | "campaign.create" | "campaign.manage" | "campaign.edit" | "integration.edit"
        | "security.edit" | "activity_log.view" | "function.edit" | "number.edit"
            if is_administrator =>
        {
            vec![all]
        }
        "billing.open" if role == "owner" => vec![all],
        // T45. OPEN: a target who is not an Administrator is out of scope.
        "ownership.transfer" if role == "owner" => {
            vec![target_is(case.target.is_some_and(|target| target.is("administrator")))]
        }
        "recording.listen" if is_administrator => vec![all],
        "recording.listen" if is_supervisor => vec![managed],
        "call.outbound" if is_administrator => vec![all],
        "call.outbound" => vec![all.need(Stage::Switch, is_outbound_on(case), "permission_off")],
        _ => Vec::new(),
    }
}

fn target_is(in_scope: bool) -> Route {
    Route::open().need(Stage::TargetScope, in_scope, "target_out_of_scope")
}

/// `agent.*` needs another user as target.
fn not_self(case: &Case<'_>, route: Route) -> Vec<Route> {
    vec![route.need(Stage::SelfTarget, !case.is_self_target(), "self_target")]
}

/// T9, T10. OPEN: to view the own conversation is `self_target`, as to join it.
fn monitor(case: &Case<'_>, routes: &[Route]) -> Vec<Route> {
    let is_protected = case.target.is_some_and(|target| target.protected) || case.concerns_closed_queue();
    let mut monitored = Vec::new();
    for route in routes {
        monitored.push(route.need(Stage::SelfTarget, !case.is_self_target(), "self_target").need(
            Stage::Protection,
            !is_protected,
            "target_protected",
        ));
    }
    monitored
}

/// R71: every supervisor may monitor conversations that are unassigned or of a bot.
fn monitored(case: &Case<'_>, managed: Route) -> Route {
    if case.target.is_none() { Route::open() } else { managed }
}

/// T14, VC2: the actor needs the editor flag on both queues of a move.
fn with_editor_flag(case: &Case<'_>, route: Route) -> Route {
    let mut has_flags = true;
    for queue in [case.queue, case.from].into_iter().flatten() {
        has_flags = has_flags && case.actor.edits(queue);
    }
    route.need(Stage::EditorFlag, has_flags, "editor_flag_missing")
}

/// Section 7: the target of a move must serve the queue that it leaves.
fn serves_from(case: &Case<'_>, route: Route) -> Route {
    let (Some(from), Some(target)) = (case.from, case.target) else {
        return route;
    };
    route.need(Stage::TargetScope, target.serves(from), "target_out_of_scope")
}

/// R110: the fields that only the user edits.
fn is_personal(field: &str) -> bool {
    ["avatar", "language", "timezone", "email", "password"].contains(&field)
}

/// T2, VC5, R63-R65, R88, R89, R92, R104, R110.
fn profile(role: &str, field: &str, own: Route, lower: Route) -> Vec<Route> {
    let mut routes = Vec::new();
    if is_personal(field) {
        // VC11: agents edit their own password, but not their email.
        if role != "agent" || field != "email" {
            routes.push(own);
        }
    } else if role != "agent" && role != "supervisor" {
        // Account details: those of lower roles, and the own details except the role.
        // OPEN: the number of chats and the notifications are account details, as the conversation
        // settings are.
        routes.push(lower);
        routes.push(own);
    }
    routes
}

/// T21 and T22 for supervisors and agents.
fn missed(case: &Case<'_>, role: &str, field: &str) -> Vec<Route> {
    let actor = case.actor;
    let is_callbacks = case.action == "callbacks.view";
    let target = case.target;
    let is_agent = target.is_some_and(|target| target.is("agent"));

    let (mut in_queue, mut in_group, mut in_target) = (true, true, case.is_self_target());
    if role == "supervisor" {
        if let Some(queue) = case.queue {
            in_queue = actor.supervises(queue) && (queue.callback || !is_callbacks);
        }
        if let Some(group) = case.group {
            in_group = group.supervisors.contains(&actor.id);
        }
        in_target = in_target || is_managed_agent(case);
        for queue in &case.world.queues {
            in_target = in_target || (is_agent && serves(target, &queue.id) && actor.supervises(queue));
        }
        return vec![all_in_scope(case, in_queue, in_group, in_target)];
    }

    if let Some(queue) = case.queue {
        in_queue = actor.serves(queue) && queue.callback;
    }
    let own_only = all_in_scope(case, in_queue, false, in_target);
    if let Some(group) = case.group {
        in_group = group.members.contains(&actor.id);
    }
    for group in &case.world.groups {
        let both = group.members.contains(&actor.id) && target.is_some_and(|target| group.members.contains(&target.id));
        in_target = in_target || (is_agent && both);
    }
    if !is_callbacks {
        for queue in &case.world.queues {
            let both = queue.callback && actor.serves(queue) && serves(target, &queue.id);
            in_target = in_target || (is_agent && both);
        }
        return vec![all_in_scope(case, in_queue, in_group, in_target)];
    }
    // T22: agents get no recordings of other members of the group.
    let mut routes = vec![own_only];
    if field != "recording" {
        routes.push(all_in_scope(case, in_queue, in_group, in_target));
    }
    routes
}

/// Each of queue, group and target that the question has must be in scope.
fn all_in_scope(case: &Case<'_>, in_queue: bool, in_group: bool, in_target: bool) -> Route {
    Route::open()
        .need(Stage::QueueScope, case.queue.is_none() || in_queue, "queue_out_of_scope")
        .need(Stage::TargetScope, case.group.is_none() || in_group, "target_out_of_scope")
        .need(Stage::TargetScope, case.target.is_none() || in_target, "target_out_of_scope")
}

fn serves(user: Option<&User>, queue: &str) -> bool {
    user.is_some_and(|user| user.queues.iter().any(|id| id == queue))
}

/// R66, R67: off if a group of the actor is off, else on if a group is on, else the setting of the
/// organization.
fn is_outbound_on(case: &Case<'_>) -> bool {
    let mut by_group = None;
    for group in &case.world.groups {
        if group.members.contains(&case.actor.id) {
            match group.outbound {
                Some(false) => by_group = Some(false),
                Some(true) if by_group.is_none() => by_group = Some(true),
                _ => {}
            }
        }
    }
    by_group.unwrap_or_else(|| case.world.setting("outbound_calls"))
}

/// A member of a led group who holds the agent role.
fn is_managed_agent(case: &Case<'_>) -> bool {
    case.target.is_some_and(|target| target.is("agent")) && is_member_of_led_group(case)
}

fn is_member_of_led_group(case: &Case<'_>) -> bool {
    let Some(target) = case.target else {
        return false;
    };
    case.world
        .groups
        .iter()
        .any(|group| group.supervisors.contains(&case.actor.id) && group.members.contains(&target.id))
}

/// R60: the rank of a role, from 1 for the lowest.
fn rank(role: &str) -> usize {
    let position = ROLES_FROM_THE_LOWEST.iter().position(|known| *known == role);
    position.expect("one of the five roles") + 1
}

/// The rank of the highest role. OPEN: a user without a role ranks below every role.
fn rank_of_user(user: &User) -> usize {
    let mut highest = 0;
    for role in &user.roles {
        highest = highest.max(rank(role));
    }
    highest
}

#[cfg(test)]
mod tests {
    use super::super::World;
    use super::super::tests::{answer_text, ask, check, session};

    /// One user of each role, and: x, an agent of g1 who serves q1; y, an agent of g2 who serves
    /// q2; boss, a manager in g1; ad2, another administrator; plain, a user without a role. sup
    /// leads g1, supervises q1 and q2, and edits q1.
    fn world(settings: &str, groups: &str, sup: &str) -> World {
        World::from_toml(&format!(
            r#"
            organization = "o"
            model = "voximplant"
            {settings}
            [[queues]]
            id = "q1"
            number = "601"
            [[queues]]
            id = "q2"
            number = "602"
            [[queues]]
            id = "q3"
            number = "603"
            [[queues]]
            id = "back"
            number = "604"
            callback = true
            [[queues]]
            id = "pds"
            number = "605"
            kind = "campaign"
            [[groups]]
            id = "g1"
            supervisors = ["sup"]
            members = ["x", "boss", "age", "vip"]
            {groups}
            [[groups]]
            id = "g2"
            members = ["y"]
            [[users]]
            id = "own"
            extension = "5000"
            roles = ["owner"]
            queues = ["q1"]
            [[users]]
            id = "adm"
            extension = "4000"
            roles = ["administrator"]
            [[users]]
            id = "ad2"
            extension = "4001"
            roles = ["administrator"]
            [[users]]
            id = "man"
            extension = "3000"
            roles = ["manager"]
            [[users]]
            id = "boss"
            extension = "3001"
            roles = ["manager"]
            [[users]]
            id = "sup"
            extension = "2000"
            roles = ["supervisor"]
            {sup}
            [[users]]
            id = "age"
            extension = "1000"
            roles = ["agent"]
            queues = ["q1", "back"]
            [[users]]
            id = "x"
            extension = "1001"
            roles = ["agent"]
            queues = ["q1"]
            [[users]]
            id = "y"
            extension = "1002"
            roles = ["agent"]
            queues = ["q2"]
            [[users]]
            id = "z"
            extension = "1003"
            roles = ["agent"]
            queues = ["q3", "back"]
            [[users]]
            id = "vip"
            extension = "1009"
            roles = ["agent"]
            queues = ["q1"]
            protected = true
            [[users]]
            id = "plain"
            extension = "1100"
            queues = ["q1"]
            "#
        ))
    }

    const SUP: &str = "supervises = [\"q1\", \"q2\"]\nedits = [\"q1\"]";

    fn default_world() -> World {
        world("", "", SUP)
    }

    /// Row, action with its keys, and the answers to own, adm, man, sup and age: a letter each, see
    /// `answer_of`.
    const MATRIX: &[(&str, &str, &str)] = &[
        ("T1", "user.view target=x", "++++t"),
        ("T1", "user.view target=y", "+++tt"),
        ("T1", "user.view target=boss", "+++tt"),
        ("T2", "profile.edit target=x field=avatar", "ttttt"),
        ("T2", "profile.edit target=x field=role role=supervisor", "+++rr"),
        ("T2", "profile.edit target=man field=skills", "+++rr"),
        ("T2", "profile.edit target=man field=role role=agent", "++trr"),
        ("T2", "profile.edit target=x field=role role=manager", "++rrr"),
        ("T3", "user.invite role=agent", "+++rr"),
        ("T3", "user.invite role=manager", "++rrr"),
        ("T3", "user.invite role=administrator", "+rrrr"),
        ("T3", "user.invite role=owner", "rrrrr"),
        ("T4", "user.block target=sup", "+++rr"),
        ("T4", "user.block target=ad2", "+ttrr"),
        ("T5", "user.role.edit target=x role=supervisor", "+++rr"),
        ("T5", "user.role.edit target=x role=manager", "++rrr"),
        ("T5", "user.role.edit target=boss role=agent", "++trr"),
        ("T6", "user.bulk_edit target=boss field=skills", "++++r"),
        ("T6", "user.bulk_edit target=x field=role role=supervisor", "+++rr"),
        ("T6", "user.bulk_edit target=x field=role role=manager", "++rrr"),
        ("T6", "user.bulk_edit target=ad2 field=role role=agent", "+ttrr"),
        ("T6", "user.bulk_edit target=y field=notify", "+++tr"),
        ("T6", "user.bulk_edit target=own field=email", "rrrrr"),
        ("T6", "user.bulk_edit target=x field=password", "rrrrr"),
        ("T7", "group.view group=g1", "++++r"),
        ("T7", "group.view group=g2", "+++tr"),
        ("T8", "group.edit", "+++rr"),
        ("T9", "conversation.view target=x", "++++r"),
        ("T9", "conversation.view target=y", "+++tr"),
        ("T9", "conversation.view target=boss", "+++tr"),
        ("T9", "conversation.view conversation=bot", "++++r"),
        ("T9", "conversation.view conversation=unassigned", "++++r"),
        ("T9", "conversation.view target=vip", "ppppr"),
        ("T10", "call.listen target=x", "++++r"),
        ("T10", "call.barge target=y", "+++tr"),
        ("T10", "call.barge conversation=bot", "++++r"),
        ("T11", "metrics.queue.view queue=q1", "++++r"),
        ("T11", "metrics.queue.view queue=q3", "+++qr"),
        ("T12", "metrics.agent.view target=x", "++++r"),
        ("T12", "metrics.agent.view target=x queue=q1", "++++r"),
        ("T12", "metrics.agent.view target=x queue=q2", "+++tr"),
        ("T12", "metrics.agent.view target=x queue=q3", "+++qr"),
        ("T12", "metrics.agent.view target=y", "+++tr"),
        ("T13", "metrics.group.view group=g1", "++++r"),
        ("T13", "metrics.group.view group=g2", "+++tr"),
        ("T14", "agent.move target=x from=q1 queue=q2", "+++er"),
        ("T14", "agent.move target=y from=q2 queue=q1", "+++tr"),
        ("T14", "agent.move target=x from=q2 queue=q1", "ttttr"),
        ("T15", "report.queue.view queue=q2", "++++r"),
        ("T15", "report.queue.view queue=q3", "+++qr"),
        ("T16", "report.agent.view target=x", "++++r"),
        ("T16", "report.agent.view target=y", "+++tr"),
        ("T17", "report.group.view group=g2", "+++tr"),
        ("T18", "report.channel.view", "+++rr"),
        ("T19", "status_log.view target=x", "++++r"),
        ("T20", "history.view target=x field=records", "++++r"),
        ("T20", "history.view target=x field=billing", "+++rr"),
        ("T20", "history.view target=y field=recording", "+++tr"),
        ("T21", "missed_calls.view target=x", "+++++"),
        ("T21", "missed_calls.view target=y", "++++t"),
        ("T21", "missed_calls.view target=z", "+++t+"),
        ("T21", "missed_calls.view target=boss", "+++tt"),
        ("T21", "missed_calls.view queue=q1", "++++q"),
        ("T21", "missed_calls.view queue=back", "+++q+"),
        ("T21", "missed_calls.view group=g1", "+++++"),
        ("T21", "missed_calls.view group=g2", "+++tt"),
        ("T22", "callbacks.view target=x field=records", "+++++"),
        ("T22", "callbacks.view target=x field=recording", "++++t"),
        ("T22", "callbacks.view target=age field=recording", "+++++"),
        ("T22", "callbacks.view queue=back field=recording", "+++q+"),
        ("T22", "callbacks.view queue=q1 field=records", "+++qq"),
        ("T22", "callbacks.view target=z field=records", "+++tt"),
        ("T23", "records.export", "+++rr"),
        ("T24", "queue.edit queue=q1", "+++rr"),
        ("T24", "queue.edit queue=pds", "kkkkk"),
        ("T25", "queue.member.edit target=x queue=q2", "+++rr"),
        ("T25", "queue.member.edit target=x from=pds queue=q2", "kkkkk"),
        ("T26", "conversation.process", "+++++"),
        ("T27", "settings.edit section=dialing", "+++rr"),
        ("T27", "settings.edit section=statuses", "++rrr"),
        ("T28", "channel.edit kind=sms verb=create", "+++rr"),
        ("T28", "channel.edit kind=sms verb=delete", "+++rr"),
        ("T28", "channel.edit kind=function verb=create", "++rrr"),
        ("T28", "channel.edit kind=api_token verb=delete", "++rrr"),
        ("T29", "extension.edit", "+++rr"),
        ("T30", "skill.edit verb=delete in_use=yes", "uuurr"),
        ("T30", "skill.edit verb=delete in_use=no", "+++rr"),
        ("T30", "skill.edit verb=edit in_use=yes", "+++rr"),
        ("T31", "tag.edit verb=delete in_use=yes", "++urr"),
        ("T31", "tag.edit verb=create", "+++rr"),
        ("T32", "topic_set.edit verb=delete in_use=yes", "++urr"),
        ("T32", "topic_set.edit verb=delete in_use=no", "+++rr"),
        ("T33", "topic.edit", "+++rr"),
        ("T34", "dnc.edit verb=create", "++++r"),
        ("T34", "dnc.edit verb=delete", "+++rr"),
        ("T35", "scenario.edit", "++rrr"),
        ("T36", "campaign.create", "++rrr"),
        ("T37", "campaign.manage queue=pds", "++rrr"),
        ("T37", "campaign.manage queue=q1", "kkkkk"),
        ("T38", "campaign.edit", "++rrr"),
        ("T39", "integration.edit", "++rrr"),
        ("T40", "security.edit", "++rrr"),
        ("T41", "activity_log.view", "++rrr"),
        ("T42", "function.edit", "++rrr"),
        ("T43", "number.edit", "++rrr"),
        ("T44", "billing.open", "+rrrr"),
        ("T45", "ownership.transfer target=ad2", "+rrrr"),
        ("T45", "ownership.transfer target=man", "trrrr"),
        ("T46", "recording.listen target=x", "++r+r"),
        ("T46", "recording.listen target=y", "++rtr"),
        ("T47", "call.outbound", "++ooo"),
    ];

    /// The answer that a letter of [`MATRIX`] means.
    fn answer_of(letter: char) -> &'static str {
        match letter {
            '+' => "allow role_permits",
            'r' => "deny role_forbids",
            'o' => "deny permission_off",
            'q' => "deny queue_out_of_scope",
            't' => "deny target_out_of_scope",
            'e' => "deny editor_flag_missing",
            'p' => "deny target_protected",
            'u' => "deny object_in_use",
            'k' => "deny wrong_kind",
            _ => panic!("no such letter: {letter}"),
        }
    }

    #[test]
    fn t1_to_t47_the_matrix() {
        let world = default_world();
        for (row, line, expected) in MATRIX {
            assert_eq!(expected.len(), 5, "{row}: {line}");
            for (actor, letter) in ["own", "adm", "man", "sup", "age"].iter().zip(expected.chars()) {
                let line = format!("actor={actor} {line}");
                assert_eq!(answer_text(&world, &[], &line), answer_of(letter), "{row}: {line}");
            }
        }
        for row in 1..=47 {
            let name = format!("T{row}");
            assert!(MATRIX.iter().any(|(known, _, _)| *known == name), "{name} has no test");
        }
    }

    #[test]
    fn r63_to_r110_ones_own_profile() {
        let world = default_world();
        // Field, and whether own, adm, man, sup and age may edit it in their own profile.
        for (field, expected) in [
            ("avatar", "+++++"),
            ("password", "+++++"),
            ("email", "++++-"),
            ("skills", "+++--"),
            ("conversation_settings", "+++--"),
        ] {
            for (actor, expected) in ["own", "adm", "man", "sup", "age"].into_iter().zip(expected.chars()) {
                let expected = if expected == '+' { "allow role_permits" } else { "deny role_forbids" };
                let line = format!("actor={actor} profile.edit target={actor} field={field}");
                assert_eq!(answer_text(&world, &[], &line), expected, "{line}");
            }
        }
        assert_eq!(
            answer_text(&world, &[], "actor=man profile.edit target=man field=role role=agent"),
            "deny target_out_of_scope"
        );
        assert_eq!(answer_text(&world, &[], "actor=man profile.edit target=x field=role"), "deny missing_attribute");
        for actor in ["own", "adm", "man", "sup", "age"] {
            let line = format!("actor={actor} user.view target={actor}");
            assert_eq!(answer_text(&world, &[], &line), "allow role_permits", "T1: {line}");
        }
        assert_eq!(answer_text(&world, &[], "actor=man profile.edit target=x field=billing"), "error malformed field");
    }

    #[test]
    fn v25_to_v35_and_v37() {
        check(
            &default_world(),
            &[],
            "V25: actor=sup call.listen target=x => allow role_permits
             V26: actor=sup call.listen target=y => deny target_out_of_scope
             V27: actor=sup conversation.view conversation=bot => allow role_permits
             V30: actor=sup agent.move target=x from=q1 queue=q2 => deny editor_flag_missing
             V34: actor=age conversation.view target=x => deny role_forbids
             V34: actor=age call.barge target=x => deny role_forbids
             V34: actor=age agent.move target=x from=q1 queue=q2 => deny role_forbids
             V35: actor=man conversation.view target=y => allow role_permits
             V35: actor=man call.barge target=y => allow role_permits
             V35: actor=man agent.move target=y from=q2 queue=q1 => allow role_permits
             V37: actor=own ownership.transfer target=man => deny target_out_of_scope
             T10: actor=man call.whisper target=x => deny unknown_action
             T10: actor=man call.listen target=man => deny self_target
             T14: actor=man agent.move target=man from=q2 queue=q1 => deny self_target
             T47: actor=plain call.outbound => deny role_forbids",
        );
        let answer = ask(&default_world(), &[], "actor=man agent.move target=y from=q2 queue=q1");
        assert_eq!(answer.queues, ["601"]);
        check(
            &world("", "", ""),
            &[],
            "V28: actor=sup agent.move target=x from=q1 queue=q2 => deny editor_flag_missing",
        );
        check(
            &world("", "", "supervises = [\"q1\", \"q2\"]\nedits = [\"q1\", \"q2\"]"),
            &[],
            "V29: actor=sup agent.move target=x from=q1 queue=q2 => allow role_permits",
        );
        let on = "[settings]\noutbound_calls = true";
        for (row, settings, group, expected) in [
            ("V31", on, "outbound = false", "deny permission_off"),
            ("V32", "", "outbound = true", "allow role_permits"),
            ("V33", on, "", "allow role_permits"),
        ] {
            let world = world(settings, group, SUP);
            assert_eq!(answer_text(&world, &[], "actor=age call.outbound"), expected, "{row}");
        }
        check(
            &world("[settings]\njoin_any_conversation = true", "", SUP),
            &[],
            "VC1: actor=sup call.listen target=y => allow role_permits
             VC1: actor=sup conversation.view target=y => deny target_out_of_scope",
        );
    }

    #[test]
    fn section_7_sessions_and_attributes() {
        check(
            &default_world(),
            &[],
            "actor=own queue.login queue=q1 => allow assigned
             actor=own queue.login queue=q2 => deny unassigned_barred
             actor=plain queue.login queue=q1 => deny role_forbids
             actor=man agent.login target=y queue=q1 => allow supervisor_login
             actor=sup agent.login target=x queue=q1 => allow supervisor_login
             actor=sup agent.login target=x queue=q2 => deny editor_flag_missing
             actor=sup agent.login target=boss queue=q1 => deny target_out_of_scope
             actor=sup agent.login target=y queue=q1 => deny target_out_of_scope
             actor=age agent.login target=x queue=q1 => deny role_forbids
             actor=man agent.login target=man queue=q1 => deny self_target
             actor=sup agent.logout target=x queue=q1 => deny not_logged_in
             actor=sup agent.end_wrapup target=x queue=q1 => deny unknown_action
             actor=man skill.edit verb=delete => deny missing_attribute
             actor=man missed_calls.view => deny missing_attribute
             actor=man call.listen conversation=agent => deny missing_attribute
             actor=man call.listen call=c-1 => deny unknown_call
             actor=man call.listen call=c-1 conversation=bot => allow role_permits
             actor=man conversation.view call=c-1 => deny missing_attribute
             actor=man group.view group=nothing => deny unknown_group
             actor=man agent.move target=x from=nothing queue=q1 => deny unknown_queue",
        );
        check(
            &default_world(),
            &[session("x", "q1", "assigned"), session("own", "q1", "assigned")],
            "actor=own queue.pause => allow paused
             actor=own queue.pause via=dashboard => allow paused
             actor=own queue.login queue=q1 via=dashboard => allow already_logged_in
             actor=x queue.pause via=dashboard => allow paused
             actor=x queue.login queue=q1 => allow already_logged_in
             actor=x queue.pause => allow paused
             actor=x queue.toggle queue=q1 => allow logged_out
             actor=sup agent.pause target=x queue=q1 => allow paused
             actor=sup agent.logout target=x queue=q1 => allow supervisor_logout",
        );
    }

    #[test]
    #[should_panic(expected = "there must be one")]
    fn v36_no_owner_does_not_load() {
        World::from_toml("organization = \"o\"\nmodel = \"voximplant\"");
    }
}
