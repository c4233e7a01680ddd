//! The reference: a second, naive implementation of the two rule documents, to test the product against.
//!
//! It was written from the rule documents alone, without knowledge of `src/`, so that both are
//! unlikely to have the same mistake. It consists of plain loops over the organization file and of
//! strings, with nothing compiled or cached, so that a reader can check it against the documents.
//! Where the documents leave a question open, the choice made here is marked `OPEN:`.
//!
//! Reading order: this file (the world, the question, the order of the checks), `codes.rs` (dialed
//! digits), `goto.rs` and `voximplant.rs` (which role may do which action), `sessions.rs` (how an
//! allowed action changes the login sessions).
//!
//! LIMIT: no presets of feature codes, no `users_csv`, no leases, no shifts, no running supervisions and no
//! calls.

#![expect(
    clippy::expect_used,
    clippy::match_same_arms,
    clippy::panic,
    clippy::too_many_lines,
    unreachable_pub,
    reason = "the reference reads like its documents, and panics on input that it does not understand"
)]

mod codes;
mod goto;
mod sessions;
mod voximplant;

/// One organization file, as plain lists of strings.
#[derive(Debug, Clone)]
pub struct World {
    organization: String,
    model: String,
    /// Feature code patterns with expanded placeholders, each with its action.
    codes: Vec<(String, String)>,
    /// The settings of the file. A setting of a role has the role before its name:
    /// `supervisor.manage_skills`.
    settings: Vec<(String, bool)>,
    logins_per_user_max: Option<usize>,
    logins_per_queue_max: Option<usize>,
    logins_max: Option<usize>,
    queues: Vec<Queue>,
    groups: Vec<Group>,
    users: Vec<User>,
}

/// One user logged in to one queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The user's id.
    pub user: String,
    /// The queue's id.
    pub queue: String,
    /// `assigned`, `unassigned` or `supervisor`.
    pub ground: &'static str,
    /// Whether the session is paused: the user takes no calls from this queue.
    pub paused: bool,
}

/// One question of a peer, as keys and values. A question with `digits` is a `dial`, a question with
/// `action` a `do` or `may`.
#[derive(Debug, Clone, Default)]
pub struct Question {
    /// The organization's name.
    pub org: String,
    /// The user who asks: an id or an extension.
    pub actor: String,
    /// The dialed digits, which take precedence over `action`.
    pub digits: Option<String>,
    /// The named action.
    pub action: Option<String>,
    /// The user on whom the action acts: an id or an extension.
    pub target: Option<String>,
    /// The queue of the action, or the queue to move to: an id or a number.
    pub queue: Option<String>,
    /// The queue to move from: an id or a number.
    pub from: Option<String>,
    /// A group's id.
    pub group: Option<String>,
    /// The part of a profile, history or callback.
    pub field: Option<String>,
    /// The role to give.
    pub role: Option<String>,
    /// The part of the general settings.
    pub section: Option<String>,
    /// The kind of a channel.
    pub kind: Option<String>,
    /// `view`, `create`, `edit` or `delete`.
    pub verb: Option<String>,
    /// `agent`, `unassigned` or `bot`; absent: `agent`.
    pub conversation: Option<String>,
    /// `yes` or `no`.
    pub in_use: Option<String>,
    /// `phone` or `dashboard`; absent: `phone`.
    pub via: Option<String>,
    /// A call id.
    pub call: Option<String>,
}

/// The answer of the reference to a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// `allow`, `deny` or `error`.
    pub verdict: &'static str,
    /// The reason's code.
    pub reason: String,
    /// The key of an error. `None`: no error.
    pub key: Option<&'static str>,
    /// The decided action; of a toggle, the login or logout that it became. `None`: an error, or the
    /// action is unknown.
    pub action: Option<String>,
    /// The numbers of the queues of the decision, ascending as strings.
    pub queues: Vec<String>,
    /// The extension of the target. `None`: the action has no target, or the target is unknown.
    pub target: Option<String>,
    /// All login sessions after a `do`; unchanged after a denial or an error.
    pub sessions_after: Vec<Session>,
}

