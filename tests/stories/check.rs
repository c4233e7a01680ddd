//! Given a configuration folder, when `queuewarden check` reads it, then it loads, or `check` prints every problem as
//! `file:line:column: message`. No invalid value passes.

use std::fs;

use serde_json::{Value, json};

use crate::stories::fixtures::ORGANIZATION;
use crate::support::{Folder, Sidecar, run};

const PROCESS: &str = "queuewarden.toml";
const ORGANIZATION_FILE: &str = "organizations/acme.toml";
const MODEL: &str = "models/goto.toml";

const LOADS: i32 = 0;
const DOES_NOT_LOAD: i32 = 78;

/// A group and a user with every kind of list, in addition to those of the organization.
const MORE: &str = "\n[[groups]]\nid = \"north\"\nsupervisors = [\"supervisor\"]\nmembers = [\"agent\"]\n\
                    \n[leases]\nmax_seconds = 600\n\n[limits]\nlogins_max = 5\n";

fn start_folder() -> Folder {
    let folder = Folder::with("acme.toml", &format!("{ORGANIZATION}{MORE}"));
    folder.replace(PROCESS, "[state]\n", "[limits]\nconnections_max = 10\n[connect]\nevapi = []\n[state]\n");
    folder
}

/// The exit code of `check` on the folder, and its output.
fn check(folder: &Folder) -> (i32, String) {
    let (status, text) = run(&["check", "--config", folder.path().to_str().unwrap()]);
    (status.code().expect("it ends by itself"), text)
}

/// The problems of `check --json`, each as `file:line:column: message`.
fn problems(folder: &Folder) -> Vec<String> {
    let (status, text) = run(&["check", "--json", "--config", folder.path().to_str().unwrap()]);
    let report: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!((status.code(), &report["loads"]), (Some(DOES_NOT_LOAD), &json!(false)), "{text}");
    let problem = |problem: &Value| {
        let place = match (&problem["line"], &problem["column"]) {
            (Value::Null, Value::Null) => String::new(),
            (line, column) => format!(":{line}:{column}"),
        };
        format!("{}{place}: {}", problem["file"].as_str().unwrap(), problem["message"].as_str().unwrap())
    };
    assert_eq!(report["problems"]["more"], 0, "{text}");
    report["problems"]["problems"].as_array().unwrap().iter().map(problem).collect()
}

#[test]
fn a_valid_folder_passes_the_check() {
    let folder = start_folder();
    let (status, text) = check(&folder);
    assert_eq!(status, LOADS, "{text}");
    assert!(text.contains("organizations 1, queues 4, users 13"), "{text}");
    let (status, text) = run(&["check", "--json", "--config", folder.path().to_str().unwrap()]);
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(status.code(), Some(LOADS));
    assert_eq!([&report["loads"], &report["queues"], &report["users"]], [&json!(true), &json!(4), &json!(13)]);
    // `supervises` without the supervisor role loads with a warning (conformance/goto.md, section 7).
    let warnings = report["warnings"]["problems"].as_array().unwrap();
    assert_eq!(warnings.len(), 1, "{report}");
    assert!(warnings[0]["message"].as_str().unwrap().contains("`plain_over_queue`"), "{report}");
    let place = folder.place(ORGANIZATION_FILE, "\"plain_over_queue\"");
    assert!(check(&folder).1.contains(&format!("warning: {place}: ")), "{place}");
}

/// A fault in the configuration. The first `from` in the file is replaced by `to`. The problem is reported at the first
/// `marker` from there on, and its message contains the words of `message`.
struct Fault {
    file: &'static str,
    from: &'static str,
    to: &'static str,
    marker: &'static str,
    message: &'static [&'static str],
}

const fn fault(
    file: &'static str,
    from: &'static str,
    to: &'static str,
    marker: &'static str,
    message: &'static [&'static str],
) -> Fault {
    Fault { file, from, to, marker, message }
}

/// An unknown key in every table.
const UNKNOWN_KEYS: &[(&str, &str)] = &[
    (PROCESS, "[listen]\n"),
    (PROCESS, "[state]\n"),
    (PROCESS, "[limits]\n"),
    (PROCESS, "[connect]\n"),
    (ORGANIZATION_FILE, "organization = \"acme\"\n"),
    (ORGANIZATION_FILE, "[settings]\n"),
    (ORGANIZATION_FILE, "[settings.supervisor]\n"),
    (ORGANIZATION_FILE, "[settings.contact_admin]\n"),
    (ORGANIZATION_FILE, "[leases]\n"),
    (ORGANIZATION_FILE, "[limits]\n"),
    (ORGANIZATION_FILE, "[[queues]]\n"),
    (ORGANIZATION_FILE, "[[users]]\n"),
    (ORGANIZATION_FILE, "[[groups]]\n"),
    (MODEL, "model = \"goto\"\n"),
    (MODEL, "[[roles]]\n"),
    (MODEL, "[[settings]]\n"),
    (MODEL, "[[actions]]\n"),
    (MODEL, "[[grants]]\n"),
];

