//! The tables of README say what the code says, all of it and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use queuewarden::audit::buffer::Skipped;
use queuewarden::audit::record::About;
use queuewarden::config::{load, load_models};
use queuewarden::decision::{ActionLabel, AllowReason, DenyReason, ErrorReason};
use queuewarden::dialect::DialectLabel;
use queuewarden::event::{ATTRIBUTE_VALUES, Key, KeySet};
use queuewarden::limits;
use queuewarden::observe::ami::RemovalOutcome;
use queuewarden::observe::log::LeftOut;
use queuewarden::observe::names;
use queuewarden::policy::Policy;
use queuewarden::policy::facts::{Fact, Missing};
use queuewarden::policy::model::Model;
use queuewarden::telephony::Ground;

use crate::support::{Folder, Sidecar, project, run};
use crate::tidy::markdown::{prose, table, word, words};

/// Two lists with the same members, whatever their order; the first is README's.
fn same<T: Ord + Debug>(what: &str, readme: impl IntoIterator<Item = T>, code: impl IntoIterator<Item = T>) {
    let (readme, code): (Vec<T>, BTreeSet<T>) = (readme.into_iter().collect(), code.into_iter().collect());
    let unique: BTreeSet<&T> = readme.iter().collect();
    assert_eq!(unique.len(), readme.len(), "README lists something twice: {what}: {readme:?}");
    let missing: Vec<&T> = code.iter().filter(|member| !unique.contains(member)).collect();
    let unknown: Vec<&T> = readme.iter().filter(|member| !code.contains(member)).collect();
    assert!(missing.is_empty(), "README lacks {what}: {missing:#?}");
    assert!(unknown.is_empty(), "README has {what} that the code does not: {unknown:#?}");
}

// Reasons -------------------------------------------------------------------------------------------------------------

#[test]
fn the_reasons_are_those_of_the_code_word_for_word() {
    let of = |heading: &str| table(heading, "Reason").rows.into_iter().map(|row| (word(&row[0]), row[1].clone()));
    let said = |code: &str, sentence: &str| (code.to_owned(), sentence.to_owned());
    same("reasons to allow", of("Allow"), AllowReason::ALL.iter().map(|it| said(it.code(), it.sentence())));
    same("reasons to deny", of("Deny"), DenyReason::ALL.iter().map(|it| said(it.code(), it.sentence())));
    same("reasons of errors", of("Error"), ErrorReason::ALL.iter().map(|it| said(it.code(), it.sentence())));
}

// Metrics -------------------------------------------------------------------------------------------------------------

/// A family of metrics as a scrape shows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Family {
    name: String,
    kind: String,
    labels: Vec<String>,
    help: String,
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

#[test]
fn the_metrics_are_those_of_a_scrape() {
    let folder = Folder::demo();
    folder.write("queuewarden.toml", &(folder.read("queuewarden.toml") + "[metrics]\nsessions_by_queue_max = 9\n"));
    let sidecar = Sidecar::start(&folder);
    sidecar.ask("may org=acme actor=1001 action=queue.login queue=600");
    let (ours, process): (Vec<Family>, Vec<Family>) =
        families(&sidecar.get("/metrics")).into_iter().partition(|family| family.name.starts_with("queuewarden_"));
    same(
        "metrics",
        ours.iter().map(|family| (&*family.name, &*family.help)),
        names::ALL.iter().map(|it| (it.name, it.help)),
    );
    let documented = table("Metrics", "Metric").rows.into_iter().map(|row| Family {
        name: word(&row[0]),
        kind: row[1].clone(),
        labels: words(&row[2]),
        help: row[3].clone(),
    });
    same("metrics", documented, ours);
    let documented = table("Metrics", "Metric of the process").rows.into_iter().map(|row| Family {
        name: word(&row[0]),
        kind: row[1].clone(),
        labels: vec![],
        help: row[2].clone(),
    });
    same("metrics of the process", documented, process);
}