/// Decides one question as `do`, so `sessions_after` may differ from `sessions`.
pub fn judge(world: &World, sessions: &[Session], question: &Question) -> Answer {
    let mut answer = Answer {
        verdict: "deny",
        reason: String::new(),
        key: None,
        action: None,
        queues: Vec::new(),
        target: None,
        sessions_after: sessions.to_vec(),
    };
    match run_checks(world, sessions, question, &mut answer) {
        Ok(granted) => {
            answer.verdict = "allow";
            answer.reason = granted.reason.to_owned();
            answer.sessions_after = granted.sessions;
        }
        Err(Refused::Deny(reason)) => answer.reason = reason.to_owned(),
        Err(Refused::Error(reason, key)) => {
            // OPEN: an error has only a reason and a key, because nothing was decided.
            answer.verdict = "error";
            answer.reason = reason.to_owned();
            answer.key = Some(key);
            answer.action = None;
            answer.queues.clear();
            answer.target = None;
        }
    }
    answer.queues.sort();
    answer.queues.dedup();
    answer
}

/// The checks, in the order of config/models/README.md, "How a question is judged". Writes action, queues and target to
/// `answer` as soon as they are known.
fn run_checks(
    world: &World,
    sessions: &[Session],
    question: &Question,
    answer: &mut Answer,
) -> Result<Granted, Refused> {
    // Organization.
    if question.org != world.organization {
        return Err(Refused::Deny("unknown_organization"));
    }

    // Action. From here on a dialed queue or target counts as a given one.
    let mut question = question.clone();
    let mut dialed_target = None;
    if let Some(digits) = question.digits.clone() {
        let Some((action, arguments)) = codes::look_up(&world.codes, &digits) else {
            return Err(Refused::Deny("unknown_feature_code"));
        };
        question.action = Some(action);
        // OPEN: a target both dialed and given is treated as a queue both dialed and given. If both are, the error
        // names the queue, whatever the order in the code.
        let dialed = |key: &str| arguments.iter().find(|(name, _)| *name == key).map(|(_, digits)| digits.clone());
        if let Some(queue) = dialed("queue") {
            if question.queue.is_some() {
                return Err(Refused::Error("duplicate_key", "queue"));
            }
            question.queue = Some(queue);
        }
        if let Some(target) = dialed("target") {
            if question.target.is_some() {
                return Err(Refused::Error("duplicate_key", "target"));
            }
            question.target = Some(target.clone());
            dialed_target = Some(target);
        }
    }
    let Some(action) = question.action.clone() else {
        // OPEN: neither digits nor action; the dialects refuse such a question before the gate.
        return Err(Refused::Error("missing_key", "action"));
    };
    let Some(keys) = keys_of(&world.model, &action) else {
        return Err(Refused::Deny("unknown_action"));
    };
    answer.action = Some(action.clone());

    // Attributes: first wrong values, then missing keys.
    // OPEN: a value outside its list is an error only where the action uses the key, and is reported
    // before a missing key.
    for key in keys.all() {
        let (Some(value), Some(list)) = (question.value(key), values_of(&action, key)) else {
            continue;
        };
        if !list.contains(&value) {
            return Err(Refused::Error("malformed", key));
        }
    }
    for &alternatives in keys.needed {
        let is_there = alternatives.split('|').any(|key| question.value(key).is_some());
        if !is_there && is_needed(&question, keys, alternatives) {
            return Err(Refused::Deny("missing_attribute"));
        }
    }

    // Actor, queue, target, group.
    let Some(actor) = world.user(&question.actor) else {
        return Err(Refused::Deny("unknown_user"));
    };
    let mut queue = None;
    if let (true, Some(name)) = (keys.has("queue"), &question.queue) {
        queue = world.queue(name);
        if queue.is_none() {
            return Err(Refused::Deny("unknown_queue"));
        }
    }
    // OPEN: the answer to a move has the queue that the user moves to, and no queue if either queue
    // is unknown.
    let mut from = None;
    if let (true, Some(name)) = (keys.has("from"), &question.from) {
        from = world.queue(name);
        if from.is_none() {
            return Err(Refused::Deny("unknown_queue"));
        }
    }
    answer.queues.extend(queue.map(|queue| queue.number.clone()));
    let mut target = None;
    if keys.has("target") && question.is_about_an_agent(keys) {
        match (&question.target, &question.call) {
            (Some(name), _) => {
                target = world.user(name);
                let Some(target) = target else {
                    return Err(Refused::Deny("unknown_target"));
                };
                answer.target = Some(target.extension.clone());
            }
            // OPEN: a call identifies the target, so it is looked up when the target would be.
            (None, Some(_)) if keys.has("call") => return Err(Refused::Deny("unknown_call")),
            (None, _) => {}
        }
    }
    let mut group = None;
    if let (true, Some(name)) = (keys.has("group"), &question.group) {
        group = world.groups.iter().find(|group| group.id == *name);
        if group.is_none() {
            return Err(Refused::Deny("unknown_group"));
        }
    }

    // Kind.
    for queue in queue.into_iter().chain(from) {
        let is_wrong = match action.as_str() {
            "disposition.set" => queue.kind != "call",
            "campaign.manage" | "campaign.edit" => queue.kind != "campaign",
            "queue.edit" | "queue.member.edit" => queue.kind == "campaign",
            _ => false,
        };
        if is_wrong {
            return Err(Refused::Deny("wrong_kind"));
        }
    }

    // FIELD C5: a dialed target that the action does not use must be the actor.
    if let Some(dialed) = dialed_target.filter(|_| !keys.has("target"))
        && world.user(&dialed).is_none_or(|user| user.id != actor.id)
    {
        return Err(Refused::Deny("target_out_of_scope"));
    }

    // A toggle is decided as a login or a logout, depending on the actor's sessions; a toggle of the pause as a pause
    // or a resume.
    // OPEN: the answer to a toggle that was refused before this point has the action of the toggle.
    let mut case = Case { world, sessions, question: &question, action, actor, queue, from, target, group };
    if case.action == "queue.toggle" || case.action == "queue.toggle_pause" {
        case.action = sessions::toggled(&case).to_owned();
        answer.action = Some(case.action.clone());
    }
    if queue.is_none() {
        answer.queues.extend(sessions::concerned_queues(&case));
    }

    // Role and everything after it.
    let granted = match world.model.as_str() {
        "goto" => goto::decide(&case),
        _ => voximplant::decide(&case),
    };
    granted.map_err(Refused::Deny)
}

