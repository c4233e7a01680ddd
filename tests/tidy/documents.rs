//! The manual agrees with the code: every generated block is what the code renders, every link leads somewhere, and
//! every list of the manual is as long as the list of the code.
//!
//! With `QUEUEWARDEN_WRITE_DOCS=1` (`tests/run --write-docs`) the first test writes the blocks, and the output of the
//! commands, instead of comparing them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Arc;

use queuewarden::audit::buffer::Skipped;
use queuewarden::audit::record::About;
use queuewarden::cli::topics::{TOPICS, Table, tables};
use queuewarden::config::schema::keys::TABLES;
use queuewarden::config::schema::{Kind, schema};
use queuewarden::config::{load, load_models};
use queuewarden::decision::ActionLabel;
use queuewarden::dialect::DialectLabel;
use queuewarden::event::{Key, KeySet};
use queuewarden::observe::ami::RemovalOutcome;
use queuewarden::observe::links;
use queuewarden::observe::log::LeftOut;
use queuewarden::observe::names;
use queuewarden::policy::Policy;
use queuewarden::policy::matrix::Matrix;
use queuewarden::policy::model::Model;
use queuewarden::telephony::{Ground, SupervisionMode};

use super::examples::with_outputs;
use super::markdown::{Page, pages, words};
use crate::support::{Folder, NOBODY, Sidecar, project, run};

/// The most lines of README.
const README_LINES_MAX: usize = 250;

// Generated blocks ----------------------------------------------------------------------------------------------------

/// The blocks by name: the tables of the code, and those that need the shipped models or a running sidecar.
fn rendered() -> BTreeMap<String, String> {
    let mut blocks: BTreeMap<String, String> =
        tables().into_iter().map(|(name, table)| (name, table.markdown())).collect();
    let scraped = scraped();
    let (ours, process): (Vec<_>, Vec<_>) =
        scraped.into_iter().partition(|family| family.name.starts_with("queuewarden_"));
    let more = [
        ("matrices", matrices()),
        ("actions", actions().markdown()),
        ("presets", presets().markdown()),
        ("labels", labels().markdown()),
        ("metrics scraped", metrics(ours).markdown()),
        ("metrics process", metrics_of_the_process(process).markdown()),
    ];
    blocks.extend(more.map(|(name, text)| (name.to_owned(), text)));
    blocks
}

/// The page with every generated block replaced; the names of the blocks are added to `used`.
fn generated(page: &Page, blocks: &BTreeMap<String, String>, used: &mut BTreeSet<String>) -> String {
    let mut text = String::new();
    let mut inside = false;
    for line in page.text.lines() {
        if let Some(name) = line.strip_prefix("<!-- generated: ").and_then(|rest| rest.strip_suffix(" -->")) {
            let block = blocks.get(name).unwrap_or_else(|| panic!("{}: there is no block `{name}`", page.path));
            text += &format!("{line}\n\n{block}\n");
            used.insert(name.to_owned());
            inside = true;
        } else {
            inside &= line != "<!-- end -->";
            if !inside {
                text += &format!("{line}\n");
            }
        }
    }
    assert!(!inside, "{}: a generated block has no `<!-- end -->`", page.path);
    text
}

/// Whether the tests write the pages instead of comparing them.
pub fn writes() -> bool {
    std::env::var_os("QUEUEWARDEN_WRITE_DOCS").is_some_and(|value| value == "1")
}

/// Writes the schemas that `tests/tidy/json_schema.rs` compares.
fn write_schemas() {
    for &kind in Kind::ALL {
        let path = project().join(format!("config/schemas/{}.json", kind.name()));
        fs::write(path, format!("{}\n", serde_json::to_string_pretty(&schema(kind)).unwrap())).unwrap();
    }
}

#[test]
fn generated_blocks_are_what_the_code_renders() {
    if writes() {
        write_schemas();
    }
    let blocks = rendered();
    let mut used = BTreeSet::new();
    for page in pages() {
        let expected = generated(&page, &blocks, &mut used);
        if writes() {
            let written = with_outputs(Page { path: page.path.clone(), text: expected.clone() });
            fs::write(project().join(&page.path), written).unwrap();
        }
        assert!(writes() || page.text == expected, "{} is out of date: run `tests/run --write-docs`", page.path);
    }
    // The page shows the metrics as they are scraped, with their types and labels.
    let unused: Vec<&String> = blocks.keys().filter(|name| !used.contains(*name) && *name != "metrics").collect();
    assert!(unused.is_empty(), "no page shows {unused:?}");
}