const FAULTS: &[Fault] = &[
    // Missing names.
    fault(ORGANIZATION_FILE, "queues = [\"q0\"]", "queues = [\"q9\"]", "\"q9\"", &["`q9`"]),
    fault(ORGANIZATION_FILE, "supervises = [\"q0\"]", "supervises = [\"q9\"]", "\"q9\"", &["`q9`"]),
    fault(
        ORGANIZATION_FILE,
        "supervises = [\"q0\"]",
        "supervises = [\"q0\"]\nedits = [\"q1\"]",
        "\"q1\"",
        &["`q1`", "supervises"],
    ),
    fault(
        ORGANIZATION_FILE,
        "supervisors = [\"supervisor\"]",
        "supervisors = [\"nobody\"]",
        "\"nobody\"",
        &["`nobody`"],
    ),
    fault(ORGANIZATION_FILE, "members = [\"agent\"]", "members = [\"nobody\"]", "\"nobody\"", &["`nobody`"]),
    fault(ORGANIZATION_FILE, "model = \"goto\"", "model = \"gone\"", "\"gone\"", &["`gone`"]),
    fault(ORGANIZATION_FILE, "= \"asterisk\"", "= \"nortel\"", "\"nortel\"", &["`nortel`"]),
    fault(ORGANIZATION_FILE, "roles = [\"agent\"]", "roles = [\"king\"]", "\"king\"", &["`king`"]),
    fault(ORGANIZATION_FILE, "kind = \"ring_group\"", "kind = \"fax\"", "\"fax\"", &["`fax`"]),
    fault(ORGANIZATION_FILE, "\"queue.toggle\"", "\"queue.dance\"", "\"queue.dance\"", &["`queue.dance`"]),
    fault(
        ORGANIZATION_FILE,
        "[[queues]]\nid = \"q0\"\nnumber = \"600\"\n",
        "[[queues]]\nid = \"q0\"\n",
        "[[queues]]",
        &["`number`"],
    ),
    fault(
        ORGANIZATION_FILE,
        "[[users]]\nid = \"plain\"\nextension = \"3001\"\n",
        "[[users]]\nid = \"plain\"\n",
        "[[users]]",
        &["`extension`"],
    ),
    // Duplicates, by id or by number.
    fault(ORGANIZATION_FILE, "id = \"q1\"", "id = \"q0\"", "\"q0\"\nnumber = \"601\"", &["`q0`"]),
    fault(
        ORGANIZATION_FILE,
        "id = \"q1\"\nnumber = \"601\"",
        "id = \"q1\"\nnumber = \"600\"",
        "\"q1\"",
        &["`600`", "`q0`"],
    ),
    fault(
        ORGANIZATION_FILE,
        "id = \"q1\"\nnumber = \"601\"",
        "id = \"600\"\nnumber = \"601\"",
        "\"600\"\nnumber = \"601\"",
        &["`600`"],
    ),
    fault(
        ORGANIZATION_FILE,
        "id = \"agent_too\"",
        "id = \"agent\"",
        "\"agent\"\nextension = \"1002\"",
        &["`agent`", "1001"],
    ),
    fault(
        ORGANIZATION_FILE,
        "id = \"agent_too\"\nextension = \"1002\"",
        "id = \"agent_too\"\nextension = \"1001\"",
        "\"agent_too\"",
        &["`1001`", "`agent`"],
    ),
    fault(
        ORGANIZATION_FILE,
        "id = \"agent_too\"",
        "id = \"1001\"",
        "\"1001\"\nextension = \"1002\"",
        &["`1001`", "`agent`"],
    ),
    fault(ORGANIZATION_FILE, "id = \"plain\"\n", "id = \"3002\"\n", "\"plain_in_queue\"", &["`3002`"]),
    fault(ORGANIZATION_FILE, "queues = [\"q0\"]", "queues = [\"q0\", \"600\"]", "\"600\"]", &["twice"]),
    fault(ORGANIZATION_FILE, "supervises = [\"q0\"]", "supervises = [\"q0\", \"q0\"]", "\"q0\"]", &["twice"]),
    fault(ORGANIZATION_FILE, "members = [\"agent\"]", "members = [\"agent\", \"1001\"]", "\"1001\"]", &["twice"]),
    fault(
        ORGANIZATION_FILE,
        "[[groups]]\n",
        "[[groups]]\nid = \"north\"\n[[groups]]\n",
        "\"north\"\nsupervisors",
        &["`north`"],
    ),
    // Forbidden values.
    fault(
        ORGANIZATION_FILE,
        "supervise_peers = false",
        "view_queue_settings = false",
        "view_queue_settings",
        &["`supervisor.view_queue_settings`", "locked"],
    ),
    fault(
        ORGANIZATION_FILE,
        "supervise_peers = false",
        "supervise_peers = \"no\"",
        "supervise_peers",
        &["`supervisor.supervise_peers`"],
    ),
    fault(
        ORGANIZATION_FILE,
        "allow_unassigned_login = false",
        "restrict_unassigned_login = true",
        "restrict_unassigned_login",
        &["`restrict_unassigned_login`"],
    ),
    fault(ORGANIZATION_FILE, "\"acme\"", "\"ac me\"", "\"ac me\"", &["`ac me`"]),
    fault(ORGANIZATION_FILE, "\"acme\"", "\"ac*me\"", "\"ac*me\"", &["`ac*me`"]),
    fault(ORGANIZATION_FILE, "extension = \"3001\"", "extension = \"30a1\"", "\"30a1\"", &["`30a1`"]),
    fault(ORGANIZATION_FILE, "extension = \"3001\"", "extension = \"\"", "\"\"", &["``"]),
    fault(ORGANIZATION_FILE, "extension = \"3001\"", "extension = 3001", "3001", &["`extension`"]),
    fault(
        ORGANIZATION_FILE,
        "number = \"602\"",
        "number = \"12345678901234567\"",
        "\"12345678901234567\"",
        &["`12345678901234567`"],
    ),
    fault(
        ORGANIZATION_FILE,
        "number = \"602\"",
        "number = \"602\"\nwrap_up_seconds = -1",
        "-1",
        &["`wrap_up_seconds`"],
    ),
    fault(ORGANIZATION_FILE, "logins_max = 5", "logins_max = 0", "0\n", &["`logins_max`"]),
    fault(
        ORGANIZATION_FILE,
        "[leases]\nmax_seconds = 600",
        "[leases]\ndefault_seconds = 601\nmax_seconds = 600",
        "[leases]",
        &["`default_seconds`", "600"],
    ),
    fault(ORGANIZATION_FILE, "protected = true", "protected = 1", "1\n", &["`protected`"]),
    // Feature codes: a PIN, a code without literal digits, an unknown placeholder, a placeholder that the action does
    // not take, and two codes that match the same digits.
    fault(
        ORGANIZATION_FILE,
        "\"*45\" =",
        "\"*45{queue}{pin:4}\" =",
        "\"*45{queue}{pin:4}\"",
        &["`*45{queue}{pin:4}`", "PIN"],
    ),
    fault(ORGANIZATION_FILE, "\"*45\" =", "\"{queue}\" =", "\"{queue}\"", &["`{queue}`"]),
    fault(
        ORGANIZATION_FILE,
        "\"*45\" =",
        "\"*45{queue}{target}\" =",
        "\"*45{queue}{target}\"",
        &["`*45{queue}{target}`"],
    ),
    fault(ORGANIZATION_FILE, "\"*45\" =", "\"*45a\" =", "\"*45a\"", &["`*45a`"]),
    fault(
        ORGANIZATION_FILE,
        "\"*45\" = \"queue.toggle\"",
        "\"*45{target}\" = \"call.outbound\"",
        "\"*45{target}\"",
        &["`*45{target}`", "`call.outbound`"],
    ),
    fault(
        ORGANIZATION_FILE,
        "\"*45\" =",
        "\"*45{target}9{queue}\" =",
        "\"*45{target}9{queue}\"",
        &["`*45{target}9{queue}`", "`*` or `#` between them"],
    ),
    fault(
        ORGANIZATION_FILE,
        "\"*45\" = \"queue.toggle\"",
        "\"*45{target}*{queue}\" = \"agent.login\"\n\"*45{queue}*{target}\" = \"agent.logout\"",
        "\"*45{queue}*",
        &["`*45{target}*{queue}`", "`*45{queue}*{target}`", "`*451*1`", "ambiguous"],
    ),
    fault(
        ORGANIZATION_FILE,
        "\"*45\" = \"queue.toggle\"",
        "\"*9{queue}\" = \"call.listen\"",
        "\"*9{queue}\"",
        &["`*9{queue}`", "`call.listen`"],
    ),
    fault(
        ORGANIZATION_FILE,
        "\"*45\" = \"queue.toggle\"",
        "\"*9{target}\" = \"call.listen\"\n\"*{queue}9\" = \"queue.login\"",
        "\"*",
        &["`*9{target}`", "`*{queue}9`", "ambiguous"],
    ),
    fault(
        ORGANIZATION_FILE,
        "\"*45\" = \"queue.toggle\"",
        "\"*1{queue}3\" = \"queue.login\"",
        "\"*1{queue}3\"",
        &["`*1{queue}3`", "`*13{queue}`", "ambiguous"],
    ),
    fault(
        ORGANIZATION_FILE,
        "\"*45\" = \"queue.toggle\"",
        "\"*22{target}1\" = \"call.listen\"",
        "\"*22{target}1\"",
        &["`*22{target}1`", "ambiguous"],
    ),
    fault(
        ORGANIZATION_FILE,
        "[[queues]]",
        "[[shifts]]\nqueue = \"600\"\ndays = [\"mon\"]\nfrom = \"08:00\"\nto = \"08:00\"\ntime_zone = \"Europe/Berlin\"\n[[queues]]",
        "\"08:00\"\ntime_zone",
        &["the shift is empty"],
    ),
    fault(
        ORGANIZATION_FILE,
        "[[queues]]",
        "[[shifts]]\nqueue = \"600\"\ndays = [\"mon\"]\nfrom = \"08:00\"\nto = \"24:01\"\ntime_zone = \"Europe/Berlin\"\n[[queues]]",
        "\"24:01\"",
        &["`to`", "`24:01`"],
    ),
    fault(
        ORGANIZATION_FILE,
        "[[queues]]",
        "[[shifts]]\nqueue = \"600\"\ndays = [\"mon\"]\nfrom = \"8:00\"\nto = \"18:00\"\ntime_zone = \"Europe/Berlin\"\n[[queues]]",
        "\"8:00\"",
        &["`from`", "`8:00`"],
    ),
    fault(
        ORGANIZATION_FILE,
        "[[queues]]",
        "[[shifts]]\nqueue = \"600\"\ndays = [\"mon\"]\nfrom = \"24:00\"\nto = \"18:00\"\ntime_zone = \"Europe/Berlin\"\n[[queues]]",
        "\"24:00\"",
        &["`from`", "`24:00`"],
    ),
    fault(
        ORGANIZATION_FILE,
        "[[queues]]",
        "[[shifts]]\nqueue = \"600\"\ndays = [\"mon\"]\nfrom = \"08:00\"\nto = \"18:00\"\ntime_zone = \"Europe/Bärlin\"\n[[queues]]",
        "\"Europe/Bärlin",
        &["no time zone `Europe/Bärlin`"],
    ),
    fault(
        ORGANIZATION_FILE,
        "[[queues]]",
        "[[shifts]]\nqueue = \"600\"\ndays = []\nfrom = \"08:00\"\nto = \"18:00\"\ntime_zone = \"Europe/Berlin\"\n[[queues]]",
        "[[shifts]]",
        &["`days` names no day"],
    ),
    fault(
        ORGANIZATION_FILE,
        "[[queues]]",
        "[[shifts]]\nqueue = \"600\"\ndays = [\"monday\"]\nfrom = \"08:00\"\nto = \"18:00\"\ntime_zone = \"Europe/Berlin\"\n[[queues]]",
        "\"monday\"",
        &["`monday` is no day"],
    ),
    fault(
        ORGANIZATION_FILE,
        "[[queues]]",
        "[[shifts]]\nqueue = \"600\"\ndays = [\"mon\", \"mon\"]\nfrom = \"08:00\"\nto = \"18:00\"\ntime_zone = \"Europe/Berlin\"\n[[queues]]",
        "\"mon\"]",
        &["`mon` is listed twice"],
    ),
    fault(
        ORGANIZATION_FILE,
        "[[queues]]",
        "[[shifts]]\nqueue = \"6000\"\ndays = [\"mon\"]\nfrom = \"08:00\"\nto = \"18:00\"\ntime_zone = \"Europe/Berlin\"\n[[queues]]",
        "\"6000\"",
        &["no queue `6000`"],
    ),
    fault(
        ORGANIZATION_FILE,
        "[[queues]]",
        "[[shifts]]\nqueue = \"600\"\ndays = [\"mon\"]\nfrom = \"08:00\"\nto = \"18:00\"\napplies = \"always\"\ntime_zone = \"Europe/Berlin\"\n[[queues]]",
        "\"always\"",
        &["`applies`"],
    ),
    fault(
        ORGANIZATION_FILE,
        "[[queues]]",
        "[logins]\nidle_max_seconds = 0\n[[queues]]",
        "0\n[[queues]]",
        &["`idle_max_seconds`"],
    ),
    // The process.
    fault(PROCESS, "line = \"127.0.0.1:0\"", "line = \"localhost\"", "\"localhost\"", &["`line`"]),
    fault(PROCESS, "line = \"127.0.0.1:0\"", "line = 4571", "4571", &["`line`"]),
    fault(PROCESS, "store = \"memory\"", "store = \"tape\"", "\"tape\"", &["`store`"]),
    fault(
        PROCESS,
        "connections_max = 10",
        "connections_max = 10\n[metrics]\nsessions_by_queue_max = 10_001",
        "10_001",
        &["`sessions_by_queue_max`", "10000"],
    ),
    fault(PROCESS, "connections_max = 10", "connections_max = 0", "0\n[connect]", &["`connections_max`"]),
    fault(PROCESS, "connections_max = 10", "connections_max = 100_001", "100_001", &["`connections_max`", "100000"]),
    fault(PROCESS, "evapi = []", "evapi = [\"kamailio\"]", "\"kamailio\"", &["`evapi`"]),
    fault(PROCESS, "[listen]\n", "[listen]\nline_token_file = \"none\"\n", "\"none\"", &["token file"]),
    // The role model.
    fault(MODEL, "roles = [\"everyone\"]", "roles = [\"somebody\"]", "\"somebody\"", &["`somebody`"]),
    fault(MODEL, "actions = [\"queue.logout\"]", "actions = [\"queue.leave\"]", "\"queue.leave\"", &["`queue.leave`"]),
    fault(MODEL, "where = [\"queue.served\"]", "where = [\"queue.liked\"]", "\"queue.liked\"", &["`queue.liked`"]),
    fault(
        MODEL,
        "on = [\"allow_unassigned_login\"]",
        "on = [\"anything_goes\"]",
        "\"anything_goes\"",
        &["`anything_goes`"],
    ),
    fault(MODEL, "reason = \"assigned\"", "reason = \"because\"", "\"because\"", &["`because`"]),
    fault(
        MODEL,
        "reason = \"assigned\"",
        "reason = \"unassigned_barred\"",
        "\"unassigned_barred\"\n",
        &["`unassigned_barred`"],
    ),
    fault(
        MODEL,
        "without_role = \"agent_role_required\"",
        "without_role = \"assigned\"",
        "\"assigned\"\noutside",
        &["`assigned`"],
    ),
    fault(
        MODEL,
        "actions = [\"queue.login\"]\nroles = [\"everyone\"]\nvia = [\"phone\"]\nwhere = [\"session.open\"]\n",
        "actions = [\"queue.login\"]\nroles = [\"everyone\"]\nvia = [\"phone\"]\n",
        "\"queue.login\"]",
        &["`already_logged_in`", "session.open"],
    ),
    fault(
        MODEL,
        "where = [\"queue.served\"]",
        "where = [\"target.holds_role\"]",
        "\"target.holds_role\"",
        &["`target_roles`"],
    ),
    fault(MODEL, "does = \"login\"", "does = \"dance\"", "\"dance\"", &["`dance`"]),
    fault(MODEL, "via = [\"phone\"]", "via = [\"fax\"]", "\"fax\"", &["`fax`"]),
    fault(MODEL, "model = \"goto\"", "model = \"gone\"", "\"gone\"", &["`gone`"]),
];