/// The keys of an action, apart from `org`, `actor`, `digits` and `action`. Other keys are ignored.
struct Keys {
    action: &'static str,
    /// Required keys: without one of them the reason is `missing_attribute`. For `a|b` either key is
    /// enough.
    needed: &'static [&'static str],
    /// Keys that are used, and looked up, if the question has them.
    optional: &'static [&'static str],
}

/// One row of a model's table: the action, its required keys and its optional keys.
const fn keys(action: &'static str, needed: &'static [&'static str], optional: &'static [&'static str]) -> Keys {
    Keys { action, needed, optional }
}

impl Keys {
    fn all(&self) -> Vec<&'static str> {
        let mut all = Vec::new();
        for entry in self.needed.iter().chain(self.optional) {
            all.extend(entry.split('|'));
        }
        all
    }

    fn has(&self, key: &str) -> bool {
        self.all().contains(&key)
    }
}

/// The keys of an action. `None`: the model does not have the action.
fn keys_of(model: &str, action: &str) -> Option<&'static Keys> {
    let table = match model {
        "goto" => goto::KEYS,
        _ => voximplant::KEYS,
    };
    table.iter().find(|keys| keys.action == action)
}

/// The valid values of a key. `None`: any text.
fn values_of(action: &str, key: &str) -> Option<&'static [&'static str]> {
    match key {
        "field" if action == "history.view" || action == "callbacks.view" => {
            Some(&["records", "recording", "billing", "details"])
        }
        "field" => Some(&[
            "avatar",
            "language",
            "timezone",
            "email",
            "password",
            "role",
            "skills",
            "conversation_settings",
            "max_chats",
            "notify",
        ]),
        "role" if action == "queue.assign" => Some(&["agent", "supervisor", "contact_admin"]),
        "role" => Some(&["agent", "supervisor", "manager", "administrator", "owner"]),
        "section" => Some(&["call_permissions", "contact_details", "dialing", "statuses", "other"]),
        "kind" => Some(&["sms", "function", "api_token", "other"]),
        "verb" => Some(&["view", "create", "edit", "delete"]),
        "conversation" => Some(&["agent", "unassigned", "bot"]),
        "in_use" => Some(&["yes", "no"]),
        "via" => Some(&["phone", "dashboard"]),
        _ => None,
    }
}