fn table(title: &str, header: &[&'static str], rows: Vec<Vec<String>>) -> Table {
    Table { title: title.to_owned(), header: header.to_vec(), rows }
}

fn code(word: &str) -> String {
    format!("`{word}`")
}

fn codes<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(code).collect::<Vec<_>>().join(" ")
}

fn models() -> Vec<Arc<Model>> {
    let mut models = load_models(&project().join("config")).unwrap();
    models.sort_by(|one, other| one.name.cmp(&other.name));
    models
}

fn matrices() -> String {
    let shown: Vec<String> = models().iter().map(|model| Matrix::of(model).to_string()).collect();
    format!("```text\n{}```\n", shown.join("\n"))
}

/// The actions that change login sessions or supervise, and what a phone's call may be.
fn actions() -> Table {
    let names = |keys: KeySet| Key::ALL.iter().filter(move |&&key| keys.has(key)).map(|key| key.name());
    let models = models();
    let rows = ActionLabel::ALL.iter().filter(|&&label| label != ActionLabel::Control).map(|label| {
        let (mut row, mut needs, mut uses) = (vec![code(label.name())], BTreeSet::new(), BTreeSet::new());
        for model in &models {
            let action = model.action_named(label.name());
            row.push(if action.is_some() { "yes" } else { "no" }.to_owned());
            if let Some(action) = action {
                needs.extend(names(action.needs));
                uses.extend(names(action.uses));
            }
        }
        let may_have = uses.difference(&needs).copied();
        row.extend([codes(needs.iter().copied()), codes(may_have), meaning(*label).to_owned()]);
        row
    });
    table("", &["Action", "goto", "voximplant", "Needs", "May have", "Meaning"], rows.collect())
}

fn meaning(action: ActionLabel) -> &'static str {
    match action {
        ActionLabel::QueueLogin => "Logs the actor in.",
        ActionLabel::QueueLogout => "Logs the actor out.",
        ActionLabel::QueueToggle => "Logs the actor in, or out if the actor is logged in.",
        ActionLabel::QueueTogglePause => "Pauses the actor, or ends the pause if every login session is paused.",
        ActionLabel::QueuePause => "Keeps calls from the actor, who stays logged in.",
        ActionLabel::QueueResume => "Ends the pause of the actor.",
        ActionLabel::AgentLogin => "A supervisor logs the target in.",
        ActionLabel::AgentLogout => "A supervisor logs the target out.",
        ActionLabel::AgentPause => "A supervisor pauses the target.",
        ActionLabel::AgentResume => "A supervisor ends the pause of the target.",
        ActionLabel::AgentMove => "A supervisor moves the target from one queue to another.",
        ActionLabel::AgentEndWrapup => "A supervisor ends the target's wrap-up early.",
        ActionLabel::CallListen => "The actor hears both parties, unheard.",
        ActionLabel::CallWhisper => "As listen, and the target hears the actor.",
        ActionLabel::CallBarge => "All three hear each other.",
        ActionLabel::CallJoin => "Joins a call by SIP (RFC 3911); judged as barge.",
        ActionLabel::CallReplace => "Takes a call over by SIP (RFC 3891); judged as barge.",
        ActionLabel::CallWatch => "Watches the target's calls by SIP (RFC 4235); judged as listen.",
        ActionLabel::CallOutbound => "The actor calls out.",
        ActionLabel::CallDirectIn => "The actor takes a call that is in no queue.",
        ActionLabel::ConversationView => "The actor looks at a running conversation.",
        ActionLabel::DispositionSet => "The actor tags a call with a disposition code.",
        ActionLabel::Control => "",
    }
}

/// The presets that the code knows, from the help that a wrong name gets.
fn preset_names() -> Vec<String> {
    let folder = Folder::with("o.toml", "organization = \"o\"\nmodel = \"goto\"\nfeature_code_preset = \"bogus\"\n");
    let problems = load(folder.path(), &Policy::default()).unwrap_err();
    let help = problems.problems[0].help.clone().unwrap();
    help.strip_prefix("presets: ").unwrap().split(", ").map(str::to_owned).collect()
}

