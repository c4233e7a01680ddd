//! Random questions, in the forms of the product, of the reference and of the wire.

use std::fmt::Write;

use queuewarden::event::{AttributeSet, Event, Intent, Key, Request};
use queuewarden::telephony::{Digits, Token, Via};

use crate::properties::worlds::{RandomOrganization, group_name};
use crate::reference::Question;
use crate::support::random_source::RandomSource;

/// A random question.
#[derive(Clone, Debug)]
pub(crate) struct RandomQuestion {
    pub(crate) question: Question,
    /// Whether the question is a `may`, which changes nothing.
    pub(crate) may: bool,
    /// The key `for` in seconds, which the reference does not know. `None`: the key is absent.
    pub(crate) lease_seconds: Option<u32>,
}

impl RandomQuestion {
    /// Draws a question to `organization`, sometimes with names of the organization `other`.
    pub(crate) fn draw(
        organization: &RandomOrganization,
        other: &RandomOrganization,
        random_source: &mut RandomSource,
    ) -> Self {
        let names = if random_source.one_in(24) { other } else { organization };
        let mut question = Question { org: organization.name.clone(), ..Question::default() };
        if random_source.one_in(256) {
            "elsewhere".clone_into(&mut question.org);
        }
        question.actor = organization.user_name(random_source).to_owned();
        if random_source.one_in(32) {
            question.actor = names.user_name(random_source).to_owned();
        }
        let dialed = random_source.one_in(4);
        if dialed {
            question.digits = Some(organization.digits(random_source));
        } else if random_source.one_in(64) {
            let unknown = ["queue.leave", "Queue.login", "call", "agent.login.", "user.invite", "conversation.view"];
            let unknown: Vec<&str> =
                unknown.into_iter().filter(|name| !organization.model.actions.contains(name)).collect();
            question.action = Some(random_source.pick(&unknown).to_owned());
        } else {
            // Half of the questions have an action of a phone or dashboard: these have state and most conditions.
            let signaling = ["queue.login", "agent.", "queue.", "call.", "conversation.view", "disposition."];
            let prefix = random_source.pick(&signaling);
            let with_prefix: Vec<&str> =
                organization.model.actions.iter().copied().filter(|name| name.starts_with(prefix)).collect();
            let from = if with_prefix.is_empty() || random_source.one_in(2) {
                organization.model.actions
            } else {
                &with_prefix
            };
            question.action = Some(random_source.pick(from).to_owned());
        }
        // Dialed codes carry their queue or target, so these keys are rarer: they describe the call, or are duplicates.
        let odds = if dialed { 3 } else { 1 };
        question.queue = random_source
            .one_in(odds)
            .then(|| names.queue_name(random_source).to_owned())
            .filter(|_| !random_source.one_in(4));
        let odds = if dialed { 16 } else { 1 };
        question.target = random_source
            .one_in(odds)
            .then(|| names.user_name(random_source).to_owned())
            .filter(|_| !random_source.one_in(8));
        question.via = match random_source.below(4) {
            0 => Some("dashboard".to_owned()),
            1 => Some("phone".to_owned()),
            _ => None,
        };
        question.call = random_source.one_in(8).then(|| "c-77/~%!".to_owned());
        draw_attributes(&mut question, names, random_source);
        let may = !dialed && random_source.one_in(4);
        let lease_seconds = random_source
            .one_in(8)
            .then(|| random_source.pick(&[1, 10, 60, 61, 43_200, 43_201]))
            .filter(|_| !dialed || random_source.one_in(8));
        Self { question, may, lease_seconds }
    }

