//! `models/*.toml`: a role model, compiled into the dense tables of [`crate::policy::model`].

mod effects;

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::Path;

use crate::config::broken::{BrokenNames, NameLookup};
use crate::config::fingerprint::Fingerprint;
use crate::config::problem::{Problem, Problems};
use crate::config::reader::{Section, Source, SpannedStr, each_section};
use crate::decision::{ActionLabel, AllowReason, DenyReason};
use crate::event::{ATTRIBUTE_VALUES, AttributeSet, Key, KeySet};
use crate::limits::{
    ACTIONS_PER_MODEL_MAX, GRANTS_PER_MODEL_MAX, ID_BYTES_MAX, ROLES_PER_MODEL_MAX, SETTINGS_PER_MODEL_MAX,
    TOML_FILE_BYTES_MAX,
};
use crate::policy::facts::{Fact, FactSet};
use crate::policy::model::{Action, Effect, Grant, Model, Role, RoleSet, Setting, SettingSet, ground_of};
use crate::telephony::QueueKind;

/// The name for all users, whatever roles they hold.
const EVERYONE: &str = "everyone";

/// The keys with a closed list of values to which a grant may be limited.
const NARROWING_KEYS: &[(Key, &str)] = &[
    (Key::Via, "via"),
    (Key::Conversation, "conversation"),
    (Key::Field, "field"),
    (Key::Section, "section"),
    (Key::Kind, "kind"),
    (Key::Verb, "verb"),
    (Key::InUse, "in_use"),
];

/// Reads the file of the model `name`. `None`: it has a problem.
pub(super) fn read(path: &Path, name: &str, problems: &RefCell<Problems>, fingerprint: &Fingerprint) -> Option<Model> {
    let source = match Source::read(path, TOML_FILE_BYTES_MAX) {
        Ok(source) => source,
        Err(problem) => {
            problems.borrow_mut().add(problem);
            return None;
        }
    };
    fingerprint.add(path, source.text.as_bytes());
    read_from(&source, name, problems)
}

/// Reads the text of the file of the model `name`.
pub(super) fn read_from(source: &Source, name: &str, problems: &RefCell<Problems>) -> Option<Model> {
    let before = problems.borrow().found();
    let table = source.parse(&mut problems.borrow_mut())?;
    let mut root = Section::root(source, &table, problems);
    if let Some(given) = root.required_string("model").filter(|given| given.value != name) {
        root.report_with_help(
            &given.span,
            format!("the model `{}` is in the file {name}.toml", given.value),
            "give the model and its file the same name",
        );
    }
    let mut reader = ModelReader {
        problems,
        source,
        model: empty(name, &source.file),
        pending_toggles: vec![],
        broken_roles: BrokenNames::default(),
        broken_settings: BrokenNames::default(),
        broken_actions: BrokenNames::default(),
    };
    each_section(&mut root, "roles", |section| reader.role(section)).unwrap_or_else(|| reader.broken_roles.note(None));
    reader.user_rules(&mut root);
    each_section(&mut root, "settings", |section| reader.setting(section))
        .unwrap_or_else(|| reader.broken_settings.note(None));
    each_section(&mut root, "actions", |section| reader.action(section))
        .unwrap_or_else(|| reader.broken_actions.note(None));
    reader.resolve_toggles();
    root.sections("grants").into_iter().for_each(|section| reader.grant_table(section));
    root.finish();
    let model = reader.finish();
    (problems.borrow().found() == before).then_some(model)
}

/// A model without roles, settings, actions and grants.
pub(super) fn empty(name: &str, file: &str) -> Model {
    Model {
        name: name.into(),
        file: file.into(),
        roles: vec![],
        supervising: RoleSet::default(),
        serving: RoleSet::default(),
        roles_per_user_max: ROLES_PER_MODEL_MAX,
        held_by_one: RoleSet::default(),
        settings: vec![],
        actions: vec![],
        grants: vec![],
        action_positions: HashMap::default(),
    }
}

struct ModelReader<'a> {
    problems: &'a RefCell<Problems>,
    source: &'a Source,
    model: Model,
    /// Each toggle: the position of its action, and the names of the actions that it becomes when logged out and when
    /// logged in. They are resolved after all actions are read.
    pending_toggles: Vec<(usize, SpannedStr<'a>, SpannedStr<'a>)>,
    broken_roles: BrokenNames,
    broken_settings: BrokenNames,
    /// The actions with a problem: what depends on their effect is not judged.
    broken_actions: BrokenNames,
}

