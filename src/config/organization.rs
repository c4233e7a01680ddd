//! `organizations/*.toml`: the model, settings, limits and feature codes of one organization, and its directory.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::broken::BrokenNames;
use crate::config::directory::{DirectoryReader, required_id};
use crate::config::feature_codes::FeatureCodeReader;
use crate::config::files::FileStamp;
use crate::config::fingerprint::Fingerprint;
use crate::config::presets::PRESETS;
use crate::config::problem::{Problem, Problems};
use crate::config::reader::{Section, Source, SpannedStr, each_section};
use crate::config::schema::trace::FreeKeyValues;
use crate::config::{domains, login_bounds, model, users_csv};
use crate::limits::{LEASE_SECONDS_MAX, TOML_FILE_BYTES_MAX};
use crate::policy::directory::DirectoryBuilder;
use crate::policy::model::{Model, SettingSet};
use crate::policy::{LeaseTerms, Limits, Organization, Policy};
use crate::telephony::OrganizationId;

/// Everything outside the file of an organization that reading it needs.
pub(super) struct OrganizationContext<'a> {
    /// The models that loaded, by name.
    pub(super) models: &'a HashMap<Box<str>, Arc<Model>>,
    /// The names of the models that did not load: that is reported.
    pub(super) broken_models: &'a HashSet<Box<str>>,
    /// The policy in force, whose ids are kept.
    pub(super) previous: &'a Policy,
    /// The id for an organization that `previous` does not have.
    pub(super) next_id: OrganizationId,
    /// Collects the hash of each file that is read.
    pub(super) fingerprint: &'a Fingerprint,
}

/// The file of an organization, read.
pub(super) struct OrganizationFile {
    /// A problem without a message at the organization's name, for a name that is taken.
    pub(super) at_name: Problem,
    pub(super) organization: Organization,
    /// For each domain of the organization a problem without a message at the domain, for a domain that is taken.
    pub(super) at_domains: Vec<Problem>,
    /// The CSV file of its users, with its stamp from before it was read. `None`: it names none.
    pub(super) users_csv: Option<(PathBuf, FileStamp)>,
}

/// Reads the file of an organization. `None`: it has no name or no model, or it is not TOML; `problems` has the reason.
pub(super) fn read(
    path: &Path,
    context: &OrganizationContext<'_>,
    problems: &RefCell<Problems>,
    warnings: &RefCell<Problems>,
) -> Option<OrganizationFile> {
    let source = match Source::read(path, TOML_FILE_BYTES_MAX) {
        Ok(source) => source,
        Err(problem) => {
            problems.borrow_mut().add(problem);
            return None;
        }
    };
    context.fingerprint.add(path, source.text.as_bytes());
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    read_from(&source, folder, context, problems, warnings)
}

/// Reads the text of an organization's file; paths in it are relative to `folder`.
pub(super) fn read_from(
    source: &Source,
    folder: &Path,
    context: &OrganizationContext<'_>,
    problems: &RefCell<Problems>,
    warnings: &RefCell<Problems>,
) -> Option<OrganizationFile> {
    let table = source.parse(&mut problems.borrow_mut())?;
    let mut root = Section::root(source, &table, problems);
    let name = required_id(&mut root, "organization");
    let domains = domains::read(&mut root);
    let model_name = root.required_string("model");
    let known_model =
        model_name.as_ref().and_then(|name| model_named(&root, name, context.models, context.broken_models));
    let previous = name.as_ref().and_then(|name| context.previous.organization(name.value));

    // Without a model, roles, settings and codes mean nothing; the rest of the file is still checked.
    let no_model = model::empty("", "");
    let (model, model_is_known) = (known_model.as_deref().unwrap_or(&no_model), known_model.is_some());
    let settings = SettingReader { model, model_is_known }.read(root.section("settings"));
    let preset = root.string("feature_code_preset");
    root.document_values("feature_code_preset", PRESETS.iter().map(|(name, _)| *name));
    let own_codes = root.section("feature_codes");
    if let Some(section) = &own_codes {
        section.free_keys(FreeKeyValues::Texts);
    }
    let feature_codes =
        FeatureCodeReader { model, model_is_known, root: &root }.read(preset.as_ref(), own_codes.as_ref());
    let leases = read_leases(root.section("leases"));
    let limits = read_limits(root.section("limits"));

    let builder = DirectoryBuilder::new(previous.map(|previous| &previous.directory));
    let mut reader = DirectoryReader {
        model,
        model_is_known,
        problems,
        warnings,
        builder,
        broken_queues: BrokenNames::default(),
        broken_users: BrokenNames::default(),
        sole_holders: vec![],
    };
    each_section(&mut root, "queues", |section| reader.queue(section))
        .unwrap_or_else(|| reader.broken_queues.note(None));
    let (logins, shifts) = (root.section("logins"), root.sections("shifts"));
    let login_bounds =
        login_bounds::read(logins, shifts, |name| reader.queue_named(name), |problem| reader.report(problem));
    let users_csv = read_users(&mut root, &mut reader, folder, context.fingerprint);
    root.sections("groups").into_iter().for_each(|section| reader.group(section));
    if let Some(model_name) = model_name {
        reader.check_sole_holders(&root, &model_name, users_csv.are_whole);
    }
    let users_csv = users_csv.csv;
    let directory = reader.builder.finish();
    root.finish();

    let (name, model) = (name?, known_model?);
    let organization = Organization {
        name: name.value.into(),
        domains: domains.iter().map(|domain| domain.value.to_ascii_lowercase().into()).collect(),
        id: previous.map_or(context.next_id, |previous| previous.id),
        model,
        settings,
        feature_codes,
        directory,
        limits,
        leases,
        login_bounds,
    };
    let at_domains = domains.into_iter().map(|domain| source.problem(domain.span, "")).collect();
    Some(OrganizationFile { at_name: source.problem(name.span, ""), organization, at_domains, users_csv })
}