/// Whether the question needs the key: two keys are needed only with certain values of another key.
fn is_needed(question: &Question, keys: &Keys, key: &str) -> bool {
    match key {
        // OPEN: `in_use` decides only about a deletion, so only then is it needed.
        "in_use" => question.value("verb") == Some("delete"),
        "role" if keys.has("field") => question.value("field") == Some("role"),
        "target" | "target|call" => question.is_about_an_agent(keys),
        _ => true,
    }
}

impl Question {
    fn value(&self, key: &str) -> Option<&str> {
        let value = match key {
            "target" => &self.target,
            "queue" => &self.queue,
            "from" => &self.from,
            "group" => &self.group,
            "field" => &self.field,
            "role" => &self.role,
            "section" => &self.section,
            "kind" => &self.kind,
            "verb" => &self.verb,
            "conversation" => &self.conversation,
            "in_use" => &self.in_use,
            "via" => &self.via,
            "call" => &self.call,
            _ => panic!("no such key: {key}"),
        };
        value.as_deref()
    }

    /// Whether the question has a target: conversations that are unassigned or of a bot have none,
    /// even if the key is given.
    fn is_about_an_agent(&self, keys: &Keys) -> bool {
        !keys.has("conversation") || !matches!(self.value("conversation"), Some("unassigned" | "bot"))
    }
}

/// A question with every name looked up.
struct Case<'a> {
    world: &'a World,
    sessions: &'a [Session],
    question: &'a Question,
    action: String,
    actor: &'a User,
    queue: Option<&'a Queue>,
    from: Option<&'a Queue>,
    target: Option<&'a User>,
    group: Option<&'a Group>,
}

impl Case<'_> {
    fn is_dashboard(&self) -> bool {
        self.question.value("via") == Some("dashboard")
    }

    /// DOOR 4: `supervisable = false`. Without a queue the call may be one of any queue that the target serves or is
    /// logged in to.
    fn concerns_closed_queue(&self) -> bool {
        let Some(queue) = self.queue else {
            let Some(target) = self.target else {
                return false;
            };
            let takes_calls_of = |queue: &Queue| {
                target.serves(queue)
                    || self.sessions.iter().any(|session| session.user == target.id && session.queue == queue.id)
            };
            return self.world.queues.iter().any(|queue| !queue.supervisable && takes_calls_of(queue));
        };
        !queue.supervisable
    }

    fn is_self_target(&self) -> bool {
        self.target.is_some_and(|target| target.id == self.actor.id)
    }
}

struct Granted {
    reason: &'static str,
    sessions: Vec<Session>,
}

/// The result of a rule: granted, or the reason of the denial.
type Verdict = Result<Granted, &'static str>;

enum Refused {
    Deny(&'static str),
    Error(&'static str, &'static str),
}

/// The checks after the names have been looked up, in the order of config/models/README.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Role,
    Switch,
    SelfTarget,
    QueueScope,
    TargetScope,
    EditorFlag,
    Protection,
    Condition,
}

/// One way in which a role may grant the action, with the first failed check. `None`: no check has
/// failed.
#[derive(Debug, Clone, Copy)]
struct Route {
    failed: Option<(Stage, &'static str)>,
}

impl Route {
    fn open() -> Route {
        Route { failed: None }
    }

