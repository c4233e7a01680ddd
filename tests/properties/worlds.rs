//! Random organizations, and random edits of them before a reload. They are so small that all their parts occur
//! together.

use std::fmt::Write;

use crate::properties::models::{MODELS, Model};
use crate::support::random_source::RandomSource;

/// The ids of users. One is also a valid extension.
const PEOPLE: &[&str] = &["ann", "bob", "cy.d", "Eve_1", "3001"];
/// Extensions, among them prefixes of one another.
const EXTENSIONS: &[&str] = &["10", "100", "1001", "1002", "0100", "2001"];
/// The ids of queues.
const QUEUES: &[&str] = &["sales", "help-desk", "night", "777"];
const NUMBERS: &[&str] = &["6", "60", "600", "601", "0600", "1001"];
const KINDS: &[&str] = &["call", "call", "ring_group", "inbox", "campaign"];
const GROUPS: &[&str] = &["north", "south"];
/// Names that no user and no queue has.
const STRANGERS: &[&str] = &["nobody", "9999", "ANN", "6001", "*13"];

/// The feature codes of the preset `asterisk`. The reference gets them as own codes, because it has no presets.
const ASTERISK: &[(&str, &str)] = &[
    ("*13", "queue.login"),
    ("*14", "queue.logout"),
    ("*15", "queue.pause"),
    ("*16", "queue.resume"),
    ("*221", "call.listen"),
    ("*222", "call.whisper"),
    ("*223", "call.barge"),
    ("*17{target}*{queue}", "agent.login"),
    ("*18{target}*{queue}", "agent.logout"),
];

/// A queue of an organization.
#[derive(Clone, Debug)]
pub(crate) struct RandomQueue {
    pub(crate) id: &'static str,
    pub(crate) number: &'static str,
    kind: &'static str,
    wrap_up_seconds: usize,
    callback: bool,
    supervisable: bool,
}

/// A user of an organization.
#[derive(Clone, Debug)]
pub(crate) struct RandomUser {
    pub(crate) id: &'static str,
    pub(crate) extension: &'static str,
    roles: Vec<&'static str>,
    queues: Vec<&'static str>,
    supervises: Vec<&'static str>,
    edits: Vec<&'static str>,
    protected: bool,
}

#[derive(Clone, Debug)]
struct RandomGroup {
    id: &'static str,
    supervisors: Vec<&'static str>,
    members: Vec<&'static str>,
    outbound: Option<bool>,
}

/// A random organization, which is written as the organization file of the product and of the reference.
#[derive(Clone, Debug)]
pub(crate) struct RandomOrganization {
    pub(crate) name: String,
    pub(crate) model: &'static Model,
    settings: Vec<(&'static str, bool)>,
    preset: bool,
    codes: Vec<(&'static str, &'static str)>,
    pub(crate) lease_default_seconds: u32,
    pub(crate) lease_max_seconds: u32,
    limits: [Option<usize>; 3],
    pub(crate) queues: Vec<RandomQueue>,
    pub(crate) users: Vec<RandomUser>,
    groups: Vec<RandomGroup>,
}

/// The name of a group, known or not.
pub(crate) fn group_name(random_source: &mut RandomSource) -> &'static str {
    if random_source.one_in(16) { random_source.pick(STRANGERS) } else { random_source.pick(GROUPS) }
}

impl RandomOrganization {
    /// A new organization with this name.
    pub(crate) fn new(name: &str, random_source: &mut RandomSource) -> Self {
        let mut organization = Self {
            name: name.to_owned(),
            model: random_source.pick(MODELS),
            settings: vec![],
            preset: false,
            codes: vec![],
            lease_default_seconds: 0,
            lease_max_seconds: 43_200,
            limits: [None; 3],
            queues: vec![],
            users: vec![],
            groups: vec![],
        };
        organization.draw_settings(random_source);
        organization.draw_codes(random_source);
        organization.draw_bounds(random_source);
        organization.draw_queues(random_source);
        organization.draw_users(random_source);
        organization.draw_groups(random_source);
        organization
    }

    /// The smallest file of an organization `o` with this model.
    pub(crate) fn smallest(model: &str) -> String {
        let owner =
            if model == "voximplant" { "[[users]]\nid = \"x\"\nextension = \"1\"\nroles = [\"owner\"]\n" } else { "" };
        format!("organization = \"o\"\nmodel = \"{model}\"\n{owner}")
    }

    /// Edits the organization before a reload: everything may change except the name and the model.
    pub(crate) fn edit(&mut self, random_source: &mut RandomSource) {
        if random_source.one_in(2) {
            self.draw_settings(random_source);
        }
        if random_source.one_in(4) {
            self.draw_codes(random_source);
        }
        if random_source.one_in(4) {
            self.draw_bounds(random_source);
        }
        if random_source.one_in(3) {
            self.draw_queues(random_source);
        }
        // Queues may be removed, so the assignments must be drawn again.
        self.draw_users(random_source);
        self.draw_groups(random_source);
    }