/// Replaces the first `from` in a file of the folder. Returns the position of the first `marker` from there on.
fn inject(folder: &Folder, file: &str, from: &str, to: &str, marker: &str) -> String {
    let good = folder.read(file);
    let start = good.find(from).unwrap_or_else(|| panic!("{from:?} is not in {file}"));
    folder.write(file, &good.replacen(from, to, 1));
    folder.place_from(file, start, marker)
}

#[test]
fn each_fault_is_reported_at_its_position_with_a_message_that_names_it() {
    let folder = start_folder();
    let unknown = UNKNOWN_KEYS.iter().map(|&(file, table)| {
        let to = format!("{table}colour = \"red\"\n");
        (file, table, to, "colour", &["colour`"][..])
    });
    let unknown_setting = [
        (
            ORGANIZATION_FILE,
            "[settings.contact_admin]\n",
            "[settings.king]\nmay_rule = true\n[settings.contact_admin]\n".to_owned(),
            "may_rule",
            &["`king.may_rule`"][..],
        ),
        (PROCESS, "[listen]\n", "[colours]\n[listen]\n".to_owned(), "colours", &["`colours`"][..]),
    ];
    let faults = FAULTS.iter().map(|fault| (fault.file, fault.from, fault.to.to_owned(), fault.marker, fault.message));
    for (file, from, to, marker, message) in unknown.chain(unknown_setting).chain(faults) {
        let good = folder.read(file);
        let place = inject(&folder, file, from, &to, marker);
        let (status, text) = check(&folder);
        assert_eq!(status, DOES_NOT_LOAD, "{file}: {to:?} loads: {text}");
        let reported = text.lines().find(|line| line.starts_with(&format!("{place}: ")));
        let reported = reported.unwrap_or_else(|| panic!("{file}: {to:?} is not reported at {place}: {text}"));
        assert!(message.iter().all(|word| reported.contains(word)), "{message:?} is not in {reported}");
        folder.write(file, &good);
    }
    assert_eq!(check(&folder).0, LOADS, "the folder is repaired after each fault");
}