impl<'a> ModelReader<'a> {
    fn report(&self, problem: Problem) {
        self.problems.borrow_mut().add(problem);
    }

    fn report_at(&self, name: &SpannedStr<'_>, message: impl Into<String>) {
        self.report(self.source.problem(name.span.clone(), message));
    }

    fn role(&mut self, mut section: Section<'a>) {
        let found_before = section.found();
        let mut added = None;
        let name = required_word(&mut section);
        cited_rules(&mut section);
        let supervises = section.boolean("supervises").unwrap_or(false);
        let serves = section.boolean("serves").unwrap_or(false);
        let rank = section.integer("rank", 1..=u8::MAX).unwrap_or(0);
        if let Some(name) = name {
            let position = self.model.roles.len();
            if name.value == EVERYONE || self.role_position(name.value).is_some() {
                self.report_at(&name, format!("there is a role `{}` already", name.value));
            } else if position >= ROLES_PER_MODEL_MAX {
                self.report_at(&name, format!("a model has at most {ROLES_PER_MODEL_MAX} roles"));
            } else {
                added = Some(name.value);
                self.model.roles.push(Role { name: name.value.into(), supervises, serves, rank });
                if supervises {
                    self.model.supervising = self.model.supervising.with(position);
                }
                if serves {
                    self.model.serving = self.model.serving.with(position);
                }
            }
        }
        section.finish();
        if self.found() > found_before {
            self.broken_roles.note(added);
        }
    }

    fn found(&self) -> usize {
        self.problems.borrow().found()
    }

    /// Reads the rules about the roles of a user.
    fn user_rules(&mut self, root: &mut Section<'a>) {
        if let Some(max) = root.integer("roles_per_user_max", 1..=ROLES_PER_MODEL_MAX) {
            self.model.roles_per_user_max = max;
        }
        self.model.held_by_one = self.role_set(root, "held_by_one");
    }

    fn setting(&mut self, mut section: Section<'a>) {
        let found_before = section.found();
        let mut added = None;
        let name = required_word(&mut section);
        cited_rules(&mut section);
        let default = section.boolean("default").unwrap_or(false);
        let locked = section.boolean("locked").unwrap_or(false);
        if let Some(name) = name {
            let role = name.value.split_once('.').map(|(role, _)| role);
            if self.setting_position(name.value).is_some() {
                self.report_at(&name, format!("there is a setting `{}` already", name.value));
            } else if let Some(role) = role.filter(|role| self.role_named(role) == NameLookup::Unknown) {
                self.report_at(&name, format!("the setting belongs to a role `{role}`, which the model does not have"));
            } else if self.model.settings.len() >= SETTINGS_PER_MODEL_MAX {
                self.report_at(&name, format!("a model has at most {SETTINGS_PER_MODEL_MAX} settings"));
            } else {
                added = Some(name.value);
                self.model.settings.push(Setting { name: name.value.into(), default, locked });
            }
        }
        section.finish();
        if self.found() > found_before {
            self.broken_settings.note(added);
        }
    }

