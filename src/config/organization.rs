//! `organizations/*.toml`: one tenant's queues, people, settings and feature codes.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::files::Stamp;
use crate::config::fingerprint::Fingerprint;
use crate::config::presets::PRESETS;
use crate::config::problem::{Problem, Problems};
use crate::config::reader::{Located, Section, Source};
use crate::config::schema::trace::Open;
use crate::config::users_csv;
use crate::event::Key;
use crate::limits::{
    FEATURE_CODES_PER_ORGANIZATION_MAX, ID_BYTES_MAX, LEASE_SECONDS_MAX, NUMBER_DIGITS_MAX, TOML_FILE_BYTES_MAX,
};
use crate::policy::directory::{DirectoryBuilder, Group, NewUser, Queue, User};
use crate::policy::feature_codes::{Argument, FeatureCode, FeatureCodes, Pattern};
use crate::policy::model::{Action, Model, RoleSet, SettingSet};
use crate::policy::{LeaseTerms, Limits, Organization, Policy};
use crate::telephony::{OrganizationId, QueueId, QueueKind, Token, UserId, is_number};

/// What an organization's file may refer to.
pub(super) struct Surroundings<'a> {
    pub(super) models: &'a HashMap<Box<str>, Arc<Model>>,
    pub(super) previous: &'a Policy,
    /// The id for an organization that `previous` does not have.
    pub(super) next_id: OrganizationId,
    /// What the policy is made of.
    pub(super) fingerprint: &'a Fingerprint,
}

/// An organization's file that was read.
pub(super) struct Read {
    /// Where its name stands.
    pub(super) place: Problem,
    pub(super) organization: Organization,
    /// The file of its users, as it was before it was read.
    pub(super) users_csv: Option<(PathBuf, Stamp)>,
}

pub(super) fn read(
    path: &Path,
    around: &Surroundings<'_>,
    problems: &RefCell<Problems>,
    warnings: &RefCell<Problems>,
) -> Option<Read> {
    let source = match Source::read(path, TOML_FILE_BYTES_MAX) {
        Ok(source) => source,
        Err(problem) => {
            problems.borrow_mut().add(problem);
            return None;
        }
    };
    around.fingerprint.add(path, source.text.as_bytes());
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    read_from(&source, folder, around, problems, warnings)
}

/// Reads what is there of an organization; files that it names stand in `folder`.
pub(super) fn read_from(
    source: &Source,
    folder: &Path,
    around: &Surroundings<'_>,
    problems: &RefCell<Problems>,
    warnings: &RefCell<Problems>,
) -> Option<Read> {
    let table = source.parse(&mut problems.borrow_mut())?;
    let mut root = Section::root(source, &table, problems);
    let name = required_id(&mut root, "organization");
    let model_place = root.required_string("model");
    let model = model_place.as_ref().and_then(|name| model_named(&root, name, around.models));
    let previous = name.as_ref().and_then(|name| around.previous.organization(name.value));

    // Without a model, roles, settings and codes mean nothing; the rest of the file can still be checked.
    let no_model = super::model::empty("", "");
    let mut reader = OrganizationReader {
        model: model.as_deref().unwrap_or(&no_model),
        model_is_known: model.is_some(),
        problems,
        warnings,
        builder: DirectoryBuilder::new(previous.map(|previous| &previous.directory)),
    };
    let settings = reader.settings(root.section("settings"));
    let preset = root.string("feature_code_preset");
    root.one_of("feature_code_preset", PRESETS.iter().map(|(name, _)| *name));
    let own_codes = root.section("feature_codes");
    if let Some(section) = &own_codes {
        section.open(Open::Texts);
    }
    let feature_codes = reader.feature_codes(&root, preset, own_codes.as_ref());
    let leases = read_leases(root.section("leases"));
    let limits = read_limits(root.section("limits"));
    root.sections("queues").into_iter().for_each(|section| reader.queue(section));
    root.sections("users").into_iter().for_each(|section| reader.user(section));
    let users_csv = root.string("users_csv").map(|csv| folder.join(csv.value));
    let users_csv = users_csv.map(|path| (path.clone(), Stamp::of(&path)));
    if let Some((path, _)) = &users_csv {
        users_csv::read(path, &mut reader, around.fingerprint);
    }
    root.sections("groups").into_iter().for_each(|section| reader.group(section));
    if let Some(place) = model_place {
        reader.check_sole_holders(&root, &place);
    }
    let directory = reader.builder.finish();
    root.finish();

    let (name, model) = (name?, model?);
    let organization = Organization {
        name: name.value.into(),
        id: previous.map_or(around.next_id, |previous| previous.id),
        model,
        settings,
        feature_codes,
        directory,
        limits,
        leases,
    };
    Some(Read { place: source.problem(name.span, ""), organization, users_csv })
}