fn presets() -> Table {
    let mut codes_of: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    let presets = preset_names();
    for preset in &presets {
        let text = format!("organization = \"o\"\nmodel = \"goto\"\nfeature_code_preset = \"{preset}\"\n");
        let policy = load(Folder::with("o.toml", &text).path(), &Policy::default()).unwrap().policy;
        let organization = policy.organization("o").unwrap();
        for feature in organization.feature_codes.codes() {
            let action = organization.model.action(feature.action).unwrap().name.to_string();
            let digits = feature.pattern.to_string();
            let example = digits.replace("{queue}", "600").replace("{target}", "1001");
            let translated = organization.feature_codes.translate(&example).unwrap();
            assert_eq!(translated.action, feature.action, "{preset}: {example}");
            codes_of.entry((action, preset.clone())).or_default().push(digits);
        }
    }
    let actions = ActionLabel::ALL.iter().map(|label| label.name());
    let used = actions.filter(|name| codes_of.keys().any(|(action, _)| action == name));
    let rows = used.map(|action| {
        let cells = presets.iter().map(|preset| {
            let mut found = codes_of.get(&(action.to_owned(), preset.clone())).cloned().unwrap_or_default();
            found.sort_by_key(|digits| (digits.len(), digits.clone()));
            codes(found.iter().map(String::as_str))
        });
        std::iter::once(code(action)).chain(cells).collect()
    });
    let rows = rows.collect();
    // The heads live as long as the table: the presets are few and the test ends soon.
    let heads = presets.iter().map(|preset| &*code(preset).leak());
    table("", &std::iter::once("Action").chain(heads).collect::<Vec<&'static str>>(), rows)
}

fn labels() -> Table {
    let actions = codes(ActionLabel::ALL.iter().map(|it| it.name()));
    let causes = Skipped::ALL.iter().map(|it| it.name()).chain(LeftOut::ALL.iter().map(|it| it.name()));
    let rows = [
        ("dialect", codes(DialectLabel::ALL.iter().map(|it| it.name()))),
        ("action", format!("{}; of links {}", actions, codes(links::ACTIONS))),
        ("cause", codes(causes)),
        ("decision", codes(["allow", "deny"])),
        ("ground", codes(Ground::ALL.iter().map(|it| it.name()))),
        ("kind", codes(["member", "supervision"])),
        ("link", "the names of the links, from the configuration".to_owned()),
        ("mode", codes(SupervisionMode::ALL.iter().map(|it| it.name()))),
        ("state", codes(links::STATES)),
        ("outcome", codes(RemovalOutcome::ALL.iter().map(|it| it.name()))),
        ("result", codes(["success", "failure"])),
    ];
    table("", &["Label", "Values"], rows.into_iter().map(|(label, values)| vec![code(label), values]).collect())
}

// Metrics of a scrape -------------------------------------------------------------------------------------------------

/// A family of metrics as a scrape shows it.
struct Family {
    name: String,
    kind: String,
    labels: Vec<String>,
    help: String,
}

/// The families of a sidecar that has every optional metric.
fn scraped() -> Vec<Family> {
    let folder = Folder::demo();
    folder.write("queuewarden.toml", &(folder.read("queuewarden.toml") + "[metrics]\nsessions_by_queue_max = 9\n"));
    folder.link_to_asterisk("pbx-1", NOBODY, "");
    let sidecar = Sidecar::start(&folder);
    sidecar.ask("may org=acme actor=1001 action=queue.login queue=600");
    families(&sidecar.get("/metrics"))
}

/// The families of a scrape; the labels are those that its series have.
fn families(scrape: &str) -> Vec<Family> {
    let mut helps: BTreeMap<&str, &str> = BTreeMap::new();
    let mut families: BTreeMap<&str, Family> = BTreeMap::new();
    for line in scrape.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            helps.insert(name, help);
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let help = helps.get(name).unwrap_or_else(|| panic!("{name} has no help")).to_string();
            families.insert(name, Family { name: name.to_owned(), kind: kind.to_owned(), labels: vec![], help });
        } else if let Some((series, _)) = line.rsplit_once(' ') {
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let parts = ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part));
            let name = if families.contains_key(name) { name } else { parts.unwrap() };
            let labels = labels.trim_end_matches('}').split("\",").filter_map(|label| label.split_once('='));
            let family = families.get_mut(name).unwrap();
            family.labels = labels.map(|(label, _)| label.to_owned()).filter(|label| label != "le").collect();
        }
    }
    families.into_values().collect()
}