    fn action(&mut self, mut section: Section<'a>) {
        let found_before = section.found();
        let mut added = None;
        let name = required_word(&mut section);
        let rules = cited_rules(&mut section);
        let effect = self.effect(&mut section);
        let needs = key_set(&mut section, "needs");
        let needs_one_of = key_set(&mut section, "needs_one_of");
        let (admitted, refused) = narrowed(&mut section);
        let targetless = section.section("targetless").map_or(AttributeSet::EMPTY, |mut section| {
            let (values, _) = narrowed(&mut section);
            section.finish();
            values
        });
        let needs_with: Vec<(AttributeSet, KeySet)> =
            section.sections("needs_with").into_iter().map(needed_with).collect();
        let uses = [needs, needs_one_of, keys_of(admitted), keys_of(targetless)];
        let uses = uses
            .into_iter()
            .chain(needs_with.iter().map(|(_, keys)| *keys))
            .fold(key_set(&mut section, "uses"), KeySet::union);
        section.document_values("kinds", QueueKind::ALL.iter().map(|kind| kind.name()));
        let kinds = named_list(&mut section, "kinds", QueueKind::named);
        let mut deny_reason = |key| {
            section.document_values(key, DenyReason::ALL.iter().map(|reason| reason.code()));
            let code = section.string(key)?;
            let reason = DenyReason::with_code(code.value);
            if reason.is_none() {
                section.report(&code.span, format!("there is no deny reason `{}`", code.value));
            }
            reason
        };
        let without_role = deny_reason("without_role").unwrap_or(DenyReason::RoleForbids);
        let outside_queue = deny_reason("outside_queue").unwrap_or(DenyReason::QueueOutOfScope);
        if let Some(name) = name {
            let position = u16::try_from(self.model.actions.len())
                .ok()
                .filter(|_| self.model.actions.len() < ACTIONS_PER_MODEL_MAX);
            if self.model.action_positions.contains_key(name.value.as_bytes()) {
                self.report_at(&name, format!("there is an action `{}` already", name.value));
            } else if let Some(position) = position {
                added = Some(name.value);
                self.model.action_positions.insert(name.value.as_bytes().into(), position);
                self.model.actions.push(Action {
                    name: name.value.into(),
                    label: ActionLabel::named(name.value).unwrap_or(ActionLabel::Control),
                    effect,
                    needs,
                    needs_one_of,
                    needs_with,
                    uses,
                    attributes_used: AttributeSet::all_of(uses.with(Key::Via)),
                    attributes_refused: refused,
                    targetless,
                    kinds,
                    without_role,
                    outside_queue,
                    facts: FactSet::empty(),
                    grants: 0..0,
                    rules,
                });
            } else {
                self.report_at(&name, format!("a model has at most {ACTIONS_PER_MODEL_MAX} actions"));
            }
        }
        section.finish();
        if self.found() > found_before {
            self.broken_actions.note(added);
        }
    }

    /// Reads a grant, and adds it once for each of its actions.
    fn grant_table(&mut self, mut section: Section<'a>) {
        let found_before = section.found();
        let rules = cited_rules(&mut section);
        let line = self.source.line(&section.span);
        let actions = section.strings("actions");
        let roles = self.roles(&mut section);
        let (_, attributes_barred) = narrowed(&mut section);
        let on = self.settings(&mut section, "on");
        let off = self.settings(&mut section, "off");
        let (mut facts, any_of) = conditions(&mut section);
        let target_roles = self.role_set(&mut section, "target_roles");
        if !target_roles.is_empty() {
            facts.insert(Fact::TargetHoldsRole);
        }
        section.document_required("actions");
        let reason = allow_reason(&mut section);
        if actions.is_empty() {
            section.report_missing("actions", "the grant has no action: set `actions`".to_owned(), None);
        }
        section.finish();
        let is_whole = self.found() == found_before;
        for name in &actions {
            let action = match self.action_named(name.value) {
                NameLookup::Found(position) => position,
                NameLookup::Broken => continue,
                NameLookup::Unknown => {
                    self.report_at(name, format!("the model has no action `{}`", name.value));
                    continue;
                }
            };
            // What follows from a wrong reason, or from a condition that was not read, is no problem of its own.
            if !is_whole {
                continue;
            }
            let effect = self.model.action(action).map_or(Effect::Nothing, |action| action.effect);
            let reason = reason.unwrap_or_else(|| default_reason(effect));
            let (any_of, rules) = (any_of.clone(), rules.clone());
            let grant =
                Grant { action, roles, attributes_barred, on, off, facts, any_of, target_roles, reason, rules, line };
            self.check_grant(name, effect, &grant);
            self.add_grant(grant);
        }
    }

    /// Reports a grant whose reason does not fit the action's effect, and a grant of a toggle.
    fn check_grant(&self, at_action: &SpannedStr<'_>, effect: Effect, grant: &Grant) {
        let reason = grant.reason;
        let grounded = ground_of(reason).is_some() || reason == AllowReason::AlreadyLoggedIn;
        if matches!(effect, Effect::Login(_)) && !grounded {
            let reasons = "assigned, unassigned_allowed, supervisor_login or already_logged_in";
            self.report_at(at_action, format!("the grant of a login needs a reason: {reasons}"));
        }
        if reason == AllowReason::AlreadyLoggedIn && !grant.facts.contains(Fact::SessionOpen) {
            let fact = Fact::SessionOpen.name();
            self.report_at(at_action, format!("`{}` needs `where = [\"{fact}\"]`", reason.code()));
        }
        if effect.is_toggle() {
            self.report_at(at_action, "a toggle has no grants: the action that it becomes is judged");
        }
    }

    fn add_grant(&mut self, grant: Grant) {
        if let Some(action) = self.model.actions.get_mut(usize::from(grant.action)) {
            action.facts = grant.any_of.iter().copied().fold(action.facts | grant.facts, |all, clause| all | clause);
        }
        self.model.grants.push(grant);
    }