fn model_named(root: &Section<'_>, name: &Located<&str>, models: &HashMap<Box<str>, Arc<Model>>) -> Option<Arc<Model>> {
    let model = models.get(name.value).map(Arc::clone);
    if model.is_none() {
        let mut known: Vec<&str> = models.keys().map(|name| &**name).collect();
        known.sort_unstable();
        let help = format!("models that loaded: {}", known.join(", "));
        root.report_with_help(&name.span, format!("there is no model `{}` in models/", name.value), help);
    }
    model
}

fn read_leases(section: Option<Section<'_>>) -> LeaseTerms {
    let mut terms = LeaseTerms::default();
    let Some(mut section) = section else { return terms };
    let mut seconds = |key, least: u64| section.integer(key, least..=u64::from(LEASE_SECONDS_MAX));
    let (default, max) = (seconds("default_seconds", 0), seconds("max_seconds", 1));
    let as_seconds = |seconds: u64| u32::try_from(seconds).unwrap_or(LEASE_SECONDS_MAX);
    terms.max_seconds = max.map_or(terms.max_seconds, as_seconds);
    terms.default_seconds = default.map_or(terms.default_seconds, as_seconds);
    if terms.default_seconds > terms.max_seconds {
        let message = format!("`default_seconds` is more than `max_seconds`, which is {}", terms.max_seconds);
        section.report(&section.span, message);
    }
    section.finish();
    terms
}

fn read_limits(section: Option<Section<'_>>) -> Limits {
    let mut limits = Limits::default();
    let Some(mut section) = section else { return limits };
    let mut count = |key, limit: &mut usize| {
        if let Some(number) = section.integer(key, 1..=*limit as u64) {
            *limit = usize::try_from(number).unwrap_or(*limit);
        }
    };
    count("logins_per_user_max", &mut limits.logins_per_user);
    count("logins_per_queue_max", &mut limits.logins_per_queue);
    count("logins_max", &mut limits.logins);
    count("supervisions_per_target_max", &mut limits.supervisions_per_target);
    count("supervisions_per_supervisor_max", &mut limits.supervisions_per_supervisor);
    limits.one_queue_at_a_time = section.boolean("one_queue_at_a_time").unwrap_or(false);
    section.finish();
    limits
}

/// A string that can be an id: it can be asked for over every wire.
fn required_id<'a>(section: &mut Section<'a>, key: &'static str) -> Option<Located<&'a str>> {
    let id = section.required_string(key)?;
    if let Err(help) = check_id(id.value) {
        section.report_with_help(&id.span, format!("`{}` cannot be an id", id.value), help);
        return None;
    }
    Some(id)
}

fn required_number<'a>(section: &mut Section<'a>, key: &'static str) -> Option<Located<&'a str>> {
    let number = section.required_string(key)?;
    if let Err(help) = check_number(number.value) {
        section.report_with_help(&number.span, format!("`{}` cannot be dialed", number.value), help);
        return None;
    }
    Some(number)
}

/// # Errors
///
/// What an id may be, when this text cannot be one.
pub(super) fn check_id(text: &str) -> Result<(), String> {
    let dialed = |byte| matches!(byte, b'*' | b'#');
    if text.len() <= ID_BYTES_MAX && Token::parse(text.as_bytes()).is_some() && !text.bytes().any(dialed) {
        Ok(())
    } else {
        Err(format!("an id is 1 to {ID_BYTES_MAX} of A-Z a-z 0-9 _ - . : @ +"))
    }
}

/// # Errors
///
/// What a number may be, when this text cannot be one.
pub(super) fn check_number(text: &str) -> Result<(), String> {
    if is_number(text) { Ok(()) } else { Err(format!("a number is 1 to {NUMBER_DIGITS_MAX} digits")) }
}

/// Reads the parts of an organization that refer to its model and to each other.
pub(super) struct OrganizationReader<'a> {
    pub(super) model: &'a Model,
    pub(super) model_is_known: bool,
    pub(super) problems: &'a RefCell<Problems>,
    pub(super) warnings: &'a RefCell<Problems>,
    pub(super) builder: DirectoryBuilder<'a>,
}

