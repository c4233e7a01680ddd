//! A configuration folder, read whole: every problem at once, or a policy that can be published.
//!
//! `queuewarden.toml` is about the process, `models/` holds role models, `organizations/` the tenants. A folder that
//! has a problem anywhere yields no policy at all; what runs already is then left alone ([`crate::lifecycle`]).

pub mod asterisk;
pub mod audit;
pub mod files;
mod fingerprint;
mod model;
mod organization;
mod permissions;
mod presets;
pub mod problem;
pub mod process;
mod reader;
pub mod schema;
mod users_csv;

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::limits::ORGANIZATIONS_MAX;
use crate::policy::Policy;
use crate::policy::model::Model;
use crate::telephony::OrganizationId;
use files::Files;
use fingerprint::Fingerprint;
use organization::Surroundings;
use problem::{Problem, Problems};
use process::ProcessSettings;

/// A folder that loaded.
#[derive(Debug)]
pub struct Loaded {
    /// What `queuewarden.toml` says.
    pub process: ProcessSettings,
    /// The tables.
    pub policy: Policy,
    /// What is allowed but probably not meant.
    pub warnings: Problems,
    /// The files that were read.
    pub files: Files,
}

/// Reads `queuewarden.toml` alone, for a command that only has to find the sidecar.
///
/// # Errors
///
/// What keeps the file from being read; secrets that only the sidecar may read do not.
pub fn load_process(folder: &Path) -> Result<ProcessSettings, Problems> {
    let problems = RefCell::default();
    let process = process::read(folder, &problems, &mut Problems::default(), &Fingerprint::default());
    process.map(|read| read.settings).ok_or_else(|| problems.into_inner())
}

/// Reads `queuewarden.toml` alone, for a command that speaks to the sidecar as a PBX does: it needs the secrets too.
///
/// # Errors
///
/// Every problem of the file, and of the files of secrets that it names.
pub fn load_process_whole(folder: &Path) -> Result<ProcessSettings, Problems> {
    let problems = RefCell::default();
    let process = process::read(folder, &problems, &mut Problems::default(), &Fingerprint::default());
    let problems = problems.into_inner();
    process.map(|read| read.settings).filter(|_| problems.is_empty()).ok_or(problems)
}

/// Loads a configuration folder. Ids stay as they are in `previous`, which the new policy follows by one revision.
///
/// # Errors
///
/// Every problem of every file.
pub fn load(folder: &Path, previous: &Policy) -> Result<Loaded, Problems> {
    let mut files = Files::of(folder);
    let problems = RefCell::new(Problems::default());
    let warnings = RefCell::new(Problems::default());
    let fingerprint = Fingerprint::of(folder);
    let process = process::read(folder, &problems, &mut warnings.borrow_mut(), &fingerprint);
    let own = folder.join("queuewarden.toml");
    for path in [folder, &own, &folder.join("organizations"), &folder.join("models")] {
        permissions::warn(path, &mut warnings.borrow_mut());
    }
    for path in toml_files(&folder.join("models"), &RefCell::default()) {
        permissions::warn(&path, &mut warnings.borrow_mut());
    }
    let models = read_models(folder, &problems, &fingerprint);
    let mut organizations: Vec<crate::policy::Organization> = vec![];
    let mut ids = FreeIds::after(previous);
    let mut all_read = true;
    for path in toml_files(&folder.join("organizations"), &problems) {
        if organizations.len() >= ORGANIZATIONS_MAX {
            problems.borrow_mut().add(Problem::of_file(
                path.display().to_string(),
                format!("is one organization more than {ORGANIZATIONS_MAX}"),
            ));
            break;
        }
        permissions::warn(&path, &mut warnings.borrow_mut());
        let around = Surroundings { models: &models, previous, next_id: ids.next(), fingerprint: &fingerprint };
        let Some(read) = organization::read(&path, &around, &problems, &warnings) else {
            all_read = false;
            continue;
        };
        let organization::Read { place, organization, users_csv } = read;
        if let Some(file) = users_csv {
            files.add(file);
        }
        if organization.id == around.next_id {
            ids.take();
        }
        if organizations.iter().any(|other| other.name == organization.name) {
            let message = format!("there is an organization `{}` already", organization.name);
            problems.borrow_mut().add(Problem { message, ..place });
        }
        organizations.push(organization);
    }
    // A file that could not be read may well be the one that is named.
    for asterisk::Named { organization, unknown } in process.iter().flat_map(|read| &read.named).filter(|_| all_read) {
        if !organizations.iter().any(|known| *known.name == **organization) {
            problems.borrow_mut().add(unknown.clone());
        }
    }
    let problems = problems.into_inner();
    match process {
        Some(process::Read { settings: process, .. }) if problems.is_empty() => {
            if organizations.is_empty() {
                let problem =
                    Problem::of_file(folder.join("organizations").display().to_string(), "holds no organization");
                warnings.borrow_mut().add(problem.help("every question will be denied with unknown_organization"));
            }
            let policy = Policy::new(previous.revision.saturating_add(1), organizations).made_of(fingerprint.finish());
            Ok(Loaded { process, policy, warnings: warnings.into_inner(), files })
        }
        _ => Err(problems),
    }
}

/// The ids that no organization of the previous policy has.
struct FreeIds {
    taken: Vec<OrganizationId>,
    next: u16,
}

impl FreeIds {
    fn after(previous: &Policy) -> Self {
        let mut ids = Self { taken: previous.organizations().map(|organization| organization.id).collect(), next: 0 };
        ids.skip_taken();
        ids
    }

    const fn next(&self) -> OrganizationId {
        OrganizationId(self.next)
    }

    fn take(&mut self) {
        self.next = self.next.saturating_add(1);
        self.skip_taken();
    }

    fn skip_taken(&mut self) {
        while self.taken.contains(&OrganizationId(self.next)) {
            self.next = self.next.saturating_add(1);
        }
    }
}

/// Loads the role models of a configuration folder, and nothing else.
///
/// # Errors
///
/// Every problem of every model.
pub fn load_models(folder: &Path) -> Result<Vec<Arc<Model>>, Problems> {
    let problems = RefCell::new(Problems::default());
    let models = read_models(folder, &problems, &Fingerprint::default());
    let problems = problems.into_inner();
    if problems.is_empty() { Ok(models.into_values().collect()) } else { Err(problems) }
}

fn read_models(
    folder: &Path,
    problems: &RefCell<Problems>,
    fingerprint: &Fingerprint,
) -> HashMap<Box<str>, Arc<Model>> {
    let files = toml_files(&folder.join("models"), problems);
    let models = files.into_iter().filter_map(|path| {
        let name = path.file_stem()?.to_str()?.to_owned();
        let model = model::read(&path, &name, problems, fingerprint)?;
        Some((name.into_boxed_str(), Arc::new(model)))
    });
    models.collect()
}

/// The TOML files of a folder, by name; files that begin with a dot are an editor's.
fn toml_files(folder: &Path, problems: &RefCell<Problems>) -> Vec<PathBuf> {
    // An entry that cannot be read may be an organization: without it, the folder is not whole.
    let entries = std::fs::read_dir(folder).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
    let entries = match entries {
        Ok(entries) => entries,
        Err(error) => {
            let file = folder.display().to_string();
            problems.borrow_mut().add(Problem::of_file(file, format!("cannot be read: {error}")));
            return vec![];
        }
    };
    let mut paths: Vec<PathBuf> = entries
        .into_iter()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .filter(|path| !path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".")))
        .collect();
    paths.sort_unstable();
    paths
}