fn metrics(families: Vec<Family>) -> Table {
    let mut by_name: BTreeMap<String, Family> =
        families.into_iter().map(|family| (family.name.clone(), family)).collect();
    let rows = names::ALL.iter().map(|metric| {
        let family = by_name.remove(metric.name).unwrap_or_else(|| panic!("a scrape lacks {}", metric.name));
        assert_eq!(family.help, metric.help, "{}", metric.name);
        vec![code(metric.name), family.kind, codes(family.labels.iter().map(String::as_str)), family.help]
    });
    let rows = rows.collect();
    assert!(by_name.is_empty(), "observe::names lacks {:?}", by_name.keys());
    table("", &["Metric", "Type", "Labels", "Meaning"], rows)
}

fn metrics_of_the_process(families: Vec<Family>) -> Table {
    let rows = families.into_iter().map(|family| vec![code(&family.name), family.kind, family.help]);
    table("", &["Metric", "Type", "Meaning"], rows.collect())
}

// Lists that no type of the code holds --------------------------------------------------------------------------------

/// The names in the first column of a table.
fn names_in(name: &str) -> Vec<String> {
    let found = tables().into_iter().find(|(table, _)| table == name).unwrap_or_else(|| panic!("no table {name}"));
    found.1.rows.iter().flat_map(|row| words(&row[0])).collect()
}

#[test]
fn the_audit_log_has_the_members_and_the_events_of_the_manual() {
    let (status, header) = run(&["audit", "export", "--format", "csv", "--folder", "src"]);
    assert!(status.success(), "{header}");
    assert_eq!(names_in("audit members").join(","), header.trim());
    assert_eq!(names_in("audit events"), About::ALL.iter().map(|it| it.name()).collect::<Vec<_>>());
}

/// Each verb asks for the keys that it needs, one by one, so the list of a verb is neither too long nor too short.
#[test]
fn the_verbs_need_the_keys_of_the_manual() {
    let sidecar = Sidecar::start(&Folder::demo());
    let (_, verbs) = tables().into_iter().find(|(name, _)| name == "verbs").unwrap();
    for row in &verbs.rows {
        let verb = row[0].trim_matches('`');
        let mut given = vec![];
        for needed in words(&row[1]) {
            let reply = sidecar.ask(format!("{verb} {}", given.join(" ")).trim_end());
            assert_eq!(reply, format!("error reason=missing_key key={needed}"), "{row:?}");
            given.push(format!("{needed}={}", if needed == "digits" { "*13" } else { "x" }));
        }
    }
    assert_eq!(sidecar.ask("vanish"), "error reason=unknown_verb");
}

/// Every example is executed, so the keys of their replies are real; each key of the manual has an example.
#[test]
fn every_reply_key_is_in_an_example() {
    let blocks = pages().iter().flat_map(Page::blocks).filter(|block| block.language == "text").collect::<Vec<_>>();
    let replies = blocks.iter().filter(|block| block.text.starts_with("> ") && !block.text.starts_with("> agi_"));
    let lines = replies.flat_map(|block| block.text.lines().filter_map(|line| line.strip_prefix('<')));
    let pairs = lines.flat_map(|line| line.split(' ').filter_map(|word| word.split_once('=')));
    let shown: BTreeSet<String> = pairs.map(|(key, _)| key.to_owned()).collect();
    assert_eq!(shown, names_in("reply keys").into_iter().collect());
}

#[test]
fn the_admin_listener_serves_the_paths_of_the_manual() {
    let sidecar = Sidecar::start(&Folder::demo());
    for path in names_in("routes") {
        let (status, body) = sidecar.try_get(&path);
        assert!([200, 400].contains(&status), "{path}: {status} {body}");
    }
    assert_eq!(sidecar.try_get("/nothing").0, 404);
    let checks: Vec<String> = sidecar.get("/readyz?verbose").lines().map(str::to_owned).collect();
    let expected = names_in("checks").iter().map(|check| format!("[+] {check} ok")).collect::<Vec<_>>();
    assert_eq!(checks[..expected.len()], expected);
}

#[test]
fn the_effects_of_actions_are_those_that_a_model_may_name() {
    let folder = Folder::demo();
    let model = "model = \"probe\"\n[[actions]]\nname = \"a\"\nrules = [\"r\"]\ndoes = \"bogus\"\n";
    folder.write("models/probe.toml", model);
    let problems = load(folder.path(), &Policy::default()).unwrap_err();
    let help = problems.problems[0].help.clone().unwrap();
    let known = help.split(';').next().unwrap().replace(" or ", ", ");
    assert_eq!(
        names_in("effects").into_iter().collect::<BTreeSet<_>>(),
        known.split(", ").map(str::to_owned).collect()
    );
}

