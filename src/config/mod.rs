//! The configuration folder: TOML files to settings and a policy snapshot, or every problem at once.
//!
//! `queuewarden.toml` configures the process, `models/` has the role models, `organizations/` the organizations. A
//! problem in any file means that no policy is made: at a reload the policy in force stays ([`crate::lifecycle`]).
//!
//! The modules in reading order: `reader` reads a TOML table key by key and `problem` says what is wrong in it;
//! `model`, `organization` (with `directory`, `users_csv` and `feature_codes`) and `process` (with `audit`, `listen`,
//! `peers` and `secret`) are the files; `asterisk_ami` and `freeswitch_esl` are the links of `process`, with the keys
//! of every link in `links`, `link_names` and `link_tls`; `schema` makes JSON Schemas out of these readers; `files` and
//! `fingerprint` say which files a policy was made of.

pub mod asterisk_ami;
pub mod audit;
mod broken;
mod directory;
mod domains;
mod feature_codes;
pub mod files;
mod fingerprint;
pub mod freeswitch_esl;
pub mod link_names;
mod link_overlap;
pub mod link_tls;
pub mod links;
pub mod listen;
pub mod listen_tls;
mod login_bounds;
mod model;
mod organization;
pub mod peers;
mod permissions;
mod presets;
pub mod problem;
pub mod process;
mod reader;
mod restart;
pub mod schema;
mod secret;
pub mod suggest;
mod unix_users;
mod users_csv;

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;

use crate::limits::ORGANIZATIONS_MAX;
use crate::policy::model::Model;
use crate::policy::{Organization, Policy};
use crate::telephony::OrganizationId;
use files::{PolicyFiles, toml_files};
use fingerprint::Fingerprint;
use organization::{OrganizationContext, OrganizationFile};
use problem::{Problem, Problems};
use process::{ProcessFile, ProcessSettings};

/// A configuration folder that loaded without a problem.
#[derive(Debug)]
pub struct LoadedConfig {
    /// The settings of `queuewarden.toml`.
    pub process: ProcessSettings,
    /// Every organization, with its model.
    pub policy: Policy,
    /// What loads but is probably a mistake.
    pub warnings: Problems,
    /// The files that were read, to notice edits that were not loaded.
    pub files: PolicyFiles,
}

/// Reads `queuewarden.toml` alone, for a command that only needs the address of the sidecar.
///
/// # Errors
///
/// The problems of a file that cannot be read or is not TOML. Any other problem is ignored: the user of the command may
/// be barred from the files of secrets that only the sidecar reads.
pub fn load_process(folder: &Path) -> Result<ProcessSettings, Problems> {
    let problems = RefCell::default();
    let process = process::read(folder, &problems, &mut Problems::default(), &Fingerprint::default());
    process.map(|file| file.settings).ok_or_else(|| problems.into_inner())
}

/// Reads `queuewarden.toml` and its secrets, for a command that speaks to the sidecar as a PBX does.
///
/// # Errors
///
/// Every problem of the file, and of the files of secrets that it names.
pub fn load_process_whole(folder: &Path) -> Result<ProcessSettings, Problems> {
    let problems = RefCell::default();
    let process = process::read(folder, &problems, &mut Problems::default(), &Fingerprint::default());
    let problems = problems.into_inner();
    process.map(|file| file.settings).filter(|_| problems.is_empty()).ok_or(problems)
}

/// Loads a configuration folder. Organizations, users and queues keep the ids that they have in `previous`; the
/// revision of the new policy is one higher.
///
/// # Errors
///
/// Every problem of every file.
pub fn load(folder: &Path, previous: &Policy) -> Result<LoadedConfig, Problems> {
    let mut files = PolicyFiles::of(folder);
    let problems = RefCell::new(Problems::default());
    let warnings = RefCell::new(Problems::default());
    let fingerprint = Fingerprint::of(folder);
    let process = process::read(folder, &problems, &mut warnings.borrow_mut(), &fingerprint);
    let process_file = folder.join("queuewarden.toml");
    for path in [folder, &process_file, &folder.join("organizations"), &folder.join("models")] {
        permissions::warn(path, &mut warnings.borrow_mut());
    }
    for path in toml_files(&folder.join("models"), &RefCell::default()) {
        permissions::warn(&path, &mut warnings.borrow_mut());
    }
    let models = read_models(folder, &problems, &fingerprint);
    let context = OrganizationContext {
        models: &models.whole,
        broken_models: &models.broken,
        previous,
        next_id: OrganizationId(0),
        fingerprint: &fingerprint,
    };
    let (organizations, all_read) = read_organizations(folder, context, &problems, &warnings, &mut files);
    // An organization whose file was not read may be the missing one, so nothing is reported then.
    let references = process.iter().flat_map(|file| file.referenced.iter().chain(&file.peer_organizations));
    for reference in references.filter(|_| all_read) {
        if !organizations.iter().any(|known| *known.name == *reference.organization) {
            problems.borrow_mut().add(reference.problem_if_unknown.clone());
        }
    }
    for file in process.iter().filter(|_| all_read) {
        for problem in link_overlap::problems(&file.settings, &file.referenced, &organizations) {
            problems.borrow_mut().add(problem);
        }
    }
    let problems = problems.into_inner();
    match process {
        // Without a problem in any file the configuration loads; otherwise all problems are returned and nothing
        // changes.
        Some(ProcessFile { settings: process, .. }) if problems.is_empty() => {
            if organizations.is_empty() {
                let problem =
                    Problem::of_file(folder.join("organizations").display().to_string(), "has no organization file");
                let help = "add a file like acme.toml; until then every question is denied with unknown_organization";
                warnings.borrow_mut().add(problem.help(help));
            }
            let policy = Policy::new(previous.revision + 1, organizations).made_of(fingerprint.finish());
            Ok(LoadedConfig { process, policy, warnings: warnings.into_inner(), files })
        }
        _ => Err(problems),
    }
}

