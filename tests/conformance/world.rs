//! A world of the conformance tables: one small organization in a file, which the rows change, load and ask.

use std::collections::HashMap;

use queuewarden::config::problem::Problems;
use queuewarden::config::{self, LoadedConfig};
use queuewarden::gate::{Counts, Gate};
use queuewarden::telephony::{Moment, UnixMillis};

use crate::conformance::table::Change;
use crate::support::{Folder, project};

/// The folder of the tables and worlds.
const CONFORMANCE: &str = "tests/conformance";

/// A configuration folder with one world, and a gate that decides by it.
pub struct World {
    folder: Folder,
    /// The path of the organization file in the folder.
    file: String,
    text: WorldText,
    /// Whether the gate has loaded the current text.
    loaded: bool,
    /// Whether a row has changed the world.
    changed: bool,
    pub gate: Gate,
    pub now: Moment,
}

/// The text of a world, divided into the parts that rows change.
#[derive(Clone)]
pub struct WorldText {
    /// The head, then one block for each entry of `[[queues]]`, `[[users]]` and `[[groups]]`.
    blocks: Vec<String>,
    /// Lines of tables that the world does not have: settings, limits, leases.
    switched: Vec<(String, String)>,
}

impl World {
    /// The world of the file, not loaded yet.
    pub fn new(name: &str) -> Self {
        let text = WorldText::read(name);
        let folder = Folder::with(&format!("{name}.toml"), &text.to_toml());
        // Every load reads all models, so the other model is left out.
        for model in std::fs::read_dir(folder.path().join("models")).unwrap().map(|model| model.unwrap().path()) {
            if model.file_stem().is_some_and(|stem| stem != name) {
                std::fs::remove_file(model).unwrap();
            }
        }
        let now = Moment { wall: UnixMillis(1_795_000_000_000), uptime_ms: 0 };
        let file = format!("organizations/{name}.toml");
        Self { folder, file, text, loaded: false, changed: false, gate: Gate::default(), now }
    }

    /// Makes a change that waits for the next load.
    pub fn change(&mut self, change: &Change) {
        self.text.change(change);
        (self.loaded, self.changed) = (false, true);
    }

    /// Writes a change to the file without loading it.
    pub fn write_only(&mut self, change: &Change) {
        self.text.change(change);
        self.write();
        self.changed = true;
    }

    /// Whether the gate has loaded the last change.
    pub fn is_loaded(&self) -> bool {
        self.loaded
    }

    /// Writes the world to its file and loads it into the gate.
    pub fn load(&mut self) -> Result<Problems, Problems> {
        self.write();
        let LoadedConfig { policy, warnings, .. } = config::load(self.folder.path(), &self.gate.policy())?;
        drop(self.gate.publish(policy));
        self.loaded = true;
        Ok(warnings)
    }

    /// As [`World::load`], for a change that must be refused; restores the file afterwards.
    pub fn load_with(&mut self, change: &Change) -> Result<Problems, Problems> {
        let before = self.text.clone();
        self.text.change(change);
        self.changed = true;
        let result = self.load();
        self.text = before;
        self.write();
        result
    }

    pub fn wait(&mut self, seconds: u32) {
        self.now = self.now.after(seconds);
        self.changed = true;
    }

    /// Whether no row has changed the world or its sessions.
    pub fn is_untouched(&self) -> bool {
        self.loaded && !self.changed && self.gate.counts() == Counts::default()
    }

    pub fn sessions(&self) -> String {
        self.gate.end_what_is_over(self.now);
        let Counts { assigned, unassigned, supervisor, kept, .. } = self.gate.counts();
        format!("assigned={assigned} unassigned={unassigned} supervisor={supervisor} kept={kept}")
    }

    fn write(&self) {
        self.folder.write(&self.file, &self.text.to_toml());
    }
}

impl WorldText {
    /// The file of a world as it is.
    pub fn read(name: &str) -> Self {
        let mut blocks = vec![String::new()];
        for line in read(&format!("worlds/{name}.toml")).lines() {
            if line.starts_with("[[") {
                blocks.push(String::new());
            }
            let block = blocks.last_mut().unwrap();
            *block += line;
            block.push('\n');
        }
        Self { blocks, switched: vec![] }
    }

    pub fn to_toml(&self) -> String {
        let mut text = self.blocks.concat();
        for table in ["settings", "limits", "leases"] {
            let lines = self.switched.iter().filter_map(|(name, value)| {
                let (of, key) = match name.split_once('.') {
                    Some((of @ ("limits" | "leases"), key)) => (of, key),
                    _ => ("settings", name.as_str()),
                };
                (of == table).then(|| format!("{key} = {value}\n"))
            });
            let lines: String = lines.collect();
            if !lines.is_empty() {
                text += &format!("\n[{table}]\n{lines}");
            }
        }
        text
    }

    fn change(&mut self, change: &Change) {
        match change {
            Change::Setting { name, value } => {
                self.switched.retain(|(known, _)| known != name);
                self.switched.push((name.clone(), value.clone()));
            }
            Change::Entry { table, id, key, value } => {
                let block = self.blocks.iter_mut().find(|block| is_entry(block, table, id));
                let block = block.unwrap_or_else(|| panic!("the world has no `{id}` in [[{table}]]"));
                let others = block.lines().filter(|line| !line.starts_with(&format!("{key} =")));
                *block = others.map(|line| format!("{line}\n")).chain([format!("{key} = {value}\n")]).collect();
            }
            Change::Without { id } => self.blocks.retain(|block| !is_entry(block, "users", id)),
            Change::Only { id } => self.blocks.retain(|block| {
                !block.starts_with("[[groups]]") && (!block.starts_with("[[users]]") || is_entry(block, "users", id))
            }),
        }
    }

    /// One string key of every entry of a table, by the id of the entry.
    pub fn strings(&self, table: &str, key: &str) -> HashMap<String, String> {
        let start = format!("[[{table}]]");
        let entries = self.blocks.iter().filter(|block| block.starts_with(&start));
        entries.filter_map(|block| Some((value_of(block, "id")?, value_of(block, key)?))).collect()
    }
}

/// A file of the conformance folder.
pub fn read(file: &str) -> String {
    let path = project().join(CONFORMANCE).join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn is_entry(block: &str, table: &str, id: &str) -> bool {
    block.starts_with(&format!("[[{table}]]")) && value_of(block, "id").is_some_and(|value| value == id)
}

/// The first string behind a key: of a list its first member.
fn value_of(block: &str, key: &str) -> Option<String> {
    let line = block.lines().find_map(|line| line.strip_prefix(key)?.trim_start().strip_prefix('='))?;
    line.split('"').nth(1).map(str::to_owned)
}