impl OrganizationReader<'_> {
    fn settings(&self, section: Option<Section<'_>>) -> SettingSet {
        let mut settings = self.model.default_settings();
        let Some(section) = section else { return settings };
        section.open(Open::Flags);
        for (key, value) in section.entries() {
            match value.get_ref().as_table() {
                None => self.switch(&section, key.value, &key, value.get_ref().as_bool(), &mut settings),
                Some(table) => {
                    for (inner, value) in table {
                        let name = format!("{}.{}", key.value, inner.get_ref());
                        let place = Located { value: "", span: inner.span() };
                        self.switch(&section, &name, &place, value.get_ref().as_bool(), &mut settings);
                    }
                }
            }
        }
        settings
    }

    fn switch(
        &self,
        section: &Section<'_>,
        name: &str,
        place: &Located<&str>,
        value: Option<bool>,
        settings: &mut SettingSet,
    ) {
        let known = self.model.settings.iter().enumerate().find(|(_, setting)| &*setting.name == name);
        match (known, value) {
            (None, _) if !self.model_is_known => {}
            (None, _) => {
                let names: Vec<&str> = self.model.settings.iter().map(|setting| &*setting.name).collect();
                let message = format!("the model `{}` has no setting `{name}`", self.model.name);
                section.report_with_help(&place.span, message, format!("its settings: {}", names.join(", ")));
            }
            (Some(_), None) => section.report(&place.span, format!("the setting `{name}` must be true or false")),
            (Some((_, setting)), Some(value)) if setting.locked && value != setting.default => {
                let message = format!("the setting `{name}` is locked at {}", setting.default);
                section.report_with_help(
                    &place.span,
                    message,
                    "leave it out: the role model does not let it be changed",
                );
            }
            (Some((position, _)), Some(value)) => *settings = settings.switched(position, value),
        }
    }

    fn feature_codes(
        &self,
        root: &Section<'_>,
        preset: Option<Located<&str>>,
        section: Option<&Section<'_>>,
    ) -> FeatureCodes {
        let mut codes = preset.map(|preset| self.preset(root, &preset)).unwrap_or_default();
        let mut own: Vec<FeatureCode> = vec![];
        for (key, value) in section.into_iter().flat_map(Section::entries) {
            let written = self.written_out(root, &key, value.get_ref().as_str(), &value.span());
            own.extend(written);
        }
        codes.retain(|code: &FeatureCode| !own.iter().any(|mine| mine.pattern.matches_the_same(&code.pattern)));
        codes.append(&mut own);
        if codes.len() > FEATURE_CODES_PER_ORGANIZATION_MAX {
            root.report(&root.span, format!("more than {FEATURE_CODES_PER_ORGANIZATION_MAX} feature codes"));
            return FeatureCodes::default();
        }
        let span = section.map_or_else(|| root.span.clone(), |section| section.span.clone());
        FeatureCodes::new(codes).unwrap_or_else(|ambiguities| {
            for ambiguity in ambiguities {
                let place = section.into_iter().flat_map(Section::entries).find(|(key, _)| {
                    let pattern = Pattern::parse(key.value).ok();
                    let shorthand = |full: &Pattern| {
                        pattern.as_ref().is_some_and(|own| {
                            full.argument().is_some_and(|argument| own.with_argument(argument) == *full)
                        })
                    };
                    [&ambiguity.first, &ambiguity.second]
                        .iter()
                        .any(|full| pattern.as_ref() == Some(full) || shorthand(full))
                });
                let span = place.map_or_else(|| span.clone(), |(key, _)| key.span);
                let help = "change one of them, or give it more literal digits";
                root.report_with_help(&span, format!("feature codes {ambiguity}"), help);
            }
            FeatureCodes::default()
        })
    }

    fn preset(&self, root: &Section<'_>, name: &Located<&str>) -> Vec<FeatureCode> {
        let Some((_, preset)) = PRESETS.iter().find(|(known, _)| *known == name.value) else {
            let names: Vec<&str> = PRESETS.iter().map(|(name, _)| *name).collect();
            let message = format!("there is no feature-code preset `{}`", name.value);
            root.report_with_help(&name.span, message, format!("presets: {}", names.join(", ")));
            return vec![];
        };
        // A preset may know more than the model: a code for an action that the model lacks means nothing there.
        let codes = preset.iter().filter_map(|(pattern, action)| {
            let action = *self.model.action_positions.get(action.as_bytes())?;
            Some(FeatureCode { pattern: Pattern::parse(pattern).ok()?, action })
        });
        codes.collect()
    }

    /// The patterns that one line of `[feature_codes]` stands for.
    fn written_out(
        &self,
        root: &Section<'_>,
        key: &Located<&str>,
        action: Option<&str>,
        value_span: &std::ops::Range<usize>,
    ) -> Vec<FeatureCode> {
        let pattern = match Pattern::parse(key.value) {
            Ok(pattern) => pattern,
            Err(error) => {
                root.report(&key.span, format!("`{}`: {error}", key.value));
                return vec![];
            }
        };
        let Some(name) = action else {
            root.report(value_span, format!("`{}` must name an action, like \"queue.login\"", key.value));
            return vec![];
        };
        let Some(&position) = self.model.action_positions.get(name.as_bytes()) else {
            if self.model_is_known {
                root.report(value_span, format!("the model `{}` has no action `{name}`", self.model.name));
            }
            return vec![];
        };
        let Some(action) = self.model.action(position) else { return vec![] };
        let patterns = match patterns_for(&pattern, action) {
            Ok(patterns) => patterns,
            Err(help) => {
                root.report_with_help(&key.span, format!("`{}` cannot mean `{name}`", key.value), help);
                return vec![];
            }
        };
        patterns.into_iter().map(|pattern| FeatureCode { pattern, action: position }).collect()
    }

    fn queue(&mut self, mut section: Section<'_>) {
        let (id, number) = (required_id(&mut section, "id"), required_number(&mut section, "number"));
        section.one_of("kind", QueueKind::ALL.iter().map(|kind| kind.name()));
        let kind = section.string("kind").and_then(|kind| {
            let found = QueueKind::named(kind.value);
            if found.is_none() {
                let kinds: Vec<&str> = QueueKind::ALL.iter().map(|kind| kind.name()).collect();
                let message = format!("there is no kind of queue `{}`", kind.value);
                section.report_with_help(&kind.span, message, format!("kinds: {}", kinds.join(", ")));
            }
            found
        });
        let wrap_up_seconds = section.integer("wrap_up_seconds", 0..=u64::from(LEASE_SECONDS_MAX)).unwrap_or(0);
        let callback = section.boolean("callback").unwrap_or(false);
        if let (Some(id), Some(number)) = (id, number) {
            let queue = Queue {
                id: id.value.into(),
                number: number.value.into(),
                kind: kind.unwrap_or(QueueKind::Call),
                wrap_up_seconds: u32::try_from(wrap_up_seconds).unwrap_or(0),
                callback,
            };
            if let Err(error) = self.builder.queue(queue) {
                section.report(&id.span, format!("the queue `{}` cannot be added: {error}", id.value));
            }
        }
        section.finish();
    }

    fn user(&mut self, mut section: Section<'_>) {
        let (id, extension) = (required_id(&mut section, "id"), required_number(&mut section, "extension"));
        let roles = section.strings("roles");
        if let (Some(message), Some(last)) = (self.too_many_roles(roles.len()), roles.last()) {
            section.report(&last.span, message);
        }
        let roles = self.role_set(roles.iter().map(|role| role.value), |role, message| {
            let span = roles.iter().find(|located| located.value == role).map_or(0..0, |located| located.span.clone());
            section.report(&span, message);
        });
        let served = self.queue_list(&mut section, "queues");
        let supervised = self.queue_list(&mut section, "supervises");
        let edited = self.queue_list(&mut section, "edits");
        let protected = section.boolean("protected").unwrap_or(false);
        for (queue, place) in &edited {
            if !supervised.iter().any(|(supervised, _)| supervised == queue) {
                section.report(&place.span, format!("`{}` is in `edits` but not in `supervises`", place.value));
            }
        }
        if let (Some(id), Some(extension)) = (id, extension) {
            let served: Vec<QueueId> = served.iter().map(|(queue, _)| *queue).collect();
            let edits = |queue| edited.iter().any(|(edited, _)| *edited == queue);
            let supervised: Vec<(QueueId, bool)> =
                supervised.iter().map(|(queue, _)| (*queue, edits(*queue))).collect();
            let user = NewUser {
                id: id.value,
                extension: extension.value,
                roles,
                protected,
                served: &served,
                supervised: &supervised,
            };
            if let Err(error) = self.builder.user(&user) {
                section.report(&id.span, format!("the user `{}` cannot be added: {error}", id.value));
            }
            if let Some(message) = self.idle_supervision(&user) {
                self.warnings.borrow_mut().add(section.source.problem(id.span, message));
            }
        }
        section.finish();
    }

    /// The queues that a list names, each with its place.
    fn queue_list<'a>(&self, section: &mut Section<'a>, key: &'static str) -> Vec<(QueueId, Located<&'a str>)> {
        let mut queues: Vec<(QueueId, Located<&str>)> = vec![];
        for name in section.strings(key) {
            match self.builder.directory().queue_named(name.value) {
                None => section.report(&name.span, format!("there is no queue `{}`", name.value)),
                Some(queue) if queues.iter().any(|(known, _)| *known == queue) => {
                    section.report(&name.span, format!("the queue `{}` is listed twice", name.value));
                }
                Some(queue) => queues.push((queue, name)),
            }
        }
        queues
    }

    /// The set of the named roles; `report` hears of each that the model does not have.
    pub(super) fn role_set<'n>(
        &self,
        names: impl Iterator<Item = &'n str>,
        mut report: impl FnMut(&str, String),
    ) -> RoleSet {
        let mut set = RoleSet::default();
        for name in names.filter(|_| self.model_is_known) {
            match self.model.roles.iter().position(|role| &*role.name == name) {
                Some(position) => set = set.with(position),
                None => report(name, format!("the model `{}` has no role `{name}`", self.model.name)),
            }
        }
        set
    }

    /// What is wrong with this many roles of one user, if anything.
    pub(super) fn too_many_roles(&self, count: usize) -> Option<String> {
        let max = self.model.roles_per_user_max;
        (count > max).then(|| format!("a user of the model `{}` has at most {max} role, not {count}", self.model.name))
    }

    /// Some roles are held by exactly one user (RULES R109).
    fn check_sole_holders(&self, root: &Section<'_>, place: &Located<&str>) {
        let directory = self.builder.directory();
        let sole = self.model.roles.iter().enumerate().filter(|(position, _)| self.model.held_by_one.has(*position));
        for (position, role) in sole {
            let count = directory.users().filter(|user| user.roles().has(position)).count();
            if count != 1 {
                let message = format!("{count} users hold the role `{}`", role.name);
                let help = format!("in the model `{}` exactly one user holds it", self.model.name);
                root.report_with_help(&place.span, message, help);
            }
        }
    }

    /// A warning for a user whose supervision has no effect for want of a role (RULES section 7, configuration).
    pub(super) fn idle_supervision(&self, user: &NewUser<'_>) -> Option<String> {
        let idle = self.model_is_known && !user.supervised.is_empty() && !user.roles.meets(self.model.supervising);
        idle.then(|| format!("`{}` supervises queues without a role that supervises: it has no effect", user.id))
    }

    fn group(&mut self, mut section: Section<'_>) {
        let id = required_id(&mut section, "id");
        let supervisors = self.user_list(&mut section, "supervisors");
        let members = self.user_list(&mut section, "members");
        let outbound = section.boolean("outbound");
        if let Some(id) = id {
            let group = Group { id: id.value.into(), outbound };
            if let Err(error) = self.builder.group(group, &supervisors, &members) {
                section.report(&id.span, format!("the group `{}` cannot be added: {error}", id.value));
            }
        }
        section.finish();
    }

    fn user_list(&self, section: &mut Section<'_>, key: &'static str) -> Vec<UserId> {
        let mut users = vec![];
        for name in section.strings(key) {
            match self.builder.directory().user_named(name.value).map(User::id) {
                None => section.report(&name.span, format!("there is no user `{}`", name.value)),
                Some(user) if users.contains(&user) => {
                    section.report(&name.span, format!("the user `{}` is listed twice", name.value));
                }
                Some(user) => users.push(user),
            }
        }
        users
    }

    pub(super) fn report(&self, problem: Problem) {
        self.problems.borrow_mut().add(problem);
    }
}

/// What a pattern without an argument is short for, or the pattern itself when it has one.
fn patterns_for(pattern: &Pattern, action: &Action) -> Result<Vec<Pattern>, &'static str> {
    let needs_target = action.needs.has(Key::Target);
    match pattern.argument() {
        None if needs_target => Ok(vec![pattern.with_argument(Argument::Target)]),
        None if action.uses.has(Key::Queue) => Ok(vec![pattern.clone(), pattern.with_argument(Argument::Queue)]),
        Some(Argument::Queue) if needs_target => Err("the action needs a target: use {target}"),
        Some(Argument::Queue) if !action.uses.has(Key::Queue) => Err("the action is about no queue: leave {queue} out"),
        Some(Argument::Target) if !action.uses.has(Key::Target) => Err("the action has no target: leave {target} out"),
        None | Some(_) => Ok(vec![pattern.clone()]),
    }
}