    /// The same route with a further check. The checks may be added in any order.
    fn need(mut self, stage: Stage, is_met: bool, reason: &'static str) -> Route {
        if !is_met && self.failed.is_none_or(|(earlier, _)| stage < earlier) {
            self.failed = Some((stage, reason));
        }
        self
    }
}

/// Allowed if no check of some route has failed. Otherwise the reason of the route that failed at the
/// latest stage, or `without` if there is no route.
fn best(routes: &[Route], without: &'static str) -> Result<(), &'static str> {
    let mut furthest = (Stage::Role, without);
    for route in routes {
        match route.failed {
            None => return Ok(()),
            Some((stage, reason)) if stage > furthest.0 => furthest = (stage, reason),
            Some(_) => {}
        }
    }
    Err(furthest.1)
}

#[derive(Debug, Clone)]
struct User {
    id: String,
    extension: String,
    roles: Vec<String>,
    queues: Vec<String>,
    supervises: Vec<String>,
    edits: Vec<String>,
    protected: bool,
}

impl User {
    fn is(&self, role: &str) -> bool {
        self.roles.iter().any(|mine| mine == role)
    }

    fn serves(&self, queue: &Queue) -> bool {
        self.queues.contains(&queue.id)
    }

    fn supervises(&self, queue: &Queue) -> bool {
        self.supervises.contains(&queue.id)
    }

    fn edits(&self, queue: &Queue) -> bool {
        self.edits.contains(&queue.id)
    }
}

#[derive(Debug, Clone)]
struct Queue {
    id: String,
    number: String,
    kind: String,
    wrap_up_seconds: i64,
    callback: bool,
    supervisable: bool,
}

#[derive(Debug, Clone)]
struct Group {
    id: String,
    supervisors: Vec<String>,
    members: Vec<String>,
    outbound: Option<bool>,
}

/// Every setting of both models, its default first.
const SETTINGS: &[(&str, bool, &str)] = &[
    ("goto", false, "allow_unassigned_login"),
    ("goto", false, "watch_colleagues"),
    ("goto", false, "supervisor.access_configuration_portal"),
    ("goto", true, "supervisor.limit_to_assigned_queues"),
    ("goto", true, "supervisor.view_queue_settings"),
    ("goto", false, "supervisor.manage_queue_settings"),
    ("goto", false, "supervisor.view_pause_reasons"),
    ("goto", false, "supervisor.manage_pause_reasons"),
    ("goto", false, "supervisor.view_skills"),
    ("goto", false, "supervisor.manage_skills"),
    ("goto", false, "supervisor.supervise_peers"),
    ("goto", false, "supervisor.supervise_outside_queues"),
    ("goto", false, "agent.manage_prerecorded_messages"),
    ("goto", false, "agent.manage_public_prewritten_messages"),
    ("goto", false, "agent.create_custom_tags"),
    ("goto", false, "agent.enable_dispositions"),
    ("goto", false, "contact_admin.may_supervise"),
    ("voximplant", false, "outbound_calls"),
    ("voximplant", false, "join_any_conversation"),
];

impl World {
    /// Reads an organization file. Panics if the file has anything that the reference does not know.
    pub fn from_toml(text: &str) -> World {
        let file: toml::Table = text.parse().expect("the organization file is TOML");
        for key in file.keys() {
            // `[leases]` is ignored: nothing expires in the reference.
            let known =
                ["organization", "model", "feature_codes", "settings", "leases", "limits", "queues", "groups", "users"];
            assert!(known.contains(&key.as_str()), "the reference does not know the key {key}");
        }
        let model = text_of(&file, "model");
        assert!(model == "goto" || model == "voximplant", "the reference does not know the model {model}");

        let mut world = World {
            organization: text_of(&file, "organization"),
            codes: Vec::new(),
            settings: Vec::new(),
            logins_per_user_max: None,
            logins_per_queue_max: None,
            logins_max: None,
            queues: Vec::new(),
            groups: Vec::new(),
            users: Vec::new(),
            model,
        };
        if let Some(table) = file.get("settings") {
            world.read_settings("", table.as_table().expect("settings is a table"));
        }
        if let Some(table) = file.get("limits") {
            let limits = table.as_table().expect("limits is a table");
            world.logins_per_user_max = count_of(limits, "logins_per_user_max");
            world.logins_per_queue_max = count_of(limits, "logins_per_queue_max");
            world.logins_max = count_of(limits, "logins_max");
        }
        if let Some(table) = file.get("feature_codes") {
            for (code, action) in table.as_table().expect("feature_codes is a table") {
                let action = action.as_str().expect("a feature code names an action");
                let keys = keys_of(&world.model, action).expect("the model knows the action of a feature code");
                for pattern in codes::expanded(code, keys) {
                    world.codes.push((pattern, action.to_owned()));
                }
            }
        }
        for table in tables_of(&file, "queues") {
            assert_keys(table, &["id", "number", "kind", "wrap_up_seconds", "callback", "supervisable"]);
            let wrap_up_seconds = table.get("wrap_up_seconds").map(|value| value.as_integer().expect("seconds"));
            world.queues.push(Queue {
                id: text_of(table, "id"),
                number: text_of(table, "number"),
                kind: table.get("kind").map_or("call", |kind| kind.as_str().expect("kind")).to_owned(),
                wrap_up_seconds: wrap_up_seconds.unwrap_or(0),
                callback: flag_of(table, "callback").unwrap_or(false),
                supervisable: flag_of(table, "supervisable").unwrap_or(true),
            });
        }
        for table in tables_of(&file, "groups") {
            assert_keys(table, &["id", "supervisors", "members", "outbound"]);
            world.groups.push(Group {
                id: text_of(table, "id"),
                supervisors: list_of(table, "supervisors"),
                members: list_of(table, "members"),
                outbound: flag_of(table, "outbound"),
            });
        }
        for table in tables_of(&file, "users") {
            assert_keys(table, &["id", "extension", "roles", "queues", "supervises", "edits", "protected"]);
            world.users.push(User {
                id: text_of(table, "id"),
                extension: text_of(table, "extension"),
                roles: list_of(table, "roles"),
                queues: list_of(table, "queues"),
                supervises: list_of(table, "supervises"),
                edits: list_of(table, "edits"),
                protected: flag_of(table, "protected").unwrap_or(false),
            });
        }
        world.check();
        world
    }

    fn read_settings(&mut self, role: &str, table: &toml::Table) {
        for (key, value) in table {
            let name = format!("{role}{key}");
            match value {
                toml::Value::Table(inner) => self.read_settings(&format!("{name}."), inner),
                toml::Value::Boolean(value) => {
                    let is_known = SETTINGS.iter().any(|(model, _, known)| *model == self.model && *known == name);
                    assert!(is_known, "the reference does not know the setting {name}");
                    // rules R42, V20: a grant that cannot be removed must not be set to false.
                    assert!(*value || name != "supervisor.view_queue_settings", "{name} is locked");
                    self.settings.push((name, *value));
                }
                _ => panic!("the setting {name} is neither true nor false"),
            }
        }
    }

    /// Panics if the file breaks a condition that the rules here rely on.
    fn check(&self) {
        let roles: &[&str] = match self.model.as_str() {
            "goto" => &["agent", "supervisor", "contact_admin"],
            _ => voximplant::ROLES_FROM_THE_LOWEST,
        };
        for user in &self.users {
            for role in &user.roles {
                assert!(roles.contains(&role.as_str()), "no role of {}: {role}", self.model);
            }
            for id in user.queues.iter().chain(&user.supervises).chain(&user.edits) {
                assert!(self.queues.iter().any(|queue| queue.id == *id), "no queue: {id}");
            }
        }
        for group in &self.groups {
            for id in group.supervisors.iter().chain(&group.members) {
                assert!(self.users.iter().any(|user| user.id == *id), "no user: {id}");
            }
        }
        // Rules R109 and V36.
        let owners = self.users.iter().filter(|user| user.is("owner")).count();
        assert!(self.model == "goto" || owners == 1, "{owners} owners: there must be one");
    }

    fn setting(&self, name: &str) -> bool {
        for (known, value) in &self.settings {
            if known == name {
                return *value;
            }
        }
        let (_, default, _) = SETTINGS.iter().find(|(_, _, known)| *known == name).expect("a known setting");
        *default
    }

    /// By id or extension.
    fn user(&self, name: &str) -> Option<&User> {
        self.users.iter().find(|user| user.id == name || user.extension == name)
    }

    /// By id or number.
    fn queue(&self, name: &str) -> Option<&Queue> {
        self.queues.iter().find(|queue| queue.id == name || queue.number == name)
    }
}

fn assert_keys(table: &toml::Table, known: &[&str]) {
    for key in table.keys() {
        assert!(known.contains(&key.as_str()), "the reference does not know the key {key}");
    }
}

fn text_of(table: &toml::Table, key: &str) -> String {
    let value = table.get(key).unwrap_or_else(|| panic!("the key {key} is missing"));
    value.as_str().expect("text").to_owned()
}

fn flag_of(table: &toml::Table, key: &str) -> Option<bool> {
    table.get(key).map(|value| value.as_bool().expect("true or false"))
}

fn count_of(table: &toml::Table, key: &str) -> Option<usize> {
    let count = table.get(key)?.as_integer().expect("a number");
    Some(usize::try_from(count).expect("a number that is not negative"))
}

fn list_of(table: &toml::Table, key: &str) -> Vec<String> {
    let mut list = Vec::new();
    if let Some(value) = table.get(key) {
        for item in value.as_array().expect("a list") {
            list.push(item.as_str().expect("a list of texts").to_owned());
        }
    }
    list
}

fn tables_of<'a>(file: &'a toml::Table, key: &str) -> Vec<&'a toml::Table> {
    let mut tables = Vec::new();
    if let Some(value) = file.get(key) {
        for item in value.as_array().expect("a list") {
            tables.push(item.as_table().expect("a list of tables"));
        }
    }
    tables
}

