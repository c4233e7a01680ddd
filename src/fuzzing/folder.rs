//! A configuration folder to load: the shipped files, one of which a fuzz target replaces.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::config::problem::Problems;
use crate::config::{self, LoadedConfig};
use crate::policy::Policy;

/// A file of a configuration folder: its name and its content.
pub(super) type ConfigFile = (&'static str, &'static str);

/// The file that an input replaces when its first line names no file.
pub(super) const ORGANIZATION_FILE: &str = "organizations/acme.toml";

/// The shipped files with the model `goto`, and an organization whose users are in a CSV file.
pub(super) const GOTO: &[ConfigFile] = &[
    ("queuewarden.toml", include_str!("../../config/queuewarden.toml")),
    ("models/goto.toml", include_str!("../../config/models/goto.toml")),
    (ORGANIZATION_FILE, include_str!("../../config/organizations/acme.toml")),
    (
        "organizations/large.toml",
        "organization = \"large\"\nmodel = \"goto\"\nfeature_code_preset = \"freepbx\"\nusers_csv = \"users.csv\"\n\
         [[queues]]\nid = \"support\"\nnumber = \"600\"\n[[queues]]\nid = \"sales\"\nnumber = \"601\"\n",
    ),
    (
        "organizations/users.csv",
        "id,extension,roles,queues,supervises,edits\nann,5001,agent,support sales,,\nsue,5002,supervisor,,sales,sales\n",
    ),
];

/// The model `voximplant`, and an organization with one user of every role.
pub(super) const VOXIMPLANT: &[ConfigFile] = &[
    ("queuewarden.toml", ""),
    ("models/voximplant.toml", include_str!("../../config/models/voximplant.toml")),
    (
        "organizations/kit.toml",
        r#"organization = "kit"
model = "voximplant"
feature_code_preset = "yeastar_p"
[feature_codes]
"*13" = "queue.login"
"*14" = "queue.logout"
[settings]
join_any_conversation = true
[[queues]]
id = "inbox"
number = "700"
kind = "inbox"
[[queues]]
id = "back"
number = "701"
callback = true
[[users]]
id = "olga"
extension = "6001"
roles = ["owner"]
[[users]]
id = "adam"
extension = "6002"
roles = ["administrator"]
[[users]]
id = "mark"
extension = "6003"
roles = ["manager"]
[[users]]
id = "sue"
extension = "6004"
roles = ["supervisor"]
supervises = ["inbox"]
edits = ["inbox"]
[[users]]
id = "ann"
extension = "6005"
roles = ["agent"]
queues = ["inbox", "back"]
[[users]]
id = "guard"
extension = "6006"
roles = ["agent"]
protected = true
[[groups]]
id = "north"
supervisors = ["sue"]
members = ["ann", "guard"]
outbound = true
"#,
    ),
];

/// A configuration folder of this thread, in `TMPDIR`; removed when it is dropped.
pub(super) struct ConfigFolder {
    pub(super) path: PathBuf,
    files: Vec<ConfigFile>,
}

impl ConfigFolder {
    pub(super) fn new(files: impl IntoIterator<Item = &'static ConfigFile>) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("queuewarden-fuzz-{}-{count}", std::process::id()));
        for folder in ["models", "organizations"] {
            fs::create_dir_all(path.join(folder)).expect("the temporary folder is writable");
        }
        let folder = Self { path, files: files.into_iter().copied().collect() };
        folder.files.iter().for_each(|(file, content)| folder.write(file, content.as_bytes()));
        folder
    }

    pub(super) fn file_named(&self, name: &[u8]) -> Option<&'static str> {
        self.files.iter().map(|&(file, _)| file).find(|file| file.as_bytes() == name)
    }

    /// One of the files, by any number.
    pub(super) fn file(&self, number: usize) -> ConfigFile {
        self.files.get(number % self.files.len().max(1)).copied().unwrap_or((ORGANIZATION_FILE, ""))
    }

    fn write(&self, file: &str, content: &[u8]) {
        fs::write(self.path.join(file), content).expect("the temporary folder is writable");
    }

    /// Loads the folder with `content` in one of its files.
    pub(super) fn load(&self, file: &str, content: &[u8]) -> Result<LoadedConfig, Problems> {
        self.write(file, content);
        let loaded = config::load(&self.path, &Policy::default());
        let shipped = self.files.iter().filter(|(name, _)| *name == file);
        shipped.for_each(|(_, content)| self.write(file, content.as_bytes()));
        loaded
    }

    /// Loads the folder with `content` in one of its files, then loads it again over the first result.
    pub(super) fn load_twice(&self, file: &str, content: &[u8]) -> [Result<LoadedConfig, Problems>; 2] {
        self.write(file, content);
        let first = config::load(&self.path, &Policy::default());
        let second = config::load(&self.path, first.as_ref().map_or(&Policy::default(), |first| &first.policy));
        let shipped = self.files.iter().filter(|(name, _)| *name == file);
        shipped.for_each(|(_, content)| self.write(file, content.as_bytes()));
        [first, second]
    }
}

impl Drop for ConfigFolder {
    fn drop(&mut self) {
        // The system cleans the temporary folder, so a failure does no harm.
        fs::remove_dir_all(&self.path).ok();
    }
}