    /// The event, as the dialects pass it to the gate.
    pub(crate) fn event(&self) -> Event<'_> {
        let question = &self.question;
        let request = match (&question.digits, &question.action) {
            (Some(digits), _) => Request::Dial(Digits::parse(digits.as_bytes()).unwrap()),
            (None, action) => Request::Action(Token::parse(action.as_ref().unwrap().as_bytes()).unwrap()),
        };
        let attributes = self.attributes().into_iter().filter_map(|(key, value)| Some((key, value?)));
        let intent = if self.may { Intent::May } else { Intent::Do };
        let organization = Token::parse(question.org.as_bytes()).unwrap();
        let actor = Token::parse(question.actor.as_bytes()).unwrap();
        Event {
            via: question.via.as_deref().map_or(Via::Phone, |via| Via::named(via).unwrap()),
            queue: question.queue.as_ref().map(|text| Token::parse(text.as_bytes()).unwrap()),
            target: question.target.as_ref().map(|text| Token::parse(text.as_bytes()).unwrap()),
            from: question.from.as_ref().map(|text| Token::parse(text.as_bytes()).unwrap()),
            group: question.group.as_ref().map(|text| Token::parse(text.as_bytes()).unwrap()),
            role: question.role.as_ref().map(|text| Token::parse(text.as_bytes()).unwrap()),
            call: question.call.as_ref().map(|text| Token::parse_call(text.as_bytes()).unwrap()),
            lease_seconds: self.lease_seconds,
            attributes: attributes
                .fold(AttributeSet::EMPTY, |set, (key, value)| set.union(AttributeSet::value(key, value).unwrap())),
            ..Event::new(intent, organization, actor, request)
        }
    }

    /// Names another value for the key.
    pub(crate) fn set(&mut self, key: &str, value: &str) {
        let question = &mut self.question;
        let field = match key {
            "queue" => &mut question.queue,
            "target" => &mut question.target,
            "from" => &mut question.from,
            "group" => &mut question.group,
            "role" => &mut question.role,
            "conversation" => &mut question.conversation,
            "field" => &mut question.field,
            "section" => &mut question.section,
            "kind" => &mut question.kind,
            "verb" => &mut question.verb,
            "in_use" => &mut question.in_use,
            _ => panic!("no proposal names {key}"),
        };
        *field = Some(value.to_owned());
    }

    /// The keys with a closed list of values, except `via`.
    fn attributes(&self) -> [(Key, Option<&str>); 6] {
        let question = &self.question;
        [
            (Key::Conversation, question.conversation.as_deref()),
            (Key::Field, question.field.as_deref()),
            (Key::Section, question.section.as_deref()),
            (Key::Kind, question.kind.as_deref()),
            (Key::Verb, question.verb.as_deref()),
            (Key::InUse, question.in_use.as_deref()),
        ]
    }

    /// The `key=value` of every given key except organization and actor, as on the wire.
    pub(crate) fn pairs(&self) -> Vec<String> {
        let question = &self.question;
        let lease = self.lease_seconds.map(|seconds| seconds.to_string());
        let present = [
            (Key::Queue, question.queue.as_deref()),
            (Key::Target, question.target.as_deref()),
            (Key::From, question.from.as_deref()),
            (Key::Group, question.group.as_deref()),
            (Key::Role, question.role.as_deref()),
            (Key::Via, question.via.as_deref()),
            (Key::Call, question.call.as_deref()),
            (Key::For, lease.as_deref()),
        ];
        let present = present.into_iter().chain(self.attributes());
        present.filter_map(|(key, value)| Some(format!("{}={}", key.name(), value?))).collect()
    }

    /// Whether the dialects accept the question: beside digits only `queue`, `call` and `via` are allowed.
    pub(crate) fn is_for_the_wire(&self) -> bool {
        let admitted = |pair: &String| ["queue=", "call=", "via="].iter().any(|key| pair.starts_with(key));
        self.question.digits.is_none() || self.pairs().iter().all(admitted)
    }

    /// The question as a line of the line dialect, with its line end.
    pub(crate) fn line(&self, id: &str) -> String {
        let Question { org, actor, digits, action, .. } = &self.question;
        let verb = match (digits, self.may) {
            (Some(_), _) => "dial",
            (None, false) => "do",
            (None, true) => "may",
        };
        let mut line = format!("{id} {verb} org={org} actor={actor}");
        match (digits, action) {
            (Some(digits), _) => write!(line, " digits={digits}").unwrap(),
            (None, action) => write!(line, " action={}", action.as_ref().unwrap()).unwrap(),
        }
        for pair in self.pairs() {
            line += " ";
            line += &pair;
        }
        line + "\n"
    }

    /// The question as a FastAGI environment, which has no `may`.
    pub(crate) fn environment(&self) -> String {
        let Question { org, actor, digits, action, .. } = &self.question;
        let action = if digits.is_some() { "dial" } else { action.as_deref().unwrap() };
        let mut text = format!(
            "agi_network: yes\nagi_network_script: {org}/{action}\nagi_calleridname: Ev: il, \"x\"\nagi_dnid: unknown\n\
             agi_extension: s\nagi_accountcode: {actor}\n"
        );
        let digits = digits.iter().map(|digits| format!("digits={digits}"));
        for (position, pair) in digits.chain(self.pairs()).enumerate() {
            writeln!(text, "agi_arg_{}: {pair}", position + 1).unwrap();
        }
        text + "\n"
    }
}

/// Draws keys, among them those that the action needs, uses, or must ignore.
fn draw_attributes(question: &mut Question, names: &RandomOrganization, random_source: &mut RandomSource) {
    let always = if question.digits.is_some() { 64 } else { 2 };
    let mut draw_value = |values: &[&str]| {
        let is_given = random_source.one_in(always);
        let value = random_source.pick(values);
        is_given.then(|| value.to_owned())
    };
    question.field =
        draw_value(&["avatar", "email", "role", "skills", "max_chats", "records", "recording", "billing", "details"]);
    question.section = draw_value(&["call_permissions", "statuses", "other"]);
    question.kind = draw_value(&["sms", "function", "api_token", "other"]);
    question.verb = draw_value(&["view", "create", "edit", "delete"]);
    question.in_use = draw_value(&["yes", "no"]);
    question.conversation = draw_value(&["agent", "unassigned", "bot"]);
    question.role = draw_value(&["agent", "supervisor", "manager", "administrator", "owner", "janitor"]);
    if random_source.one_in(always) {
        question.from = Some(names.queue_name(random_source).to_owned());
    }
    if random_source.one_in(always) {
        question.group = Some(group_name(random_source).to_owned());
    }
}