/// Given one fault, when the folder is checked, then one problem is reported: correcting it is enough.
#[test]
fn one_fault_is_one_problem() {
    let folder = start_folder();
    for fault in FAULTS {
        let good = folder.read(fault.file);
        inject(&folder, fault.file, fault.from, fault.to, fault.marker);
        let reported = problems(&folder);
        assert_eq!(reported.len(), 1, "{}: {:?}: {reported:#?}", fault.file, fault.to);
        folder.write(fault.file, &good);
    }
}

/// Given many faults in every file, when the folder is checked, then all are reported, as text and as JSON. A start
/// reports the same problems and exits with the same code.
#[test]
fn all_problems_are_reported_at_once() {
    let folder = start_folder();
    let chosen: Vec<&Fault> = [
        "queues = [\"q9\"]",
        "members = [\"nobody\"]",
        "roles = [\"king\"]",
        "kind = \"fax\"",
        "extension = \"30a1\"",
        "view_queue_settings = false",
        "line = \"localhost\"",
        "store = \"tape\"",
        "evapi = [\"kamailio\"]",
    ]
    .iter()
    .map(|to| FAULTS.iter().find(|fault| fault.to == *to).expect(to))
    .collect();
    for fault in &chosen {
        inject(&folder, fault.file, fault.from, fault.to, fault.marker);
    }
    // A second file with an organization of the same name.
    folder.write("organizations/again.toml", "organization = \"acme\"\nmodel = \"goto\"\n");
    folder.write("organizations/broken.toml", "organization = \"broken\nmodel = \"goto\"\n");
    // Each marker occurs once in its file, and the positions are those in the changed files.
    let places = chosen.iter().map(|fault| folder.place(fault.file, fault.marker));
    let (status, text) = check(&folder);
    let reported = problems(&folder);
    assert_eq!(status, DOES_NOT_LOAD);
    for place in places {
        assert_eq!(
            reported.iter().filter(|problem| problem.starts_with(&format!("{place}: "))).count(),
            1,
            "{place}: {reported:#?}"
        );
    }
    assert!(reported.iter().any(|problem| problem.contains("broken.toml:1:")), "{reported:#?}");
    assert!(reported.iter().all(|problem| text.contains(problem.as_str())), "{text}\n{reported:#?}");
    let Err((status, output)) = Sidecar::try_start(folder.path()) else { panic!("the sidecar started") };
    assert_eq!(status.code(), Some(DOES_NOT_LOAD));
    assert!(reported.iter().all(|problem| output.contains(problem.as_str())), "{output}");
}