#[cfg(test)]
pub(crate) mod tests {
    use super::{Answer, Question, Session, World, judge};

    /// A question from `ACTION` and `KEY=VALUE` words: `actor=a1 queue.login queue=q1`. The
    /// organization is `o` unless given.
    pub(crate) fn question(line: &str) -> Question {
        let mut question = Question { org: "o".to_owned(), ..Question::default() };
        for token in line.split_whitespace() {
            let Some((key, value)) = token.split_once('=') else {
                question.action = Some(token.to_owned());
                continue;
            };
            let value = value.to_owned();
            match key {
                "org" => question.org = value,
                "actor" => question.actor = value,
                "digits" => question.digits = Some(value),
                "target" => question.target = Some(value),
                "queue" => question.queue = Some(value),
                "from" => question.from = Some(value),
                "group" => question.group = Some(value),
                "field" => question.field = Some(value),
                "role" => question.role = Some(value),
                "section" => question.section = Some(value),
                "kind" => question.kind = Some(value),
                "verb" => question.verb = Some(value),
                "conversation" => question.conversation = Some(value),
                "in_use" => question.in_use = Some(value),
                "via" => question.via = Some(value),
                "call" => question.call = Some(value),
                _ => panic!("no such key: {key}"),
            }
        }
        question
    }