/// The users of an organization, read.
struct ReadUsers {
    /// The CSV file, with its stamp from before it was read. `None`: the organization names none.
    csv: Option<(PathBuf, FileStamp)>,
    /// The users were read without a problem: a user who is missing here does not exist.
    are_whole: bool,
}

/// Reads the users of the file, and those of the CSV file that it names.
fn read_users(
    root: &mut Section<'_>,
    reader: &mut DirectoryReader<'_>,
    folder: &Path,
    fingerprint: &Fingerprint,
) -> ReadUsers {
    let found_before = root.found();
    each_section(root, "users", |section| reader.user(section)).unwrap_or_else(|| reader.broken_users.note(None));
    let csv = root.string("users_csv");
    if root.has_misspelled("users_csv") || (csv.is_none() && root.has("users_csv")) {
        reader.broken_users.note(None);
    }
    let csv = csv.map(|name| {
        let path = folder.join(name.value);
        let stamp = FileStamp::of(&path);
        if let Err(message) = users_csv::read(&path, reader, fingerprint) {
            root.report(&name.span, format!("`users_csv`: {message}"));
            reader.broken_users.note(None);
        }
        (path, stamp)
    });
    ReadUsers { csv, are_whole: root.found() == found_before && !reader.broken_users.has_any() }
}

fn model_named(
    root: &Section<'_>,
    name: &SpannedStr<'_>,
    models: &HashMap<Box<str>, Arc<Model>>,
    broken: &HashSet<Box<str>>,
) -> Option<Arc<Model>> {
    let model = models.get(name.value).map(Arc::clone);
    if model.is_none() && !broken.contains(name.value) {
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
    let found_before = section.found();
    terms.default_seconds = section.integer("default_seconds", 0..=LEASE_SECONDS_MAX).unwrap_or(terms.default_seconds);
    terms.max_seconds = section.integer("max_seconds", 1..=LEASE_SECONDS_MAX).unwrap_or(terms.max_seconds);
    let is_whole = section.found() == found_before && !section.has_misspelled("max_seconds");
    if is_whole && terms.default_seconds > terms.max_seconds {
        let message = format!("`default_seconds` is more than `max_seconds`, which is {}", terms.max_seconds);
        section.report(&section.span, message);
    }
    section.finish();
    terms
}

fn read_limits(section: Option<Section<'_>>) -> Limits {
    let mut limits = Limits::default();
    let Some(mut section) = section else { return limits };
    // The default of each limit is also its greatest value.
    let mut count = |key, limit: &mut usize| *limit = section.integer(key, 1..=*limit).unwrap_or(*limit);
    count("logins_per_user_max", &mut limits.logins_per_user);
    count("logins_per_queue_max", &mut limits.logins_per_queue);
    count("logins_max", &mut limits.logins);
    count("supervisions_per_target_max", &mut limits.supervisions_per_target);
    count("supervisions_per_supervisor_max", &mut limits.supervisions_per_supervisor);
    limits.one_queue_at_a_time = section.boolean("one_queue_at_a_time").unwrap_or(false);
    section.finish();
    limits
}

/// Reads the settings, which are those of the model.
struct SettingReader<'a> {
    model: &'a Model,
    /// Whether the organization names a model that loaded. Without one, no setting is known, and none is reported.
    model_is_known: bool,
}

impl SettingReader<'_> {
    fn read(&self, section: Option<Section<'_>>) -> SettingSet {
        let mut settings = self.model.default_settings();
        let Some(section) = section else { return settings };
        section.free_keys(FreeKeyValues::Flags);
        for (key, value) in section.entries() {
            match value.get_ref().as_table() {
                None => {
                    let name = key.value.to_owned();
                    self.switch(&section, &name, &key, value.get_ref().as_bool(), &mut settings);
                }
                Some(table) => {
                    for (inner, value) in table {
                        let name = format!("{}.{}", key.value, inner.get_ref());
                        let inner = SpannedStr { value: inner.get_ref(), span: inner.span() };
                        self.switch(&section, &name, &inner, value.get_ref().as_bool(), &mut settings);
                    }
                }
            }
        }
        settings
    }

    /// Sets one setting; problems are reported at its key.
    fn switch(
        &self,
        section: &Section<'_>,
        name: &str,
        key: &SpannedStr<'_>,
        value: Option<bool>,
        settings: &mut SettingSet,
    ) {
        let known = self.model.settings.iter().enumerate().find(|(_, setting)| &*setting.name == name);
        match (known, value) {
            (None, _) if !self.model_is_known => {}
            (None, _) => {
                let names: Vec<&str> = self.model.settings.iter().map(|setting| &*setting.name).collect();
                let message = format!("the model `{}` has no setting `{name}`", self.model.name);
                section.report_with_help(&key.span, message, format!("its settings: {}", names.join(", ")));
            }
            (Some(_), None) => section.report(&key.span, format!("the setting `{name}` must be true or false")),
            (Some((_, setting)), Some(value)) if setting.locked && value != setting.default => {
                let message = format!("the setting `{name}` is locked at {}", setting.default);
                section.report_with_help(&key.span, message, "remove the key: the role model fixes this setting");
            }
            (Some((position, _)), Some(value)) => *settings = settings.switched(position, value),
        }
    }
}