    fn draw_settings(&mut self, random_source: &mut RandomSource) {
        let settings = random_source.some(self.model.settings);
        self.settings = settings.into_iter().map(|name| (name, random_source.one_in(2))).collect();
    }

    fn draw_codes(&mut self, random_source: &mut RandomSource) {
        self.preset = random_source.one_in(4);
        self.codes = random_source.some(self.model.codes);
    }

    fn draw_bounds(&mut self, random_source: &mut RandomSource) {
        let tight = random_source.one_in(3);
        self.limits = [(); 3].map(|()| (tight && random_source.one_in(2)).then(|| random_source.below(4) + 1));
        self.lease_default_seconds = if random_source.one_in(3) { 30 } else { 0 };
        self.lease_max_seconds = if random_source.one_in(2) { 60 } else { 43_200 };
    }

    fn draw_queues(&mut self, random_source: &mut RandomSource) {
        let count = random_source.below(4);
        let ids = random_source.draw(QUEUES, count);
        let numbers = random_source.draw(NUMBERS, count);
        self.queues.clear();
        for (id, number) in ids.into_iter().zip(numbers) {
            self.queues.push(RandomQueue {
                id,
                // No other queue has the number 777, so it can be both id and number.
                number: if id == "777" && random_source.one_in(2) { id } else { number },
                kind: random_source.pick(KINDS),
                wrap_up_seconds: if random_source.one_in(2) { 30 } else { 0 },
                callback: random_source.one_in(3),
                supervisable: !random_source.one_in(5),
            });
        }
    }

    fn draw_users(&mut self, random_source: &mut RandomSource) {
        let count = random_source.below(4) + 1;
        let ids = random_source.draw(PEOPLE, count);
        let extensions = random_source.draw(EXTENSIONS, count);
        let queues: Vec<&'static str> = self.queues.iter().map(|queue| queue.id).collect();
        self.users.clear();
        for (id, extension) in ids.into_iter().zip(extensions) {
            let roles = match (self.model.one_role_a_user, self.users.is_empty()) {
                (true, true) => vec!["owner"],
                // Agents and supervisors are drawn more often, because most rules concern them.
                (true, false) => match random_source.below(8) {
                    0 => vec![],
                    1..=4 => vec![random_source.pick(&["agent", "supervisor"])],
                    _ => vec![random_source.pick(&["agent", "supervisor", "manager", "administrator"])],
                },
                (false, _) => random_source.some(self.model.roles),
            };
            let supervises = random_source.some(&queues);
            self.users.push(RandomUser {
                id,
                extension: if id == "3001" && random_source.one_in(2) { id } else { extension },
                roles,
                queues: random_source.some(&queues),
                edits: random_source.some(&supervises),
                supervises,
                protected: random_source.one_in(5),
            });
        }
    }

    fn draw_groups(&mut self, random_source: &mut RandomSource) {
        let people: Vec<&'static str> = self.users.iter().map(|user| user.id).collect();
        let groups = random_source.some(GROUPS);
        self.groups.clear();
        for id in groups {
            self.groups.push(RandomGroup {
                id,
                supervisors: random_source.some(&people),
                members: random_source.some(&people),
                outbound: random_source.pick(&[None, Some(true), Some(false)]),
            });
        }
    }