    pub(crate) fn session(user: &str, queue: &str, ground: &'static str) -> Session {
        Session { user: user.to_owned(), queue: queue.to_owned(), ground, paused: false }
    }

    pub(crate) fn ask(world: &World, sessions: &[Session], line: &str) -> Answer {
        judge(world, sessions, &question(line))
    }

    /// The answer as text: `allow assigned`, `deny unknown_user`, `error malformed field`.
    pub(crate) fn answer_text(world: &World, sessions: &[Session], line: &str) -> String {
        let answer = ask(world, sessions, line);
        let mut text = format!("{} {}", answer.verdict, answer.reason);
        if let Some(key) = answer.key {
            text = format!("{text} {key}");
        }
        text
    }

    /// Compares the answers to a script with one question a line: `L1: actor=a1 queue.login queue=q1
    /// => allow assigned`.
    pub(crate) fn check(world: &World, sessions: &[Session], script: &str) {
        for line in script.lines() {
            let (question_text, expected) = line.split_once(" => ").expect("a question and an answer");
            let (_, question_text) = question_text.split_once(": ").unwrap_or(("", question_text));
            assert_eq!(answer_text(world, sessions, question_text), expected, "{line}");
        }
    }

    const SMALL: &str = r#"
        organization = "o"
        model = "goto"
        [feature_codes]
        "*13" = "queue.login"
        "*221" = "call.listen"
        "{queue}**" = "queue.logout"
        "*13600" = "call.direct_in"
        [[queues]]
        id = "q1"
        number = "600"
        [[queues]]
        id = "inbox"
        number = "601"
        kind = "inbox"
        [[users]]
        id = "a1"
        extension = "1001"
        roles = ["agent"]
        queues = ["q1"]
    "#;