/// Given more problems than are listed, when the folder is checked, then the first hundred are reported and the others
/// counted; 250 problems of one kind are one, with the number of its places (FIELD E21).
#[test]
fn the_first_hundred_problems_are_reported_and_all_are_counted() {
    let folder = Folder::with(
        "acme.toml",
        &ORGANIZATION.replace("model = \"goto\"", "model = \"goto\"\nusers_csv = \"people.csv\""),
    );
    let header = "id,extension,roles,queues,supervises,edits";
    let rows: String = (0..250).map(|row| format!("x{row},{},king,,,\n", 5_000 + row)).collect();
    folder.write("organizations/people.csv", &format!("{header}\n{rows}"));
    let (status, text) = check(&folder);
    assert_eq!(status, DOES_NOT_LOAD);
    assert!(
        text.contains("people.csv:2:9: the model `goto` has no role `king` (also at 3:9, 4:9, 5:9 and 246 more"),
        "{text}"
    );
    assert!(text.contains("1 problem"), "{text}");
    let report = |folder: &Folder| -> Value {
        let (_, json) = run(&["check", "--json", "--config", folder.path().to_str().unwrap()]);
        serde_json::from_str::<Value>(&json).unwrap()["problems"].clone()
    };
    let king = report(&folder)["problems"][0].clone();
    assert_eq!((&king["further"], &king["also_at"][0]), (&json!(249), &json!({"line": 3, "column": 9})));

    // 250 files with a problem each.
    folder.remove("organizations/people.csv");
    for file in 0..250 {
        folder.write(&format!("organizations/x{file}.toml"), "organization = 7\nmodel = \"goto\"\n");
    }
    let problems = report(&folder);
    assert_eq!((problems["problems"].as_array().unwrap().len(), &problems["more"]), (100, &json!(151)));
    let (_, text) = check(&folder);
    assert!(text.contains("and 151 more") && text.contains("251 problems"), "{text}");
}