#[test]
fn the_labels_are_closed_lists() {
    let of = |label: &str| -> Vec<String> {
        let rows = table("Metrics", "Label").rows;
        let row = rows.iter().find(|row| word(&row[0]) == label).unwrap_or_else(|| panic!("no row for `{label}`"));
        words(&row[1])
    };
    let owned = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect::<Vec<String>>();
    same("dialects", of("dialect"), owned(DialectLabel::ALL.iter().map(|it| it.name()).collect()));
    same("actions", of("action"), owned(ActionLabel::ALL.iter().map(|it| it.name()).collect()));
    same("grounds", of("ground"), owned(Ground::ALL.iter().map(|it| it.name()).collect()));
    same("decisions", of("decision"), owned(vec!["allow", "deny"]));
    same("outcomes", of("outcome"), owned(RemovalOutcome::ALL.iter().map(|it| it.name()).collect()));
    let of_audit = Skipped::ALL.iter().map(|it| it.name());
    same("causes", of("cause"), owned(of_audit.chain(LeftOut::ALL.iter().map(|it| it.name())).collect()));
    same("results", of("result"), owned(vec!["success", "failure"]));
}

#[test]
fn readme_speaks_of_no_metric_that_does_not_exist() {
    for (heading, line) in prose() {
        for (at, _) in line.match_indices("queuewarden_") {
            let name: String = line[at..].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            assert!(
                names::ALL.iter().any(|metric| metric.name == name),
                "under {heading:?}: there is no metric {name}"
            );
        }
    }
}

// The wire ------------------------------------------------------------------------------------------------------------

#[test]
fn the_keys_of_requests_are_those_of_the_code() {
    let rows = table("Line dialect", "Key").rows;
    let requests = rows.iter().map(|row| word(&row[0]));
    same("keys of requests", requests, Key::ALL.iter().map(|key| key.name().to_owned()));
    for &key in Key::ALL {
        let values: Vec<&str> = ATTRIBUTE_VALUES.iter().filter(|(of, _)| *of == key).map(|(_, value)| *value).collect();
        if !values.is_empty() {
            let row = rows.iter().find(|row| word(&row[0]) == key.name()).unwrap();
            let documented: Vec<String> = row[1].split(", ").map(word).collect();
            assert_eq!(documented, values, "values of `{}`", key.name());
        }
    }
    let longest = format!("1 to {} seconds", grouped(limits::LEASE_SECONDS_MAX.into()));
    assert!(rows.iter().any(|row| row[0] == "`for`" && row[1] == longest), "`for` is {longest}");
}

#[test]
fn the_keys_of_replies_are_those_that_the_dialect_writes_in_its_order() {
    let code = fs::read_to_string(project().join("src/dialect/line.rs")).unwrap();
    let code = &code[..code.find("#[cfg(test)]").unwrap()];
    let mut written: Vec<&str> = vec![];
    for (at, _) in code.match_indices("b\" ") {
        let text = &code[at + 3..];
        let Some((key, _)) = text[..text.find('"').unwrap()].split_once('=') else { continue };
        let key = key.rsplit(' ').next().unwrap();
        if !written.contains(&key) {
            written.push(key);
        }
    }
    // Both spellings of the queues stand in one line of the code, the longer one first.
    same(
        "keys of replies",
        table("Line dialect", "Reply key").rows.iter().map(|row| word(&row[0])),
        written.iter().map(|&key| key.to_owned()),
    );
}

#[test]
fn the_verbs_are_those_that_the_line_dialect_knows() {
    let code = fs::read_to_string(project().join("src/dialect/line.rs")).unwrap();
    let start = code.find("let verb = match ").unwrap();
    let arms = &code[start..start + code[start..].find("_ =>").unwrap()];
    let verbs = arms.lines().filter_map(|line| line.trim().strip_prefix("b\"")?.split_once("\" =>"));
    let rows = table("Line dialect", "Verb").rows;
    same("verbs", rows.iter().map(|row| word(&row[0])), verbs.map(|(verb, _)| verb.to_owned()));
    let sidecar = Sidecar::start(&Folder::demo());
    for row in &rows {
        let mut given = vec![];
        for needed in words(&row[1]) {
            let reply = sidecar.ask(format!("{} {}", word(&row[0]), given.join(" ")).trim_end());
            assert_eq!(reply, format!("error reason=missing_key key={needed}"), "{row:?}");
            let value = if needed == "digits" { "*13" } else { "x" };
            given.push(format!("{needed}={value}"));
        }
    }
}