    fn roles(&self, section: &mut Section<'a>) -> Option<RoleSet> {
        let names = section.strings("roles");
        section.document_required("roles");
        if names.is_empty() {
            let help = format!("roles = [\"{EVERYONE}\"] is for every user of the organization");
            section.report_missing("roles", "the grant has no role: set `roles`".to_owned(), Some(&help));
        }
        if names.iter().any(|name| name.value == EVERYONE) {
            return None;
        }
        Some(self.role_set_of(section, &names))
    }

    fn role_set(&self, section: &mut Section<'a>, key: &'static str) -> RoleSet {
        let names = section.strings(key);
        self.role_set_of(section, &names)
    }

    fn role_set_of(&self, section: &Section<'a>, names: &[SpannedStr<'_>]) -> RoleSet {
        let positions = names.iter().filter_map(|name| {
            let position = self.role_named(name.value);
            if position == NameLookup::Unknown {
                section.report(&name.span, format!("the model has no role `{}`", name.value));
            }
            position.found()
        });
        positions.fold(RoleSet::default(), RoleSet::with)
    }

    fn settings(&self, section: &mut Section<'a>, key: &'static str) -> SettingSet {
        let names = section.strings(key);
        let positions = names.iter().filter_map(|name| {
            let found = self.setting_position(name.value);
            let position = self.broken_settings.or_broken(name.value, found);
            if position == NameLookup::Unknown {
                section.report(&name.span, format!("the model has no setting `{}`", name.value));
            }
            position.found()
        });
        positions.fold(SettingSet::default(), |set, position| set.switched(position, true))
    }

    fn role_named(&self, name: &str) -> NameLookup<usize> {
        self.broken_roles.or_broken(name, self.role_position(name))
    }

    /// The position of an action. An action with a problem has none: what depends on its effect is not judged.
    fn action_named(&self, name: &str) -> NameLookup<u16> {
        let position = self.model.action_positions.get(name.as_bytes()).copied();
        match self.broken_actions.or_broken(name, None::<u16>) {
            NameLookup::Broken => NameLookup::Broken,
            _ => position.map_or(NameLookup::Unknown, NameLookup::Found),
        }
    }

    fn role_position(&self, name: &str) -> Option<usize> {
        self.model.roles.iter().position(|role| &*role.name == name)
    }

    fn setting_position(&self, name: &str) -> Option<usize> {
        self.model.settings.iter().position(|setting| &*setting.name == name)
    }

    /// Sorts the grants by action, and within one action by their order in the file.
    fn finish(mut self) -> Model {
        if self.model.grants.len() > GRANTS_PER_MODEL_MAX {
            let message = format!("has more than {GRANTS_PER_MODEL_MAX} grants");
            self.report(Problem::of_file(&*self.model.file, message));
            return self.model;
        }
        self.model.grants.sort_by_key(|grant| grant.action);
        for (action, position) in self.model.actions.iter_mut().zip(0_u16..) {
            let start = self.model.grants.partition_point(|grant| grant.action < position);
            let end = self.model.grants.partition_point(|grant| grant.action <= position);
            action.grants = u16::try_from(start).unwrap_or(0)..u16::try_from(end).unwrap_or(0);
        }
        self.model
    }
}

/// Adds [`Fact::QueueGiven`] to facts that need a queue: a question without a queue is then denied with the reason for
/// that.
fn with_queue_given(facts: FactSet) -> FactSet {
    let needs_queue = Fact::QueueServed | Fact::QueueSupervised | Fact::SessionOpen;
    if facts.is_disjoint(needs_queue) { facts } else { facts | Fact::QueueGiven }
}

/// The reason of a grant that names none.
const fn default_reason(effect: Effect) -> AllowReason {
    match effect {
        Effect::Logout(_) => AllowReason::LoggedOut,
        Effect::Pause(_, true) => AllowReason::Paused,
        Effect::Pause(_, false) => AllowReason::Resumed,
        Effect::Nothing
        | Effect::Login(_)
        | Effect::Toggle { .. }
        | Effect::TogglePause { .. }
        | Effect::Supervise(_)
        | Effect::Watch => AllowReason::RolePermits,
    }
}