#[test]
fn the_keys_of_the_manual_are_listed_once() {
    let mut seen = BTreeSet::new();
    for text in TABLES {
        for name in text.keys.iter().flat_map(|key| key.names.split(' ')) {
            assert!(seen.insert((text.kind, text.table, name)), "{:?} {}: `{name}` twice", text.kind, text.table);
        }
    }
}

// Help and links ------------------------------------------------------------------------------------------------------

#[test]
fn help_explains_every_topic_and_every_name() {
    let (status, list) = run(&["help", "help"]);
    assert!(status.success());
    for topic in TOPICS {
        let line = list.lines().find(|line| line.trim_start().starts_with(&format!("{} ", topic.name)));
        assert!(line.is_some_and(|line| line.ends_with(topic.summary)), "`help help` lacks {}: {list}", topic.name);
        let (status, text) = run(&["help", topic.name]);
        assert!(status.success() && text == topic.text(), "{}", topic.name);
    }
    for (name, row) in [
        ("unassigned_barred", "Add the queue to the user's `queues`"),
        ("queuewarden_store_healthy", "1 if the session store"),
        ("one_queue_at_a_time", "organizations/*.toml, [limits]"),
        ("target.led", "a group that the actor leads"),
        ("QueuewardenDown", "**Do.**"),
        ("policy_hash", "sha256sum"),
    ] {
        let (status, text) = run(&["help", name]);
        assert!(status.success() && text.contains(row), "{name}: {text}");
    }
    let (status, text) = run(&["help", "sessions", "end"]);
    assert!(status.success() && text.contains("Usage: queuewarden sessions end"), "{text}");
    let (status, text) = run(&["help", "bogus"]);
    assert_eq!(status.code(), Some(2), "{text}");
    assert!(text.starts_with("there is no command, topic, reason, metric, fact, key or alert `bogus`\n"), "{text}");
}

#[test]
fn no_page_names_a_metric_that_does_not_exist() {
    for page in pages() {
        for line in page.prose() {
            for (at, _) in line.match_indices("queuewarden_") {
                // The names of recording rules hold a metric between colons.
                let name: String = line[at..].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
                let known = names::ALL.iter().any(|metric| metric.name == name);
                assert!(
                    known || name == "queuewarden_address" || name == "queuewarden_organization",
                    "{}: {name}",
                    page.path
                );
            }
        }
    }
}

#[test]
fn links_lead_somewhere() {
    let pages = pages();
    let anchors: BTreeMap<&str, Vec<String>> = pages.iter().map(|page| (&*page.path, page.anchors())).collect();
    for page in &pages {
        let folder = page.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for line in page.prose() {
            // Text in backticks holds no link.
            let line: String = line.split('`').step_by(2).collect();
            for (at, _) in line.match_indices("](") {
                let target = &line[at + 2..at + 2 + line[at + 2..].find(')').unwrap()];
                let (file, anchor) =
                    target.split_once('#').map_or((target, None), |(file, anchor)| (file, Some(anchor)));
                let path = if file.is_empty() { page.path.clone() } else { resolved(folder, file) };
                assert!(project().join(&path).exists(), "{}: {target} leads nowhere", page.path);
                let Some(anchor) = anchor else { continue };
                let there = anchors.get(&*path).is_some_and(|anchors| anchors.iter().any(|one| one == anchor));
                assert!(there, "{}: {path} has no heading #{anchor}", page.path);
            }
        }
    }
}

/// A relative path from a folder of the project.
fn resolved(folder: &str, file: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in file.split('/') {
        if part == ".." {
            parts.pop();
        } else {
            parts.push(part);
        }
    }
    parts.join("/")
}

#[test]
fn readme_is_short() {
    let pages = pages();
    let readme = pages.iter().find(|page| page.path == "README.md").unwrap();
    let lines = readme.text.lines().count();
    assert!(lines <= README_LINES_MAX, "README has {lines} lines, more than {README_LINES_MAX}");
}

/// FIELD D10: a `curl` of a runbook against a sidecar that hangs ends by itself.
#[test]
fn every_curl_of_a_page_has_a_time_limit() {
    let mut found = 0;
    for page in pages() {
        for (line, text) in page.text.lines().enumerate() {
            for command in text.split("curl -").skip(1) {
                found += 1;
                let options = command.split_whitespace().next().unwrap_or_default();
                let is_limited = options.contains('m') || command.contains("--max-time");
                assert!(is_limited, "{}:{}: `curl` without `-m`: {text}", page.path, line + 1);
            }
        }
    }
    assert!(found > 2, "the pages have {found} commands with curl");
}