#[test]
fn the_variables_of_fastagi_are_those_that_it_sets() {
    let sidecar = Sidecar::start(&Folder::demo());
    let heard = sidecar.agi_bytes(crate::support::agi_environment("1001", "acme/dial", &["digits=*13600"]).as_bytes());
    let set: Vec<String> = heard
        .lines()
        .map(|line| line.strip_prefix("SET VARIABLE ").unwrap().split(' ').next().unwrap().to_owned())
        .collect();
    let documented: Vec<String> = table("FastAGI", "Variable").rows.iter().map(|row| word(&row[0])).collect();
    assert_eq!(documented, set, "in the order in which they are set");
}

#[test]
fn the_variables_of_freeswitch_are_those_that_it_sets() {
    let sidecar = Sidecar::start(&Folder::demo());
    let variables = [("qw_org", "acme"), ("user_name", "2001"), ("qw_queue", "600")];
    let block = crate::support::channel_block("*2231001", &variables);
    let set = crate::support::FreeSwitchPeer::ring(&sidecar).ask(&block);
    let rows = table("FreeSWITCH", "Variable").rows;
    same("variables", rows.iter().flat_map(|row| words(&row[0])), set.into_keys());
}

#[test]
fn the_paths_of_the_admin_listener_are_those_that_it_serves() {
    let code = fs::read_to_string(project().join("src/server/admin.rs")).unwrap();
    let routes = code.match_indices(".route(\"").map(|(at, start)| &code[at + start.len()..]);
    let routes = routes.map(|rest| rest[..rest.find('"').unwrap()].to_owned());
    same("paths", table("Admin HTTP", "Path").rows.iter().map(|row| word(&row[0])), routes);
}

// The audit log -------------------------------------------------------------------------------------------------------

#[test]
fn the_audit_log_says_what_readme_says() {
    let rows = table("The audit log", "Member").rows;
    let (status, header) = run(&["audit", "export", "--format", "csv", "--folder", "src"]);
    assert!(status.success(), "{header}");
    let columns = header.trim().split(',').map(str::to_owned);
    same("members of a line", rows.iter().map(|row| word(&row[0])), columns);
    let events = table("The audit log", "Event").rows;
    same("events", events.iter().map(|row| word(&row[0])), About::ALL.iter().map(|it| it.name().to_owned()));
}

// Role models ---------------------------------------------------------------------------------------------------------

fn models() -> Vec<Arc<Model>> {
    let mut models = load_models(&project().join("config")).unwrap();
    models.sort_by(|one, other| one.name.cmp(&other.name));
    models
}

fn names_of(keys: KeySet) -> BTreeSet<String> {
    Key::ALL.iter().filter(|&&key| keys.has(key)).map(|key| key.name().to_owned()).collect()
}

#[test]
fn the_signaling_actions_are_those_of_the_shipped_models() {
    let table = table("Actions", "Action");
    let labels = ActionLabel::ALL.iter().filter(|&&label| label != ActionLabel::Control);
    same("signaling actions", table.rows.iter().map(|row| word(&row[0])), labels.map(|label| label.name().to_owned()));
    for row in &table.rows {
        let name = word(&row[0]);
        let mut optional = BTreeSet::new();
        for model in models() {
            let action = model.action_named(&name);
            let said = row[table.column(&model.name)].as_str();
            assert_eq!(said, if action.is_some() { "yes" } else { "no" }, "`{name}` in {}", model.name);
            let Some(action) = action else { continue };
            let needs = names_of(action.needs);
            assert_eq!(words(&row[table.column("Needs")]).into_iter().collect::<BTreeSet<_>>(), needs, "`{name}`");
            optional.extend(names_of(action.uses).difference(&needs).cloned());
        }
        assert_eq!(words(&row[table.column("May have")]).into_iter().collect::<BTreeSet<_>>(), optional, "`{name}`");
    }
}