#[test]
fn two_organizations_of_one_name_do_not_load() {
    let folder = start_folder();
    folder.write("organizations/zebra.toml", "organization = \"acme\"\nmodel = \"goto\"\n");
    let place = folder.place("organizations/zebra.toml", "\"acme\"");
    let reported = problems(&folder);
    assert!(
        matches!(&reported[..], [only] if only.starts_with(&format!("{place}: ")) && only.contains("`acme`")),
        "{reported:?}"
    );
}

#[test]
fn a_syntax_error_is_reported_at_its_position() {
    for file in [PROCESS, ORGANIZATION_FILE, MODEL] {
        for (broken, line) in
            [("ok = 1\n= 2\n", 2), ("ok = 1\n\nok = 2\n", 3), ("[open\n", 1), ("text = \"never ends\n", 1)]
        {
            let folder = start_folder();
            folder.write(file, broken);
            let reported = problems(&folder);
            let start = format!("{}:{line}:", folder.path().join(file).display());
            assert!(reported.iter().any(|problem| problem.starts_with(&start)), "{broken:?}: {reported:?}");
        }
        // A file that is not UTF-8: the position is that of the first invalid byte.
        let folder = start_folder();
        fs::write(folder.path().join(file), b"# a comment\n# and \xff").unwrap();
        let reported = problems(&folder);
        let start = format!("{}:2:7: ", folder.path().join(file).display());
        assert!(
            reported.iter().any(|problem| problem.starts_with(&start) && problem.contains("UTF-8")),
            "{reported:?}"
        );
    }
}

#[test]
fn a_missing_file_is_reported() {
    for (file, without) in [(PROCESS, "queuewarden.toml"), (MODEL, "`goto`")] {
        let folder = start_folder();
        folder.remove(file);
        let reported = problems(&folder);
        assert!(reported.iter().any(|problem| problem.contains(without)), "{reported:?}");
    }
    for file in [PROCESS, ORGANIZATION_FILE, MODEL] {
        let folder = start_folder();
        folder.remove(file);
        fs::create_dir(folder.path().join(file)).unwrap();
        let reported = problems(&folder);
        let path = folder.path().join(file).display().to_string();
        assert!(reported.iter().any(|problem| problem.starts_with(&path)), "{reported:?}");
    }
    for missing in ["organizations", "models"] {
        let folder = start_folder();
        fs::remove_dir_all(folder.path().join(missing)).unwrap();
        let reported = problems(&folder);
        let path = folder.path().join(missing).display().to_string();
        assert!(reported.iter().any(|problem| problem.starts_with(&path)), "{reported:?}");
    }
    let empty = tempfile::tempdir().unwrap();
    for folder in [empty.path().to_owned(), empty.path().join("nowhere")] {
        let (status, text) = run(&["check", "--config", folder.to_str().unwrap()]);
        assert_eq!(status.code(), Some(DOES_NOT_LOAD), "{text}");
        for part in ["queuewarden.toml", "organizations", "models"] {
            assert!(text.contains(&folder.join(part).display().to_string()), "{part}: {text}");
        }
    }
}

