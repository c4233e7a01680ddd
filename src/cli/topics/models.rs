//! The names that a role model may use: facts, effects, and the settings of the shipped models.

use crate::cli::topics::{Table, code};
use crate::policy::facts::{Fact, FactDenial};

/// The shipped models.
const SHIPPED: &[(&str, &str)] = &[
    ("goto", include_str!("../../../config/models/goto.toml")),
    ("voximplant", include_str!("../../../config/models/voximplant.toml")),
];

pub(super) fn facts() -> Table {
    let rows = Fact::ALL.iter().map(|&fact| {
        let reason = match fact.denial() {
            FactDenial::Reason(reason) => reason.code(),
            FactDenial::OutsideQueue => "outside_queue",
        };
        vec![code(fact.name()), meaning(fact).to_owned(), code(reason)]
    });
    Table::new("Facts, in the order of checks", &["Fact", "Holds when", "Denied without it as"], rows)
}

const fn meaning(fact: Fact) -> &'static str {
    match fact {
        Fact::RoleLower => "The role that is given is strictly lower than the actor's highest role.",
        Fact::RoleAtQueue => "The role in the question serves or supervises queues.",
        Fact::ActorOutboundByGroup => {
            "A group of the actor has `outbound = true`, and no group has `outbound = false`."
        }
        Fact::ActorOutboundUnset => "No group of the actor sets `outbound`.",
        Fact::TargetOther => "The target is not the actor.",
        Fact::QueueNone => "The event names no queue.",
        Fact::QueueGiven => "The event names a queue.",
        Fact::TargetInSupervisedQueue => "The target serves a queue that the actor supervises.",
        Fact::SessionOpen => "The subject is logged in to the queue.",
        Fact::QueueServed => "The actor serves the queue.",
        Fact::QueueSupervised => "The actor supervises the queue.",
        Fact::QueueCallback => "The queue is a callback queue.",
        Fact::TargetNone => "The event names no target.",
        Fact::TargetSelf => "The target is the actor.",
        Fact::TargetLed => "The target is in a group that the actor leads.",
        Fact::TargetManaged => "The target is in a group that the actor leads, and holds a role that serves.",
        Fact::TargetLower => "The target's highest role is strictly lower than the actor's highest role.",
        Fact::TargetHoldsRole => "The target holds one of the roles in `target_roles` of the grant.",
        Fact::TargetServing => "The target holds a role that serves.",
        Fact::TargetServesQueue => "The target serves the queue.",
        Fact::TargetServesFrom => "The target serves the queue in `from`.",
        Fact::TargetInOwnGroup => "The target is in a group of the actor, and holds a role that serves.",
        Fact::TargetInServedCallbackQueue => "The target serves a callback queue that the actor serves.",
        Fact::GroupNone => "The event names no group.",
        Fact::GroupLed => "The actor leads the group.",
        Fact::GroupOwn => "The actor is in the group.",
        Fact::FromEdited => "The actor has the editor flag on the queue in `from`.",
        Fact::QueueEdited => "The actor has the editor flag on the queue.",
        Fact::TargetUnprotected => "The target does not have `protected = true`.",
        Fact::QueueSupervisable => {
            "No queue that the question concerns has `supervisable = false`: neither its queue nor, unless it names a \
             reported call, the queue of a reported call of the target or, without a queue, one that the target serves \
             or is logged in to."
        }
        Fact::TargetNotPeer => "The target holds no role that supervises.",
        Fact::QueueWrapUp => "The queue has a wrap-up time.",
        Fact::ObjectFree => "The object is not in use.",
    }
}

/// The values of `does` and what an allowed action then does.
const EFFECTS: &[(&str, &str)] = &[
    ("login", "A login session begins."),
    ("logout", "A login session ends."),
    ("pause", "A login session takes no calls."),
    ("resume", "A login session takes calls again."),
    ("toggle", "The action becomes the action of `logged_out` or of `logged_in`, and is judged as that action."),
    ("toggle_pause", "The action becomes the action of `unpaused` or of `paused`, and is judged as that action."),
    ("listen", "A supervision begins: the supervisor hears both parties. The answer pins the mode."),
    ("whisper", "A supervision begins: as listen, and the target hears the supervisor."),
    ("barge", "A supervision begins: all three hear each other."),
    ("watch", "Nothing begins: the actor sees whether the target is in a call, as a lamp (BLF) shows it."),
];