#[test]
fn the_settings_are_those_of_the_shipped_models() {
    for model in models() {
        let rows = table("Settings", &format!("`{}`", model.name)).rows;
        let documented = rows.iter().map(|row| (word(&row[0]), word(&row[1]), row[2].clone()));
        let yes = |locked| if locked { "yes" } else { "no" }.to_owned();
        let settings = model.settings.iter().map(|it| (it.name.to_string(), it.default.to_string(), yes(it.locked)));
        same(&format!("settings of {}", model.name), documented, settings);
    }
}

#[test]
fn the_facts_are_those_of_the_code_in_the_order_of_checks() {
    let documented = table("`models/*.toml`: `[[grants]]`", "Fact").rows;
    let documented: Vec<(String, String)> = documented.iter().map(|row| (word(&row[0]), word(&row[2]))).collect();
    let reason = |fact: Fact| match fact.missing() {
        Missing::Reason(reason) => reason.code(),
        Missing::OutsideQueue => "outside_queue",
    };
    let facts: Vec<(String, String)> =
        Fact::ALL.iter().map(|&fact| (fact.name().to_owned(), reason(fact).to_owned())).collect();
    assert_eq!(documented, facts);
}

#[test]
fn what_an_action_can_do_is_what_the_code_says() {
    let folder = Folder::demo();
    folder.write(
        "models/probe.toml",
        "model = \"probe\"\n[[actions]]\nname = \"a\"\nrules = [\"r\"]\ndoes = \"bogus\"\n",
    );
    let problems = load(folder.path(), &Policy::default()).unwrap_err();
    let help = problems.problems[0].help.clone().unwrap();
    let known = help.split(';').next().unwrap().replace(" or ", ", ");
    let documented = table("`models/*.toml`: `[[actions]]`", "`does`").rows;
    same("effects", documented.iter().map(|row| word(&row[0])), known.split(", ").map(str::to_owned));
}

// Feature codes -------------------------------------------------------------------------------------------------------

/// The presets that the code knows, from the help that a bogus one gets.
fn presets() -> Vec<String> {
    let folder = Folder::with("o.toml", "organization = \"o\"\nmodel = \"goto\"\nfeature_code_preset = \"bogus\"\n");
    let problems = load(folder.path(), &Policy::default()).unwrap_err();
    let help = problems.problems[0].help.clone().unwrap();
    help.strip_prefix("presets: ").unwrap().split(", ").map(str::to_owned).collect()
}

#[test]
fn the_presets_mean_what_readme_says() {
    let table = table("Feature codes", "Action");
    same("presets", table.header.iter().skip(1).map(|name| word(name)), presets());
    for preset in presets() {
        let column = table.column(&format!("`{preset}`"));
        let documented =
            table.rows.iter().flat_map(|row| words(&row[column]).into_iter().map(|code| (code, word(&row[0]))));
        let documented: Vec<(String, String)> = documented.collect();
        let text = format!("organization = \"o\"\nmodel = \"goto\"\nfeature_code_preset = \"{preset}\"\n");
        let policy = load(Folder::with("o.toml", &text).path(), &Policy::default()).unwrap().policy;
        let organization = policy.organization("o").unwrap();
        let name = |action: u16| organization.model.action(action).unwrap().name.to_string();
        let codes = organization.feature_codes.codes().iter().map(|code| (code.pattern.to_string(), name(code.action)));
        same(&format!("codes of {preset}"), documented.clone(), codes);
        for (code, action) in documented {
            let digits = code.replace("{queue}", "600").replace("{target}", "1001");
            let translated = organization.feature_codes.translate(&digits).map(|it| name(it.action));
            assert_eq!(translated, Some(action), "{preset}: {digits}");
        }
    }
}

// Bounds and the command line -----------------------------------------------------------------------------------------

/// A number with commas between its thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups = digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).unwrap());
    groups.collect::<Vec<_>>().join(",")
}