    #[test]
    fn names_are_checked_in_the_order_of_section_7() {
        check(
            &World::from_toml(SMALL),
            &[],
            "org=p actor=x nothing => deny unknown_organization
             actor=x nothing => deny unknown_action
             actor=x digits=*99 => deny unknown_feature_code
             actor=x agent.login target=x => deny missing_attribute
             actor=x agent.login target=x queue=x => deny unknown_user
             actor=a1 agent.login target=x queue=x => deny unknown_queue
             actor=a1 agent.login target=x queue=q1 => deny unknown_target
             actor=a1 call.listen => deny missing_attribute
             actor=a1 call.listen conversation=bot => deny missing_attribute
             actor=a1 call.listen call=c-1 => deny unknown_call
             actor=a1 call.listen call=c-1 target=a1 => deny supervisor_role_required
             actor=a1 disposition.set queue=inbox => deny wrong_kind
             actor=a1 queue.login queue=q1 via=pigeon => error malformed via
             actor=a1 queue.login queue=q1 target=nobody kind=odd => allow assigned
             actor=a1 conversation.view target=a1 => deny unknown_action",
        );
    }

    #[test]
    fn names_are_ids_or_numbers_and_answers_use_numbers() {
        let world = World::from_toml(SMALL);
        for line in ["actor=a1 queue.login queue=q1", "actor=1001 queue.login queue=600", "actor=1001 digits=*13"] {
            let answer = ask(&world, &[], line);
            assert_eq!(answer.reason, "assigned", "{line}");
            assert_eq!(answer.queues, ["600"], "{line}");
            assert_eq!(answer.action.as_deref(), Some("queue.login"), "{line}");
            assert_eq!(answer.sessions_after, [session("a1", "q1", "assigned")], "{line}");
        }
    }

    #[test]
    fn dialed_digits_become_an_action() {
        let world = World::from_toml(SMALL);
        // `*13600` is not a login to 600: the pattern with the most literals counts.
        check(
            &world,
            &[],
            "actor=a1 digits=*13 => allow assigned
             actor=a1 digits=*13601 => deny unassigned_barred
             actor=a1 digits=*13600 => allow role_permits
             actor=a1 digits=600** => deny not_logged_in
             actor=a1 digits=*221 => deny unknown_feature_code
             actor=a1 digits=*2211001 queue=600 => deny supervisor_role_required
             actor=a1 digits=*13 queue=600 => allow assigned
             actor=a1 digits=*13601 queue=600 => error duplicate_key queue
             org=p actor=a1 digits=*13601 queue=600 => deny unknown_organization
             actor=a1 digits=*1360x => deny unknown_feature_code
             actor=a1 digits=*131234567890123456 => deny unknown_queue
             actor=a1 digits=*1312345678901234567 => deny unknown_feature_code",
        );
        for (digits, action) in [
            ("*13601", Some("queue.login")),
            ("600**", Some("queue.logout")),
            ("*2211001", Some("call.listen")),
            ("*99", None),
        ] {
            let answer = ask(&world, &[], &format!("actor=a1 digits={digits}"));
            assert_eq!(answer.action.as_deref(), action, "{digits}");
        }
    }

    #[test]
    #[should_panic(expected = "locked")]
    fn v20_a_locked_setting_does_not_load() {
        World::from_toml(&format!("{SMALL}\n[settings.supervisor]\nview_queue_settings = false"));
    }
}