    /// A name for a user: an id or an extension, known or not.
    pub(crate) fn user_name(&self, random_source: &mut RandomSource) -> &'static str {
        if random_source.one_in(16) {
            return random_source.pick(STRANGERS);
        }
        if random_source.one_in(16) {
            return if random_source.one_in(2) { random_source.pick(PEOPLE) } else { random_source.pick(EXTENSIONS) };
        }
        let user = &self.users[random_source.below(self.users.len())];
        if random_source.one_in(2) { user.id } else { user.extension }
    }

    /// A name for a queue: an id or a number, known or not.
    pub(crate) fn queue_name(&self, random_source: &mut RandomSource) -> &'static str {
        if random_source.one_in(16) {
            return random_source.pick(STRANGERS);
        }
        if self.queues.is_empty() || random_source.one_in(16) {
            return if random_source.one_in(2) { random_source.pick(QUEUES) } else { random_source.pick(NUMBERS) };
        }
        let queue = &self.queues[random_source.below(self.queues.len())];
        if random_source.one_in(2) { queue.id } else { queue.number }
    }

    /// Dialed digits: mostly a feature code of the organization with one of its numbers as the argument.
    pub(crate) fn digits(&self, random_source: &mut RandomSource) -> String {
        let codes = self.all_codes();
        if codes.is_empty() || random_source.one_in(16) {
            return random_source.pick(&["*13", "*99", "600", "**", "*13#", "*2211001", "0600**", "#9"]).to_owned();
        }
        let (code, action) = random_source.pick(&codes);
        let number = if action.starts_with("queue.") {
            self.queues.get(random_source.below(4)).map_or("600", |queue| queue.number)
        } else {
            self.users.get(random_source.below(4)).map_or("1001", |user| user.extension)
        };
        let number = if random_source.one_in(16) {
            random_source.pick(&["9999", "1234567890123456", "12345678901234567"])
        } else {
            number
        };
        let two = code.contains("{queue}") && code.contains("{target}");
        let mut other = |numbers: [&str; 2]| {
            if random_source.one_in(8) { "9999".to_owned() } else { numbers[random_source.below(2)].to_owned() }
        };
        if two {
            let queues = [0, 1].map(|queue| self.queues.get(queue).map_or("600", |queue| queue.number));
            let users = [0, 1].map(|user| self.users.get(user).map_or("1001", |user| user.extension));
            let queue = other(queues);
            return code.replace("{queue}", &queue).replace("{target}", &other(users));
        }
        match code.split_once('{') {
            Some((before, rest)) => format!("{before}{number}{}", rest.split_once('}').unwrap().1),
            None if random_source.one_in(4) => code.to_owned(),
            None => format!("{code}{number}"),
        }
    }

    /// The own feature codes, and the codes of the preset that are not overridden.
    fn all_codes(&self) -> Vec<(&'static str, &'static str)> {
        let preset = if self.preset { ASTERISK } else { &[] };
        // `*222{target}` and `*222` of the preset are the same code.
        let same = |one: &str, other: &str| one.trim_end_matches("{target}") == other.trim_end_matches("{target}");
        let inherited = preset.iter().filter(|(code, _)| !self.codes.iter().any(|(own, _)| same(own, code)));
        // Codes of the preset for an action that the model does not have are ignored.
        let inherited = inherited.filter(|(_, action)| self.model.actions.contains(action));
        inherited.chain(&self.codes).copied().collect()
    }

    /// Carries out a proposed change of the organization's file. Uses nothing but its sentence, as an operator would.
    /// False: the sentence is about the question or about who is logged in.
    pub(crate) fn carry_out(&mut self, change: &str) -> bool {
        let quoted: Vec<&str> = change.split('`').skip(1).step_by(2).collect();
        let words: Vec<&str> = change.split(' ').collect();
        let leaked = |text: &str| -> &'static str { Box::leak(text.to_owned().into_boxed_str()) };
        let replaces = self.model.name == "voximplant";
        match words[..] {
            ["give", user, "the", "role", ..] => {
                let roles = &mut self.user(user).roles;
                roles.retain(|_| !replaces);
                roles.push(leaked(quoted[0]));
            }
            ["take", "the", "role", _, "from", user] => self.user(user).roles.retain(|role| *role != quoted[0]),
            ["set", _, "=", _, "in", "the", "settings", ..] => {
                let (setting, on) = quoted[0].split_once(" = ").unwrap();
                self.settings.retain(|(known, _)| *known != setting);
                self.settings.push((leaked(setting), on == "true"));
            }
            ["set", "protected", "=", "false", "for", user] => self.user(user).protected = false,
            ["set", "`wrap_up_seconds", ..] => self.queue(words[words.len() - 1]).wrap_up_seconds = 30,
            ["set", "`supervisable", ..] => self.queue(words[words.len() - 1]).supervisable = true,
            ["set", "`callback", ..] => self.queue(words[words.len() - 1]).callback = true,
            ["set", "`outbound", ..] => self.group(quoted[1]).outbound = Some(quoted[0] == "outbound = true"),
            ["remove", "`outbound`", ..] => self.group(quoted[1]).outbound = None,
            ["add", "queue", queue, "to", "the", "queues", "of", user] => {
                let id = self.queue(queue).id;
                self.user(user).queues.push(id);
            }
            ["add", "queue", queue, "to", "what", user, relation] => {
                let id = self.queue(queue).id;
                let user = self.user(user);
                if relation == "edits" { user.edits.push(id) } else { user.supervises.push(id) }
            }
            ["add", "the", "user", ..] => self.add_user(leaked(quoted[0])),
            ["add", "the", "queue", ..] => self.add_queue(leaked(quoted[0])),
            ["add", "the", "group", ..] => {
                let id = leaked(quoted[0]);
                self.groups.push(RandomGroup { id, supervisors: vec![], members: vec![], outbound: None });
            }
            ["add", user, "to", "group", _] => {
                let id = self.user(user).id;
                self.group(quoted[0]).members.push(id);
            }
            ["make", user, "a", "supervisor", ..] => {
                let id = self.user(user).id;
                self.group(quoted[0]).supervisors.push(id);
            }
            ["raise", _, "to", most] => {
                let keys = ["logins_per_user_max", "logins_per_queue_max", "logins_max"];
                let position = keys.iter().position(|key| *key == quoted[0]).unwrap();
                self.limits[position] = Some(most.parse().unwrap());
            }
            _ => return false,
        }
        true
    }

    fn user(&mut self, id: &str) -> &mut RandomUser {
        self.users.iter_mut().find(|user| user.id == id).unwrap_or_else(|| panic!("no user {id}"))
    }

    fn queue(&mut self, number: &str) -> &mut RandomQueue {
        self.queues.iter_mut().find(|queue| queue.number == number).unwrap_or_else(|| panic!("no queue {number}"))
    }

    fn group(&mut self, id: &str) -> &mut RandomGroup {
        self.groups.iter_mut().find(|group| group.id == id).unwrap_or_else(|| panic!("no group {id}"))
    }

    fn add_user(&mut self, name: &'static str) {
        let is_extension = name.bytes().all(|byte| byte.is_ascii_digit());
        let new_id: &'static str = Box::leak(format!("new-{name}").into_boxed_str());
        let (id, extension) = if is_extension { (new_id, name) } else { (name, "0") };
        self.users.push(RandomUser {
            id,
            extension,
            roles: vec![],
            queues: vec![],
            supervises: vec![],
            edits: vec![],
            protected: false,
        });
    }

    fn add_queue(&mut self, name: &'static str) {
        let is_number = name.bytes().all(|byte| byte.is_ascii_digit());
        let new_id: &'static str = Box::leak(format!("new-{name}").into_boxed_str());
        let (id, number) = if is_number { (new_id, name) } else { (name, "0") };
        self.queues.push(RandomQueue {
            id,
            number,
            kind: "call",
            wrap_up_seconds: 0,
            callback: false,
            supervisable: true,
        });
    }

    /// The organization file of the product.
    pub(crate) fn for_the_product(&self) -> String {
        let preset = if self.preset { "feature_code_preset = \"asterisk\"\n" } else { "" };
        self.file(preset, &self.codes)
    }

    /// The organization file of the reference, which has no presets.
    pub(crate) fn for_the_reference(&self) -> String {
        self.file("", &self.all_codes())
    }

    fn file(&self, preset: &str, codes: &[(&str, &str)]) -> String {
        let mut text = format!("organization = \"{}\"\nmodel = \"{}\"\n{preset}", self.name, self.model.name);
        text += "[feature_codes]\n";
        for (code, action) in codes {
            writeln!(text, "\"{code}\" = \"{action}\"").unwrap();
        }
        text += "[settings]\n";
        for (name, value) in &self.settings {
            writeln!(text, "{name} = {value}").unwrap();
        }
        let (default, max) = (self.lease_default_seconds, self.lease_max_seconds);
        writeln!(text, "[leases]\ndefault_seconds = {default}\nmax_seconds = {max}\n[limits]").unwrap();
        for (key, limit) in ["logins_per_user_max", "logins_per_queue_max", "logins_max"].iter().zip(self.limits) {
            if let Some(limit) = limit {
                writeln!(text, "{key} = {limit}").unwrap();
            }
        }
        for RandomQueue { id, number, kind, wrap_up_seconds, callback, supervisable } in &self.queues {
            write!(text, "[[queues]]\nid = {id:?}\nnumber = {number:?}\nkind = {kind:?}\n").unwrap();
            write!(text, "wrap_up_seconds = {wrap_up_seconds}\ncallback = {callback}\n").unwrap();
            writeln!(text, "supervisable = {supervisable}").unwrap();
        }
        for RandomUser { id, extension, roles, queues, supervises, edits, protected } in &self.users {
            write!(text, "[[users]]\nid = {id:?}\nextension = {extension:?}\nroles = {roles:?}\n").unwrap();
            write!(text, "queues = {queues:?}\nsupervises = {supervises:?}\nedits = {edits:?}\n").unwrap();
            writeln!(text, "protected = {protected}").unwrap();
        }
        for RandomGroup { id, supervisors, members, outbound } in &self.groups {
            write!(text, "[[groups]]\nid = {id:?}\nsupervisors = {supervisors:?}\nmembers = {members:?}\n").unwrap();
            if let Some(outbound) = outbound {
                writeln!(text, "outbound = {outbound}").unwrap();
            }
        }
        text
    }
}