#[test]
fn the_bounds_are_those_of_the_code() {
    let count = |number: usize, unit: &str| format!("{} {unit}", grouped(number as u64)).trim_end().to_owned();
    let seconds = |duration: Duration| count(usize::try_from(duration.as_secs()).unwrap(), "s");
    let bounds = [
        ("A line of the line dialect, its LF included", count(limits::LINE_BYTES_MAX, "bytes")),
        ("The id of a request", count(limits::REQUEST_ID_BYTES_MAX, "bytes")),
        ("A value", count(limits::VALUE_BYTES_MAX, "bytes")),
        ("A FastAGI environment", count(limits::AGI_ENVIRONMENT_BYTES_MAX, "bytes")),
        ("Lines of a FastAGI environment", count(limits::AGI_ENVIRONMENT_LINES_MAX, "")),
        ("A header block from FreeSWITCH", count(limits::FREESWITCH_BLOCK_BYTES_MAX, "bytes")),
        ("The JSON in a netstring from Kamailio", count(limits::NETSTRING_BYTES_MAX, "bytes")),
        ("The id of a JSON-RPC request", count(limits::JSONRPC_ID_BYTES_MAX, "bytes")),
        ("Kamailios that are dialed", count(limits::EVAPI_PEERS_MAX, "")),
        (
            "Answers that wait for a dialed Kamailio before it hears `overload`",
            count(limits::EVAPI_BUSY_BYTES, "bytes"),
        ),
        ("One write to a dialed Kamailio", count(limits::EVAPI_WRITE_BYTES_MAX, "bytes")),
        ("The rest of a question, from its first byte", seconds(limits::FRAME_TIMEOUT)),
        ("From the last answer to the peer's end of the connection", seconds(limits::CLOSE_TIMEOUT)),
        ("A peer that does not read its answers", seconds(limits::WRITE_TIMEOUT)),
        ("Questions of one connection before others have their turn", count(limits::QUESTIONS_PER_TURN_MAX, "")),
        ("Connections of all dialects, unless configured", count(limits::CONNECTIONS_DEFAULT, "")),
        ("Connections of all dialects, at most", count(limits::CONNECTIONS_MAX, "")),
        ("Connections that are told that there is no room, at once", count(limits::REFUSALS_AT_ONCE_MAX, "")),
        ("Connections that wait to be accepted", count(limits::LISTEN_BACKLOG as usize, "")),
        ("Connections of the admin listener, at once", count(limits::ADMIN_REQUESTS_MAX, "")),
        ("Answers of one page of `/what` and `/who`", count(limits::SURVEY_PAGE_ANSWERS_MAX, "")),
        ("Rows of one page of `/sessions` and `/supervisions`", count(limits::OPERATOR_PAGE_ROWS_MAX, "")),
        ("Supervisions of an organization that run at once", count(limits::SUPERVISIONS_PER_ORGANIZATION_MAX, "")),
        ("Calls of an organization that are known at once", count(limits::CALLS_PER_ORGANIZATION_MAX, "")),
        ("A supervision that nobody reports ended", count(limits::SUPERVISION_SECONDS_MAX as usize, "s")),
        ("A call that nobody reports ended", count(limits::CALL_SECONDS_MAX as usize, "s")),
        ("Events of an organization that a watcher can resume from", count(limits::CHANGE_FEED_CHANGES_MAX, "")),
        ("Changes that wait for the disk", count(limits::PENDING_CHANGES_MAX, "")),
        ("Audit lines that no answer waits for", count(limits::AUDIT_BUFFER_BYTES_MAX, "bytes")),
        ("They are written every", count(usize::try_from(limits::AUDIT_FLUSH_INTERVAL.as_millis()).unwrap(), "ms")),
        ("An answer that waits for the disk is refused after", seconds(limits::COMMIT_TIMEOUT)),
        (
            "Between two tries of a store that failed",
            count(usize::try_from(limits::STORE_RETRY_INTERVAL.as_millis()).unwrap(), "ms"),
        ),
        ("From SIGTERM to the end", seconds(limits::DRAIN_TIMEOUT)),
        ("Between two loads of the configuration", seconds(limits::RELOAD_INTERVAL_MIN)),
        ("An idle connection is probed after", seconds(limits::KEEPALIVE_IDLE)),
        ("Decisions that the log tells in a second", count(limits::LOG_DECISIONS_PER_SECOND_MAX as usize, "")),
        ("Errors of one peer that the log tells in 10 s", count(limits::LOG_ERRORS_PER_PEER_MAX as usize, "")),
        ("Errors of all peers that the log tells in 10 s", count(limits::LOG_ERRORS_MAX as usize, "")),
        ("Lines of the log that wait for whoever reads it", count(limits::LOG_LINES_WAITING_MAX, "")),
        ("Without a decision for so long, `/livez` and `/readyz` say so", seconds(limits::SELF_TEST_AGE_MAX)),
        ("Problems that one load spells out", count(limits::PROBLEMS_REPORTED_MAX, "")),
        ("A TOML file", count(usize::try_from(limits::TOML_FILE_BYTES_MAX).unwrap(), "bytes")),
        ("A CSV file", count(usize::try_from(limits::CSV_FILE_BYTES_MAX).unwrap(), "bytes")),
    ];
    let documented = table("Overload", "Bound").rows.into_iter().map(|row| (row[0].clone(), row[1].clone()));
    same("bounds", documented, bounds.into_iter().map(|(bound, value)| (bound.to_owned(), value)));
}

