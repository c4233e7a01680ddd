//! The meaning, the default and the range of every key of a role model.

use super::keys::{KeyText, key};

/// The keys of actions and grants that restrict a request key to some of its values.
const ATTRIBUTES: &str = "via conversation field section kind verb in_use";

pub(super) const MODEL: &[KeyText] = &[
    key("model", "required", "the name of the file without `.toml`", "The name of the model."),
    key("roles_per_user_max", "`16`", "", "The most roles that one user may hold."),
    key("held_by_one", "`[]`", "roles of the model", "Roles that exactly one user of an organization must hold."),
    key("roles", "none", "at most 16", "The roles."),
    key("settings", "none", "at most 64", "The switches that an organization can set."),
    key("actions", "none", "at most 256", "The catalogue of actions."),
    key(
        "grants",
        "none",
        "at most 4,096, counted per action",
        "The grants: which role may do which action, and under which conditions.",
    ),
];

const RULES: KeyText = key(
    "rules",
    "required",
    "at least one",
    "The numbered rules that the entry implements, or words of your own. `explain` and the audit log show them.",
);

pub(super) const ROLES: &[KeyText] = &[
    key(
        "name",
        "required",
        "1 to 64 of `a-z 0-9 _ .`",
        "The name of the role. `everyone` is reserved: it means every user.",
    ),
    RULES,
    key(
        "supervises",
        "`false`",
        "",
        "Whether a holder of the role supervises queues. Such users are peers of each other.",
    ),
    key(
        "serves",
        "`false`",
        "",
        "Whether a holder of the role takes calls. Only such members of a led group count as managed agents.",
    ),
    key(
        "rank",
        "none",
        "",
        "The rank; a higher rank outranks a lower one. A model without ranks has no order of roles.",
    ),
];

pub(super) const SETTINGS: &[KeyText] = &[
    key(
        "name",
        "required",
        "1 to 64 of `a-z 0-9 _ .`",
        "The name. An organization sets `ROLE.x` as `x` in its table `[settings.ROLE]`.",
    ),
    RULES,
    key("default", "`false`", "", "The value of the setting in an organization that does not set it."),
    key("locked", "`false`", "", "Whether an organization that changes the setting is refused."),
];

pub(super) const ACTIONS: &[KeyText] = &[
    key("name", "required", "1 to 64 of `a-z 0-9 _ .`", "The name on the wire, `noun.verb`."),
    RULES,
    key("does", "none", "an effect", "The effect of the allowed action. Without this key the action changes nothing."),
    key("whose", "`\"actor\"`", "`actor`, `target`", "The user whose login sessions the action changes."),
    key(
        "logged_out",
        "none",
        "a login of one's own",
        "Only with `does = \"toggle\"`: the action that the toggle becomes without a login session.",
    ),
    key(
        "logged_in",
        "none",
        "a logout of one's own",
        "Only with `does = \"toggle\"`: the action that the toggle becomes with a login session.",
    ),
    key(
        "unpaused",
        "none",
        "a pause of one's own",
        "Only with `does = \"toggle_pause\"`: the action that the toggle becomes for a login session that takes calls.",
    ),
    key(
        "paused",
        "none",
        "a resume of one's own",
        "Only with `does = \"toggle_pause\"`: the action that the toggle becomes if every login session is paused.",
    ),
    key("needs", "`[]`", "request keys", "Keys that an event must have; else `missing_attribute`."),
    key("needs_one_of", "`[]`", "request keys", "Keys of which an event must have at least one."),
    key("needs_with", "none", "", "Keys that an event must have if another key has a certain value."),
    key("uses", "`[]`", "request keys", "Further keys that the action reads. All other keys are ignored."),
    key("targetless", "none", "", "Values with which the event has no target, even if it names one."),
    key(
        "kinds",
        "`[]`",
        "`call`, `ring_group`, `inbox`, `campaign`",
        "The kinds of queue that the action is for; else `wrong_kind`. Empty: all kinds.",
    ),
    key("without_role", "`\"role_forbids\"`", "a deny reason", "The reason when no role of the actor has a grant."),
    key(
        "outside_queue",
        "`\"queue_out_of_scope\"`",
        "a deny reason",
        "The reason when the queue is outside every grant.",
    ),
    key(
        ATTRIBUTES,
        "`[]`",
        "values of that request key",
        "The values that the action accepts; any other value is `malformed`. Empty: all values.",
    ),
];

pub(super) const NEEDS_WITH: &[KeyText] = &[
    key("needs", "`[]`", "request keys", "The keys that are then needed."),
    key(ATTRIBUTES, "`[]`", "values of that request key", "The values with which those keys are needed."),
];

pub(super) const TARGETLESS: &[KeyText] =
    &[key(ATTRIBUTES, "`[]`", "values of that request key", "The values with which there is no target.")];

pub(super) const GRANTS: &[KeyText] = &[
    RULES,
    key("actions", "required", "actions of the model", "The actions that the grant allows."),
    key("roles", "required", "roles of the model, or `everyone`", "The actor must hold one of these roles."),
    key("on", "`[]`", "settings of the model", "Settings that must be on."),
    key("off", "`[]`", "settings of the model", "Settings that must be off."),
    key("where", "`[]`", "facts", "Facts that must all hold. `\"a | b\"` requires one of the two."),
    key(
        "target_roles",
        "`[]`",
        "roles of the model",
        "The target must hold one of these roles. The fact `target.holds_role` reads this key.",
    ),
    key(
        "reason",
        "by the effect of the action",
        "an allow reason",
        "The reason of the answer. A login needs `assigned`, `unassigned_allowed`, `supervisor_login` or, where `session.open` must hold, `already_logged_in`.",
    ),
    key(ATTRIBUTES, "`[]`", "values of that request key", "The values that the grant covers. Empty: all values."),
];