pub(super) fn effects() -> Table {
    let rows = EFFECTS.iter().map(|(name, meaning)| vec![code(name), (*meaning).to_owned()]);
    Table::new("Effects of actions", &["`does`", "Meaning"], rows)
}

pub(super) fn settings(model: &str) -> Table {
    let text = SHIPPED.iter().find(|(name, _)| *name == model).map_or("", |(_, text)| *text);
    // A shipped model that does not parse has no rows here; the tests load it.
    let parsed: toml::Table = text.parse().unwrap_or_default();
    let settings = parsed.get("settings").and_then(toml::Value::as_array).cloned().unwrap_or_default();
    let rows = settings.iter().filter_map(|setting| {
        let name = setting.get("name")?.as_str()?;
        let flag = |key: &str| setting.get(key).and_then(toml::Value::as_bool).unwrap_or_default();
        let locked = if flag("locked") { "yes" } else { "no" };
        Some(vec![
            code(name),
            code(&flag("default").to_string()),
            locked.to_owned(),
            setting_meaning(model, name).to_owned(),
        ])
    });
    let title = format!("Settings of the role model {model}");
    Table::new(title, &["Setting", "Default", "Locked", "Meaning"], rows)
}

/// The meaning of a setting of a shipped model; empty for one that is not in the list, which a test refuses.
fn setting_meaning(model: &str, name: &str) -> &'static str {
    match (model, name) {
        ("goto", "allow_unassigned_login") => {
            "Users may log in to queues that they do not serve. After it turns false, such users stay logged in until they log out."
        }
        ("goto", "watch_colleagues") => {
            "Users may watch the calls of everybody who is not protected (`call.watch`): the lamps (BLF) of their phones."
        }
        ("goto", "supervisor.access_configuration_portal") => "Supervisors may open the configuration portal.",
        ("goto", "supervisor.limit_to_assigned_queues") => {
            "Supervisors reach only the queues that they supervise. Off: every queue."
        }
        ("goto", "supervisor.view_queue_settings") => "Supervisors see the settings of queues.",
        ("goto", "supervisor.manage_queue_settings") => "Supervisors edit the settings of queues.",
        ("goto", "supervisor.view_pause_reasons") => "Supervisors see the pause reasons; needs the portal.",
        ("goto", "supervisor.manage_pause_reasons") => "Supervisors see and edit the pause reasons.",
        ("goto", "supervisor.view_skills") => "Supervisors see skills and who has them; needs the portal.",
        ("goto", "supervisor.manage_skills") => "Supervisors see and edit skills.",
        ("goto", "supervisor.supervise_peers") => {
            "Supervisors may supervise a target who holds a role that supervises."
        }
        ("goto", "supervisor.supervise_outside_queues") => {
            "A call in no queue may be supervised if its agent serves a queue that the supervisor supervises."
        }
        ("goto", "agent.manage_prerecorded_messages") => "Agents edit recorded messages.",
        ("goto", "agent.manage_public_prewritten_messages") => "Agents edit written messages.",
        ("goto", "agent.create_custom_tags") => "Agents create tags.",
        ("goto", "agent.enable_dispositions") => {
            "Agents tag calls with disposition codes, in queues with a wrap-up time."
        }
        ("goto", "contact_admin.may_supervise") => "Contact admins may do in every queue what supervisors may do.",
        ("voximplant", "outbound_calls") => "Users in no group that sets `outbound` may call out.",
        ("voximplant", "join_any_conversation") => {
            "Supervisors may join a conversation of any agent. Off: of the agents that they manage."
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::{SHIPPED, settings};

    #[test]
    fn every_setting_of_a_shipped_model_has_a_meaning() {
        for (model, _) in SHIPPED {
            let table = settings(model);
            assert!(table.rows.len() >= 2, "{model}");
            assert!(table.rows.iter().all(|row| !row[3].is_empty()), "{model}: {:?}", table.rows);
        }
    }
}