#[test]
fn the_commands_are_those_of_the_help() {
    let (status, help) = run(&["help"]);
    assert!(status.success());
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let listed: BTreeSet<String> = listed.map(|line| line.split_whitespace().next().unwrap().to_owned()).collect();
    let rows = table("Command line", "Command").rows;
    let documented =
        rows.iter().flat_map(|row| row[0].split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>());
    let documented = documented.filter_map(|command| command.split(' ').nth(1).map(str::to_owned));
    same("commands", documented, listed);
}

#[test]
fn the_exit_codes_are_true() {
    let folder = Folder::demo();
    let at = folder.path().to_str().unwrap();
    let code = |arguments: &[&str]| run(&[&["--config", at], arguments].concat()).0.code().unwrap().to_string();
    let mut seen = vec![code(&["check"])];
    seen.push(code(&["explain", "--org", "acme", "--actor", "1001", "do", "queue.login", "colour=red"]));
    seen.push(code(&["explain"]));
    folder.write("organizations/acme.toml", "");
    seen.push(code(&["check"]));
    let documented: Vec<String> = table("Command line", "Exit code").rows.iter().map(|row| row[0].clone()).collect();
    assert_eq!(documented, seen);
}

#[test]
fn the_tests_are_listed() {
    let listed =
        table("Develop", "Path").rows.into_iter().map(|row| word(&row[0])).filter(|path| path.starts_with("tests/"));
    let there = fs::read_dir(project().join("tests")).unwrap().map(|entry| entry.unwrap()).map(|entry| {
        let folder = if entry.path().is_dir() { "/" } else { "" };
        format!("tests/{}{folder}", entry.file_name().to_str().unwrap())
    });
    // These are parts of the others, and the script that runs them.
    let parts = ["tests/support/", "tests/tidy/", "tests/run"];
    same("tests", listed, there.filter(|path| !parts.contains(&path.as_str())));
}

#[test]
fn links_lead_somewhere() {
    let headings: BTreeSet<String> = prose()
        .iter()
        .filter(|(_, line)| line.starts_with('#'))
        .map(|(heading, _)| {
            let kept = heading
                .to_lowercase()
                .chars()
                .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
                .collect::<String>();
            kept.replace(' ', "-")
        })
        .collect();
    for (_, line) in prose() {
        for (at, _) in line.match_indices("](") {
            let target = &line[at + 2..at + 2 + line[at + 2..].find(')').unwrap()];
            match target.strip_prefix('#') {
                Some(heading) => assert!(headings.contains(heading), "README has no heading #{heading}"),
                None => assert!(project().join(target).exists(), "README links to {target}, which is not there"),
            }
        }
    }
}