/// Reads every organization of the folder. False: a file could not be read, so organizations may be missing.
fn read_organizations(
    folder: &Path,
    mut context: OrganizationContext<'_>,
    problems: &RefCell<Problems>,
    warnings: &RefCell<Problems>,
    files: &mut PolicyFiles,
) -> (Vec<Organization>, bool) {
    let mut organizations: Vec<Organization> = vec![];
    let mut domain_owners: HashMap<Box<str>, Box<str>> = HashMap::new();
    let mut ids = FreeOrganizationIds::after(context.previous);
    let mut all_read = true;
    for path in toml_files(&folder.join("organizations"), problems) {
        if organizations.len() >= ORGANIZATIONS_MAX {
            let message = format!("there are more than {ORGANIZATIONS_MAX} organizations");
            problems.borrow_mut().add(Problem::of_file(path.display().to_string(), message));
            break;
        }
        permissions::warn(&path, &mut warnings.borrow_mut());
        context.next_id = ids.next();
        let Some(file) = organization::read(&path, &context, problems, warnings) else {
            all_read = false;
            continue;
        };
        let OrganizationFile { at_name, organization, at_domains, users_csv } = file;
        if let Some(users_csv) = users_csv {
            files.add(users_csv);
        }
        if organization.id == context.next_id {
            ids.take();
        }
        if organizations.iter().any(|other| other.name == organization.name) {
            let message = format!("another file has the organization `{}` already", organization.name);
            problems.borrow_mut().add(Problem { message, ..at_name });
        }
        for (domain, at_domain) in organization.domains.iter().zip(at_domains) {
            if let Some(owner) = domain_owners.get(domain) {
                let message = format!("the domain `{domain}` belongs to the organization `{owner}` already");
                problems.borrow_mut().add(Problem { message, ..at_domain });
            } else {
                domain_owners.insert(domain.clone(), organization.name.clone());
            }
        }
        organizations.push(organization);
    }
    (organizations, all_read)
}

/// Hands out ids that no organization of the previous policy has.
struct FreeOrganizationIds {
    taken: Vec<OrganizationId>,
    next: u16,
}

impl FreeOrganizationIds {
    fn after(previous: &Policy) -> Self {
        let mut ids = Self { taken: previous.organizations().map(|organization| organization.id).collect(), next: 0 };
        ids.skip_taken();
        ids
    }

    const fn next(&self) -> OrganizationId {
        OrganizationId(self.next)
    }

    fn take(&mut self) {
        self.next += 1;
        self.skip_taken();
    }

    fn skip_taken(&mut self) {
        while self.taken.contains(&OrganizationId(self.next)) {
            self.next += 1;
        }
    }
}

/// Loads the role models of a configuration folder alone.
///
/// # Errors
///
/// Every problem of every model.
pub fn load_models(folder: &Path) -> Result<Vec<Arc<Model>>, Problems> {
    let problems = RefCell::new(Problems::default());
    let models = read_models(folder, &problems, &Fingerprint::default()).whole;
    let problems = problems.into_inner();
    if problems.is_empty() { Ok(models.into_values().collect()) } else { Err(problems) }
}

/// The models of a folder.
#[derive(Default)]
struct ReadModels {
    /// The models that loaded, by name.
    whole: HashMap<Box<str>, Arc<Model>>,
    /// The names of the models that have a problem.
    broken: HashSet<Box<str>>,
}

/// Reads every model of the folder.
fn read_models(folder: &Path, problems: &RefCell<Problems>, fingerprint: &Fingerprint) -> ReadModels {
    let files = toml_files(&folder.join("models"), problems);
    let models = files.into_iter().filter_map(|path| {
        let Some(name) = path.file_stem().and_then(OsStr::to_str).map(str::to_owned) else {
            problems.borrow_mut().add(Problem::of_file(path.display().to_string(), "its name is not UTF-8"));
            return None;
        };
        let model = model::read(&path, &name, problems, fingerprint).map(Arc::new);
        Some((name.into_boxed_str(), model))
    });
    let mut read = ReadModels::default();
    for (name, model) in models {
        match model {
            Some(model) => {
                read.whole.insert(name, model);
            }
            None => {
                read.broken.insert(name);
            }
        }
    }
    read
}
