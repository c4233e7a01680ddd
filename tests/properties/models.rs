//! What there is to draw from, per role model. A model or an action that is new to the product is a line here.

/// A role model, as far as the dice need to know it.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) name: &'static str,
    pub(crate) roles: &'static [&'static str],
    /// A user holds exactly one role, and exactly one user is the owner (RULES R59, R109).
    pub(crate) one_role_a_user: bool,
    /// Every setting that an organization may change.
    pub(crate) settings: &'static [&'static str],
    /// Every action that `config/models` has.
    pub(crate) actions: &'static [&'static str],
    /// Feature codes of which any choice is unambiguous.
    pub(crate) codes: &'static [(&'static str, &'static str)],
}

/// The models that the dice draw.
pub(crate) const MODELS: &[&Model] = &[&GOTO];

pub(crate) const GOTO: Model = Model {
    name: "goto",
    roles: &["agent", "supervisor", "contact_admin"],
    one_role_a_user: false,
    settings: &[
        "allow_unassigned_login",
        "supervisor.access_configuration_portal",
        "supervisor.limit_to_assigned_queues",
        "supervisor.manage_queue_settings",
        "supervisor.view_pause_reasons",
        "supervisor.manage_pause_reasons",
        "supervisor.view_skills",
        "supervisor.manage_skills",
        "supervisor.supervise_peers",
        "supervisor.supervise_outside_queues",
        "agent.manage_prerecorded_messages",
        "agent.manage_public_prewritten_messages",
        "agent.create_custom_tags",
        "agent.enable_dispositions",
        "contact_admin.may_supervise",
    ],
    actions: &[
        "queue.login",
        "queue.logout",
        "queue.toggle",
        "queue.pause",
        "queue.resume",
        "agent.login",
        "agent.logout",
        "agent.pause",
        "agent.resume",
        "agent.end_wrapup",
        "call.listen",
        "call.whisper",
        "call.barge",
        "call.outbound",
        "call.direct_in",
    ],
    codes: &[
        ("*13", "queue.login"),
        ("*14", "queue.logout"),
        ("*15", "queue.pause"),
        ("*16", "queue.resume"),
        ("*45", "queue.toggle"),
        ("*4560", "queue.pause"),
        ("{queue}*", "queue.login"),
        ("{queue}**", "queue.logout"),
        ("*7{queue}#", "queue.toggle"),
        ("*221", "call.listen"),
        ("*222{target}", "call.whisper"),
        ("{target}#3", "call.barge"),
        ("*31{target}", "agent.login"),
        ("*32", "agent.logout"),
        ("*33{target}*", "agent.pause"),
        ("#9", "call.outbound"),
    ],
};