/// Given a CSV file of users, when some of its rows are wrong, then each is reported with its line, and so are the
/// problems of the other files.
#[test]
fn problems_of_users_csv_are_reported_with_their_lines() {
    let folder = Folder::with(
        "acme.toml",
        &ORGANIZATION.replace("model = \"goto\"", "model = \"goto\"\nusers_csv = \"people.csv\""),
    );
    let header = "id,extension,roles,queues,supervises,edits";
    folder.write(
        "organizations/people.csv",
        &format!("{header}\nzoe,5001,agent supervisor,q0 601,q1,q1\nyan,5002,,,,\n"),
    );
    let (status, text) = check(&folder);
    assert!(status == LOADS && text.contains("users 15"), "{text}");
    let sidecar = Sidecar::start(&folder);
    assert_eq!(
        sidecar.ask("dial org=acme actor=5001 digits=*13"),
        "allow action=queue.login queues=600,601 reason=assigned policy=1"
    );
    let answer = sidecar.ask("do org=acme actor=zoe action=agent.login target=yan queue=601");
    assert_eq!(answer, "allow action=agent.login queue=601 reason=supervisor_login policy=1");
    drop(sidecar);

    let rows = [
        ("good,5001,agent,q0,,", None),
        ("bad id,5002,agent,q0,,", Some("`bad id`")),
        ("x1,50a2,agent,q0,,", Some("`50a2`")),
        ("x2,5003,king,q0,,", Some("`king`")),
        ("x3,5004,agent,q9,,", Some("`q9`")),
        ("x4,5005,agent,q0 q0,,", Some("twice")),
        ("x5,5006,supervisor,,q0 q8,", Some("`q8`")),
        ("x6,5007,supervisor,,q0,q1", Some("`q1`")),
        ("good,5008,,,,", Some("`good`")),
        ("x7,5001,,,,", Some("`5001`")),
        ("5001,5009,,,,", Some("`5001`")),
        ("x8,1001,,,,", Some("`1001`")),
        ("agent,5010,,,,", Some("`agent`")),
        ("x9,5011,agent,q0", Some("4")),
        ("x10,5012,agent,q0,,,", Some("7")),
        (",5013,,,,", Some("``")),
        ("fine,5014,,,,", None),
    ];
    let lines: Vec<&str> = rows.iter().map(|(row, _)| *row).collect();
    folder.write("organizations/people.csv", &format!("{header}\n{}\n", lines.join("\n")));
    folder.replace(ORGANIZATION_FILE, "kind = \"inbox\"", "kind = \"fax\"");
    let reported = problems(&folder);
    for (number, (row, message)) in rows.iter().enumerate() {
        let start = format!("{}:{}:", folder.path().join("organizations/people.csv").display(), number + 2);
        let row_problems: Vec<&String> = reported.iter().filter(|problem| problem.starts_with(&start)).collect();
        match message {
            None => assert!(row_problems.is_empty(), "{row}: {row_problems:?}"),
            Some(message) => {
                assert!(
                    matches!(row_problems[..], [only] if only.contains(message)),
                    "{row}: {row_problems:?} of {reported:#?}"
                );
            }
        }
    }
    assert!(reported.iter().any(|problem| problem.contains("`fax`")), "{reported:#?}");

    for (text, message) in [
        ("id,extension\nzoe,5001\n".to_owned(), "people.csv:1:1: "),
        (String::new(), "people.csv:1:1: "),
        (format!("{header}\n").to_uppercase(), "people.csv:1:1: "),
    ] {
        folder.write("organizations/people.csv", &text);
        assert!(problems(&folder).iter().any(|problem| problem.contains(message)), "{text:?}");
    }
    folder.remove("organizations/people.csv");
    assert!(problems(&folder).iter().any(|problem| problem.contains("people.csv cannot be read")));
}

/// FIELD D10: the CSV file says who is protected, and files that begin with a byte-order mark load, or name it.
#[test]
fn users_csv_has_protected_users_and_files_may_begin_with_a_byte_order_mark() {
    const MARK: &str = "\u{feff}";
    let folder = Folder::with(
        "acme.toml",
        &format!("{MARK}{}", ORGANIZATION.replace("model = \"goto\"", "model = \"goto\"\nusers_csv = \"people.csv\"")),
    );
    let people = "id,extension,roles,queues,supervises,edits,protected\nzoe,5001,agent,q0,,,true\nyan,5002,agent,q0,,,\n\
                  xia,5003,agent,q0,,,false\n";
    folder.write("organizations/people.csv", &format!("{MARK}{people}"));
    for file in ["models/goto.toml", PROCESS] {
        let text = folder.read(file);
        folder.write(file, &format!("{MARK}{text}"));
    }
    let (status, text) = check(&folder);
    assert_eq!(status, LOADS, "{text}");
    let sidecar = Sidecar::start(&folder);
    for (target, reason) in [("5001", "target_protected"), ("5002", "role_permits"), ("5003", "role_permits")] {
        let answer = sidecar.ask(&format!("may org=acme actor=2001 action=call.listen target={target} queue=600"));
        assert!(answer.contains(reason), "{target}: {answer}");
    }
    drop(sidecar);
    folder.write("organizations/people.csv", &people.replace(",true", ",yes"));
    let reported = problems(&folder);
    assert!(
        matches!(&reported[..], [only] if only.contains("people.csv:2:21: `protected` must be `true`, `false` or empty")),
        "{reported:#?}"
    );
    folder.write("organizations/people.csv", people);
    folder.write("token", &format!("{MARK}0123456789abcdef0123456789abcdef"));
    folder.replace(PROCESS, "[listen]\n", "[listen]\nline_token_file = \"token\"\n");
    let reported = problems(&folder);
    assert!(matches!(&reported[..], [only] if only.contains("begins with a byte-order mark")), "{reported:#?}");
}

