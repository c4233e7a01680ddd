//! Configuration folders to load from: what is shipped, with one file replaced.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::config::problem::Problems;
use crate::config::{self, LoadedConfig};
use crate::policy::Policy;

/// A file of a configuration folder: its name and what stands in it.
pub(super) type File = (&'static str, &'static str);

/// The file that an input stands for when its first line names none.
pub(super) const ORGANIZATION_FILE: &str = "organizations/acme.toml";

/// What is shipped, and an organization whose users stand in a CSV file.
pub(super) const GOTO: &[File] = &[
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

/// The other role model, and an organization that has one user of every role.
pub(super) const VOXIMPLANT: &[File] = &[
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

/// A configuration folder of this thread's own, removed with it. `TMPDIR` says where; memory is the best place.
pub(super) struct Folder {
    pub(super) path: PathBuf,
    files: Vec<File>,
}

impl Folder {
    pub(super) fn new(files: impl IntoIterator<Item = &'static File>) -> Self {
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

    fn write(&self, file: &str, content: &[u8]) {
        fs::write(self.path.join(file), content).expect("the temporary folder is writable");
    }

    /// Loads the folder with `content` in one of its files, and once more over what was loaded.
    pub(super) fn load_twice(&self, file: &str, content: &[u8]) -> [Result<LoadedConfig, Problems>; 2] {
        self.write(file, content);
        let first = config::load(&self.path, &Policy::default());
        let second = config::load(&self.path, first.as_ref().map_or(&Policy::default(), |first| &first.policy));
        let shipped = self.files.iter().filter(|(name, _)| *name == file);
        shipped.for_each(|(_, content)| self.write(file, content.as_bytes()));
        [first, second]
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is left to whoever cleans the temporary folder.
        drop(fs::remove_dir_all(&self.path));
    }
}