/// Reads `name`, whose characters every dialect can carry.
fn required_word<'a>(section: &mut Section<'a>) -> Option<SpannedStr<'a>> {
    let name = section.required_string("name")?;
    let admitted = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'.');
    if name.value.is_empty() || name.value.len() > ID_BYTES_MAX || !name.value.bytes().all(admitted) {
        let help = format!("a name is 1 to {ID_BYTES_MAX} of a-z 0-9 _ and .");
        section.report_with_help(&name.span, format!("`{}` cannot be a name", name.value), help);
        return None;
    }
    Some(name)
}

/// Reads `reason`. `None`: it is not given, or is no allow reason, which is reported.
fn allow_reason(section: &mut Section<'_>) -> Option<AllowReason> {
    section.document_values("reason", AllowReason::ALL.iter().map(|reason| reason.code()));
    let code = section.string("reason")?;
    let reason = AllowReason::with_code(code.value);
    if reason.is_none() {
        section.report(&code.span, format!("there is no allow reason `{}`", code.value));
    }
    reason
}

/// Reads the rules that an entry implements; every entry names at least one.
fn cited_rules(section: &mut Section<'_>) -> Vec<Box<str>> {
    let rules = section.strings("rules");
    section.document_required("rules");
    if rules.is_empty() {
        let help = "for example rules = [\"R10\"], or a word of your own";
        section.report_missing("rules", "the entry names no rule".to_owned(), Some(help));
    }
    rules.into_iter().map(|rule| rule.value.into()).collect()
}

/// Reads `where`: the facts that all must hold, and for each entry with `|` the facts of which one must hold.
fn conditions(section: &mut Section<'_>) -> (FactSet, Vec<FactSet>) {
    let mut all = FactSet::empty();
    let mut any_of = vec![];
    for entry in section.strings("where") {
        let mut clause = FactSet::empty();
        for name in entry.value.split('|') {
            match Fact::named(name.trim()) {
                // Without `target_roles` the fact would never hold.
                Some(Fact::TargetHoldsRole) => {
                    section.report(&entry.span, "name the roles of the target in `target_roles` instead");
                }
                Some(fact) => clause |= fact,
                None => section.report(&entry.span, format!("there is no fact `{}`", name.trim())),
            }
        }
        if entry.value.contains('|') {
            any_of.push(clause);
        } else {
            all = all.union(clause);
        }
    }
    (with_queue_given(all), any_of)
}

/// Reads the attribute values that a table admits; second, the values that it bars. A key that it does not name bars
/// nothing.
fn narrowed(section: &mut Section<'_>) -> (AttributeSet, AttributeSet) {
    let (mut admitted, mut barred) = (AttributeSet::EMPTY, AttributeSet::EMPTY);
    for &(key, name) in NARROWING_KEYS {
        section.document_values(
            name,
            ATTRIBUTE_VALUES.iter().filter(|(attribute, _)| *attribute == key).map(|(_, value)| *value),
        );
        let values = section.strings(name);
        let found = values.iter().filter_map(|value| {
            let set = AttributeSet::value(key, value.value);
            if set.is_none() {
                section.report(&value.span, format!("`{}` is not a value of `{name}`", value.value));
            }
            set
        });
        let found = found.fold(AttributeSet::EMPTY, AttributeSet::union);
        if !found.is_empty() {
            admitted = admitted.union(found);
            barred = barred.union(AttributeSet::of(key).without(found));
        }
    }
    (admitted, barred)
}

/// Reads an entry of `needs_with`: attribute values, and the keys that a question with one of these values needs.
fn needed_with(mut section: Section<'_>) -> (AttributeSet, KeySet) {
    let (values, _) = narrowed(&mut section);
    let needs = key_set(&mut section, "needs");
    section.finish();
    (values, needs)
}

fn keys_of(values: AttributeSet) -> KeySet {
    values.iter().fold(KeySet::EMPTY, |keys, (key, _)| keys.with(key))
}

fn key_set(section: &mut Section<'_>, key: &'static str) -> KeySet {
    section.document_values(key, Key::ALL.iter().map(|key| key.name()));
    named_list(section, key, Key::named).into_iter().fold(KeySet::EMPTY, KeySet::with)
}

fn named_list<T>(section: &mut Section<'_>, key: &'static str, named: impl Fn(&str) -> Option<T>) -> Vec<T> {
    let names = section.strings(key);
    let found = names.iter().filter_map(|name| {
        let found = named(name.value);
        if found.is_none() {
            section.report(&name.span, format!("`{}` is not a value of `{key}`", name.value));
        }
        found
    });
    found.collect()
}