#[test]
fn wrong_arguments_exit_with_the_usage_code() {
    for arguments in [
        &["check", "--colour"][..],
        &["dance"],
        &["check", "--config"],
        &["explain"],
        &["explain", "--org", "acme", "--actor", "1001"],
        &["explain", "--org", "acme", "dial", "*13"],
        &["explain", "--org", "acme", "--actor", "1001", "dial"],
    ] {
        assert_eq!(run(arguments).0.code(), Some(2), "{arguments:?}");
    }
    for arguments in [&["--help"][..], &["--version"], &["help", "explain"]] {
        let (status, text) = run(arguments);
        assert!(status.code() == Some(0) && !text.is_empty(), "{arguments:?}");
    }
}

/// FIELD E21: what follows from a broken element is no problem of its own, in lists, shifts, groups and rows of a CSV.
#[test]
fn one_mistake_is_one_problem() {
    let shift = |queue: &str| {
        format!(
            "\n[[shifts]]\nqueue = \"{queue}\"\ndays = [\"mon\"]\nfrom = \"08:00\"\nto = \"18:00\"\n\
             time_zone = \"UTC\"\n"
        )
    };
    let text = format!("{ORGANIZATION}{MORE}{}{}", shift("600"), shift("q0"));
    let broken: [(&str, &str, &[&str]); 6] = [
        ("number = \"600\"", "number = 600", &["`number` must be a string"]),
        ("id = \"q0\"\n", "id = \"q 0\"\n", &["`q 0` cannot be an id"]),
        ("id = \"q0\"\n", "", &["the key `id` is missing"]),
        ("extension = \"1001\"", "extension = 1001", &["`extension` must be a string"]),
        ("id = \"supervisor\"\n", "id = [\"supervisor\"]\n", &["`id` must be a string"]),
        // Two mistakes are two problems.
        ("queue = \"600\"", "queue = \"699\"", &["there is no queue `699`"]),
    ];
    for (from, to, expected) in broken {
        let folder = Folder::with("acme.toml", &text);
        let rows = "id,extension,roles,queues,supervises,edits\ncarl,1901,agent,600,,\ndora,1902,agent,q0,,\n";
        folder.write("organizations/users.csv", rows);
        folder.replace(
            ORGANIZATION_FILE,
            "organization = \"acme\"\n",
            "organization = \"acme\"\nusers_csv = \"users.csv\"\n",
        );
        assert_eq!(check(&folder).0, LOADS, "{}", check(&folder).1);
        folder.replace(ORGANIZATION_FILE, from, to);
        let found = problems(&folder);
        assert_eq!(found.len(), expected.len(), "{to}: {found:#?}");
        assert!(found.iter().zip(expected).all(|(found, expected)| found.contains(expected)), "{to}: {found:#?}");
    }
    // A row of a CSV that is broken, and a group that names its user.
    let folder = Folder::with("acme.toml", &text.replace("members = [\"agent\"]", "members = [\"agent\", \"carl\"]"));
    folder.write("organizations/users.csv", "id,extension,roles,queues,supervises,edits\ncarl,19x1,agent,600,,\n");
    folder.replace(
        ORGANIZATION_FILE,
        "organization = \"acme\"\n",
        "organization = \"acme\"\nusers_csv = \"users.csv\"\n",
    );
    let found = problems(&folder);
    assert!(found.len() == 1 && found[0].contains("`19x1` cannot be dialed"), "{found:#?}");
    let crowded = format!("{ORGANIZATION}{}", shift("600").repeat(65) + &shift("q0").repeat(3));
    let found = problems(&Folder::with("acme.toml", &crowded));
    assert!(found.len() == 1 && found[0].contains("more than 64 shifts"), "{found:#?}");
}

/// No value of a file controls the terminal of whoever reads a problem, begins a line or fills a page: `check`,
/// `explain`, the reload and the log.
#[test]
fn a_problem_escapes_the_values_that_it_shows() {
    let folder = Folder::with("acme.toml", ORGANIZATION);
    let sidecar = Sidecar::start(&folder);
    let long = "y".repeat(3_000);
    let hostile = ["\\u001b[2J\\u001b]0;x\\u0007", "a\\nacme.toml:1:1: forged", "\\u202e\\u009b31m", &long];
    let unknown: Vec<String> = hostile.iter().map(|value| format!("\"{value}\"")).collect();
    let text = ORGANIZATION.replace("queues = [\"q0\"]", &format!("queues = [{}]", unknown.join(", ")));
    let keyed = format!("\"k\\u001b[1m\" = 1\nmodel = \"g\\u0007\"\n{}", text.replace("model = \"goto\"\n", ""));
    for broken in [text, keyed] {
        folder.write(ORGANIZATION_FILE, &broken);
        let reload = sidecar.reload();
        assert_eq!(reload["successful"], false);
        let path = folder.path().to_str().unwrap();
        let question = ["--org", "acme", "--actor", "1001", "do", "queue.login"];
        let mut shown = vec![check(&folder).1, run(&["--config", path, "log"]).1];
        shown.push(run(&[&["--config", path, "explain"][..], &question].concat()).1);
        shown.extend(sidecar.log_until("configuration").into_iter().map(|line| line + "\n"));
        for text in &shown {
            let is_tame = |character: char| character == '\n' || !(character.is_control() || character == '\u{202e}');
            assert!(text.chars().all(is_tame), "{text:?}");
            assert!(!text.lines().any(|line| line.starts_with("acme.toml:1:1: forged")), "{text}");
            assert!(!text.contains(&long[..200]), "a value is cut: {text}");
        }
        assert!(shown[0].contains("problem") || shown[0].contains("there is no"), "{}", shown[0]);
    }
}
