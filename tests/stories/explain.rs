//! Given a question, when `queuewarden explain` explains it without a sidecar, then the verdict is that of a sidecar,
//! the rule is in the file at the named line, and the proposed changes turn a denial into an allow.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::stories::fixtures::{ORGANIZATION, by_line};
use crate::support::{Folder, Sidecar, run};

const FILE: &str = "organizations/acme.toml";

/// An organization that a test can edit and write as an organization file.
#[derive(Clone)]
struct EditableOrganization {
    organization: String,
    settings: BTreeMap<String, bool>,
    limits: BTreeMap<String, usize>,
    wrap_up_seconds: BTreeMap<String, usize>,
    people: Vec<Person>,
}

#[derive(Clone)]
struct Person {
    id: String,
    extension: String,
    roles: Vec<String>,
    queues: Vec<String>,
    supervises: Vec<String>,
    protected: bool,
}

const QUEUES: [(&str, &str); 3] = [("600", "call"), ("601", "ring_group"), ("602", "call")];

fn words(list: &str) -> Vec<String> {
    list.split_whitespace().map(str::to_owned).collect()
}

impl EditableOrganization {
    fn new() -> Self {
        let person = |id: &str, extension: &str, roles: &str, queues: &str, supervises: &str| Person {
            id: id.to_owned(),
            extension: extension.to_owned(),
            roles: words(roles),
            queues: words(queues),
            supervises: words(supervises),
            protected: false,
        };
        let mut people = vec![
            person("alice", "1001", "agent", "600", ""),
            person("paul", "3001", "", "", ""),
            person("petra", "3002", "", "600", ""),
            person("dana", "2001", "supervisor", "", "600"),
            person("dora", "2002", "supervisor", "", "601"),
            person("erin", "2005", "contact_admin", "", ""),
            person("guarded", "1004", "agent", "600", ""),
        ];
        people.last_mut().unwrap().protected = true;
        Self {
            organization: "acme".to_owned(),
            settings: BTreeMap::new(),
            limits: BTreeMap::new(),
            wrap_up_seconds: BTreeMap::new(),
            people,
        }
    }

    fn with_setting(mut self, setting: &str, on: bool) -> Self {
        self.settings.insert(setting.to_owned(), on);
        self
    }

    fn with_limit(mut self, limit: &str, most: usize) -> Self {
        self.limits.insert(limit.to_owned(), most);
        self
    }

    fn person(&mut self, id: &str) -> &mut Person {
        self.people
            .iter_mut()
            .find(|person| person.id == id || person.extension == id)
            .unwrap_or_else(|| panic!("no {id}"))
    }

    fn text(&self) -> String {
        let mut text = format!(
            "organization = \"{}\"\nmodel = \"goto\"\nfeature_code_preset = \"asterisk\"\n[settings]\n",
            self.organization
        );
        for (setting, on) in &self.settings {
            text += &format!("{setting} = {on}\n");
        }
        text += "[limits]\n";
        for (limit, most) in &self.limits {
            text += &format!("{limit} = {most}\n");
        }
        for (number, kind) in QUEUES {
            let wrap_up = self.wrap_up_seconds.get(number).unwrap_or(&0);
            text += &format!(
                "[[queues]]\nid = \"q{number}\"\nnumber = \"{number}\"\nkind = \"{kind}\"\nwrap_up_seconds = {wrap_up}\n"
            );
        }
        for Person { id, extension, roles, queues, supervises, protected } in &self.people {
            let list = |names: &[String]| {
                let ids = names
                    .iter()
                    .map(|name| if name.parse::<u32>().is_ok() { format!("q{name}") } else { name.clone() });
                format!("{:?}", ids.collect::<Vec<_>>())
            };
            text += &format!(
                "[[users]]\nid = \"{id}\"\nextension = \"{extension}\"\nroles = {}\nqueues = {}\nsupervises = {}\nprotected = {protected}\n",
                list(roles),
                list(queues),
                list(supervises)
            );
        }
        text
    }

    fn folder(&self) -> Folder {
        Folder::with("acme.toml", &self.text())
    }
}

/// A question, as `ACTOR REQUEST [KEY=VALUE…]`, and the queues where its subject is assumed to be logged in.
#[derive(Clone)]
struct Question {
    text: String,
    logged_in: Vec<String>,
}

impl Question {
    fn without(&self, key: &str) -> String {
        self.text.split(' ').filter(|word| !word.starts_with(&format!("{key}="))).collect::<Vec<_>>().join(" ")
    }

    fn set(&mut self, key: &str, value: &str) {
        self.text = format!("{} {key}={value}", self.without(key));
    }
}

/// The exit code of `explain` for the question, and its output.
fn explained(folder: &Folder, question: &Question, as_json: bool) -> (Option<i32>, String) {
    let words: Vec<&str> = question.text.split(' ').collect();
    let is_dialed = words[1].bytes().all(|byte| byte.is_ascii_digit() || byte == b'*');
    let mut arguments =
        vec!["explain", "--config", folder.path().to_str().unwrap(), "--org", "acme", "--actor", words[0]];
    for queue in &question.logged_in {
        arguments.extend(["--logged-in", queue]);
    }
    if as_json {
        arguments.push("--json");
    }
    arguments.push(if is_dialed { "dial" } else { "do" });
    arguments.extend(&words[1..]);
    let (status, text) = run(&arguments);
    (status.code(), text)
}

fn explain(folder: &Folder, question: &Question) -> Value {
    let (status, text) = explained(folder, question, true);
    assert_eq!(status, Some(0), "{}: {text}", question.text);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn changes(explanation: &Value) -> Vec<String> {
    explanation["change"].as_array().unwrap().iter().map(|change| change.as_str().unwrap().to_owned()).collect()
}

/// Carries out a proposed change. Uses nothing but its sentence, as an operator would.
fn carry_out(change: &str, organization: &mut EditableOrganization, question: &mut Question) {
    let quoted: Vec<&str> = change.split('`').skip(1).step_by(2).collect();
    let words: Vec<&str> = change.split(' ').collect();
    match words[..] {
        ["give", user, "the", "role", ..] => organization.person(user).roles.push(quoted[0].to_owned()),
        ["take", "the", "role", _, "from", user] => {
            organization.person(user).roles.retain(|role| role != quoted[0]);
        }
        ["ask", "by", "phone"] => question.text = question.without("via"),
        ["set", _, "=", _, "in", "the", "settings", "of", "organization", _] => {
            let (setting, on) = quoted[0].split_once(" = ").unwrap();
            organization.settings.insert(setting.to_owned(), on == "true");
        }
        ["set", "protected", "=", "false", "for", user] => organization.person(user).protected = false,
        ["set", "`wrap_up_seconds", "=", _, "for", "queue", queue] => {
            organization.wrap_up_seconds.insert(queue.to_owned(), 30);
        }
        ["add", "queue", queue, "to", "the", "queues", "of", user] => {
            assert!(QUEUES.iter().any(|(number, _)| *number == queue), "{change:?} names no queue");
            organization.person(user).queues.push(queue.to_owned());
        }
        ["add", "queue", queue, "to", "what", user, "supervises"] => {
            assert!(QUEUES.iter().any(|(number, _)| *number == queue), "{change:?} names no queue");
            organization.person(user).supervises.push(queue.to_owned());
        }
        ["name", _, "in", "the", "event"] => {
            let (key, value) = quoted[0].split_once('=').unwrap();
            question.set(key, value);
        }
        ["log", _, "in", "to", "queue", queue, "first"] => question.logged_in.push(queue.to_owned()),
        ["raise", _, "to", most] => {
            let old = organization.limits.insert(quoted[0].to_owned(), most.parse().unwrap());
            assert!(old.is_some_and(|old| old < most.parse().unwrap()), "{change:?}");
        }
        ["add", "the", "user", _, "to", "organization", "`acme`"] => {
            let extension = if quoted[0].parse::<u32>().is_ok() { quoted[0] } else { "9998" };
            let id = if extension == quoted[0] { format!("new-{extension}") } else { quoted[0].to_owned() };
            organization.people.push(Person {
                id,
                extension: extension.to_owned(),
                roles: vec![],
                queues: vec![],
                supervises: vec![],
                protected: false,
            });
        }
        _ => panic!("{change:?} is not a change that can be carried out"),
    }
}

/// Denials: reason, organization, question, and the queues of the assumed login sessions.
fn denials() -> Vec<(&'static str, EditableOrganization, &'static str, &'static str)> {
    let organization = EditableOrganization::new;
    vec![
        ("unassigned_barred", organization(), "alice *13601", ""),
        ("unassigned_barred", organization(), "3001 queue.login queue=602", ""),
        ("agent_role_required", organization(), "petra queue.login queue=600 via=dashboard", ""),
        ("agent_role_required", organization(), "paul queue.login queue=601 via=dashboard", ""),
        ("agent_role_required", organization(), "petra queue.pause queue=600 via=dashboard", "600"),
        ("agent_role_required", organization(), "paul call.outbound", ""),
        ("supervisor_role_required", organization(), "alice agent.login target=paul queue=602", ""),
        ("supervisor_role_required", organization(), "alice *2213001 queue=601", ""),
        ("permission_off", organization(), "erin agent.login target=paul queue=600", ""),
        ("permission_off", organization(), "erin call.barge target=alice queue=600", ""),
        ("permission_off", organization(), "dana portal.open", ""),
        ("permission_off", organization(), "dana queue.settings.edit queue=601", ""),
        ("permission_off", organization(), "alice disposition.set queue=600", ""),
        (
            "wrapup_not_configured",
            organization().with_setting("agent.enable_dispositions", true),
            "alice disposition.set queue=600",
            "",
        ),
        ("role_forbids", organization(), "dana permissions.edit", ""),
        ("role_forbids", organization(), "alice report.view queue=600", ""),
        ("queue_out_of_scope", organization(), "dana agent.login target=paul queue=601", ""),
        ("queue_out_of_scope", organization(), "dora call.whisper target=alice queue=600", ""),
        ("queue_out_of_scope", organization(), "dora agent.logout target=alice queue=600", "600"),
        ("no_queue_context", organization(), "dana call.listen target=alice", ""),
        (
            "no_queue_context",
            organization().with_setting("supervisor.supervise_outside_queues", true),
            "dana call.listen target=paul",
            "",
        ),
        ("target_protected", organization(), "dana call.barge target=guarded queue=600", ""),
        ("target_protected", organization(), "dana call.barge target=dora queue=600", ""),
        ("not_logged_in", organization(), "alice *14600", ""),
        ("not_logged_in", organization(), "alice *14", ""),
        ("not_logged_in", organization(), "dana agent.pause target=alice queue=600", ""),
        ("user_logins_at_limit", organization().with_limit("logins_per_user_max", 1), "alice *13600", "601"),
        ("organization_logins_at_limit", organization().with_limit("logins_max", 1), "petra *13600", "601"),
        ("missing_attribute", organization(), "dana agent.login", ""),
        ("unknown_call", organization(), "dana call.listen call=c-7 queue=600", ""),
        ("no_assigned_queue", organization().with_setting("allow_unassigned_login", true), "paul *13", ""),
    ]
}

/// Given a denial, when every change that its explanation proposes is carried out, then the answer is allow; if one of
/// the changes is left out, the answer is still deny.
#[test]
fn the_proposed_change_turns_the_denial() {
    for (reason, organization, text, logged_in) in denials() {
        let question = Question { text: text.to_owned(), logged_in: words(logged_in) };
        let explanation = explain(&organization.folder(), &question);
        assert_eq!(
            (&explanation["verdict"], &explanation["reason"]),
            (&json!("deny"), &json!(reason)),
            "{text}: {explanation}"
        );
        let changes = changes(&explanation);
        assert!(!changes.is_empty(), "{text}: {explanation}");
        let after = |carried_out: &[String]| {
            let (mut organization, mut question) = (organization.clone(), question.clone());
            for change in carried_out {
                carry_out(change, &mut organization, &mut question);
            }
            explain(&organization.folder(), &question)
        };
        let turned = after(&changes);
        assert_eq!(turned["verdict"], "allow", "{text}: {changes:?} gives {turned}");
        assert_eq!((&turned["change"], &turned["no_change"]), (&json!([]), &Value::Null));
        for left_out in 0..changes.len() {
            let mut fewer = changes.clone();
            fewer.remove(left_out);
            assert_eq!(after(&fewer)["verdict"], "deny", "{text}: {:?} was not needed", changes[left_out]);
        }
    }
}

/// Given a user without a queue, in an organization that bars unassigned logins, when the user dials the login code
/// without a queue, then the proposed change is to assign a queue: the setting `allow_unassigned_login` would not help.
#[test]
fn the_proposed_change_for_a_user_without_a_queue_is_a_queue() {
    let (mut organization, mut question) =
        (EditableOrganization::new(), Question { text: "paul *13".to_owned(), logged_in: vec![] });
    let explanation = explain(&organization.folder(), &question);
    assert_eq!(explanation["reason"], "no_assigned_queue");
    for change in changes(&explanation) {
        carry_out(&change, &mut organization, &mut question);
    }
    let turned = explain(&organization.folder(), &question);
    assert_eq!(turned["verdict"], "allow", "{} gives {turned}", explanation["change"]);
}

/// Given a denial that hides a second denial, when it is explained, then the proposed changes turn both.
#[test]
fn the_proposed_change_is_complete_when_one_denial_hides_another() {
    let mut not_enough = vec![];
    for text in [
        "dora agent.logout target=alice queue=600",
        "petra queue.pause queue=600 via=dashboard",
        "alice agent.pause target=petra queue=600",
    ] {
        let (mut organization, mut question) =
            (EditableOrganization::new(), Question { text: text.to_owned(), logged_in: vec![] });
        let explanation = explain(&organization.folder(), &question);
        assert_eq!(explanation["verdict"], "deny");
        for change in changes(&explanation) {
            carry_out(&change, &mut organization, &mut question);
        }
        let turned = explain(&organization.folder(), &question);
        if turned["verdict"] != "allow" {
            not_enough.push(format!("{text}: {} gives {}", explanation["change"], turned["reason"]));
        }
    }
    assert!(not_enough.is_empty(), "{not_enough:#?}");
}

/// Given an unknown name in a question, when it is explained, then the first change, or the reason why there is none,
/// has the name as the question spells it.
#[test]
fn the_explanation_names_the_unknown_name() {
    let folder = EditableOrganization::new().folder();
    for (text, reason, name) in [
        ("nobody *13600", "unknown_user", "`nobody`"),
        ("dana agent.login target=ghost queue=600", "unknown_target", "`ghost`"),
        ("dana *2219999 queue=600", "unknown_target", "`9999`"),
        ("alice queue.dance", "unknown_action", "goto.toml"),
        ("alice *99", "unknown_feature_code", "`acme`"),
    ] {
        let explanation = explain(&folder, &Question { text: text.to_owned(), logged_in: vec![] });
        assert_eq!(explanation["reason"], reason, "{text}");
        let first = changes(&explanation).into_iter().next();
        let first = first.or(explanation["no_change"].as_str().map(str::to_owned)).unwrap();
        assert!(first.contains(name), "{text}: {explanation}");
    }
}

/// FIELD E20: given a denial that no change of the configuration turns, when it is explained, then no change is
/// proposed and the explanation says why.
#[test]
fn an_explanation_without_a_change_says_why() {
    let folder = EditableOrganization::new().with_setting("agent.enable_dispositions", true).folder();
    for (text, reason, why) in [
        ("dana agent.login target=dana queue=600", "self_target", "dana is the target too"),
        ("alice disposition.set queue=601", "wrong_kind", "queues of kind call only"),
        ("alice *99", "unknown_feature_code", "no feature code"),
        ("alice queue.dance", "unknown_action", "has no such action"),
        // `*17{target}*{queue}` with the queue first.
        ("dana *17600*1001", "unknown_queue", "`600` is a queue and `1001` an extension"),
    ] {
        let explanation = explain(&folder, &Question { text: text.to_owned(), logged_in: vec![] });
        assert_eq!((&explanation["reason"], &explanation["change"]), (&json!(reason), &json!([])), "{text}");
        assert!(explanation["no_change"].as_str().unwrap().contains(why), "{text}: {explanation}");
    }
}

/// FIELD E19: of several changes that turn a denial, the one that gives the fewest other rights is proposed.
#[test]
fn the_smallest_change_gives_the_fewest_other_rights() {
    let folder = EditableOrganization::new().folder();
    for (text, expected) in [
        // A role that supervises, or the setting that opens every queue, would give far more.
        ("dana agent.login target=paul queue=601", "add queue 601 to what dana supervises"),
        ("dora call.whisper target=alice queue=600", "add queue 600 to what dora supervises"),
        // The organization's setting would open every queue to everybody.
        ("alice *13601", "add queue 601 to the queues of alice"),
        // A setting that the model has for exactly this denial comes before a role, and nobody loses one.
        (
            "dana call.listen target=dora queue=600",
            "set `supervisor.supervise_peers = true` in the settings of organization `acme`",
        ),
        ("alice call.watch target=petra", "set `watch_colleagues = true` in the settings of organization `acme`"),
        ("dana call.listen target=guarded queue=600", "set protected = false for guarded"),
    ] {
        let explanation = explain(&folder, &Question { text: text.to_owned(), logged_in: vec![] });
        assert_eq!(changes(&explanation), [expected], "{text}");
    }
}

/// A report of the PBX is explained as every question is; offline no call runs.
#[test]
fn a_report_of_the_pbx_is_explained() {
    let folder = EditableOrganization::new().folder();
    let running = "`queuewarden ask --explain` asks the running sidecar";
    for (text, reason, why) in [
        ("alice call.begin call=c-1 queue=600", "reported", None),
        ("alice call.begin", "missing_attribute", Some("the key `call`")),
        ("ghost call.begin call=c-1", "unknown_user", Some("correct the name")),
        ("alice call.end call=c-1", "unknown_call", Some(running)),
        ("alice call.transfer call=c-1 target=1002", "unknown_target", Some("correct the name")),
        ("alice call.transfer call=c-1 target=petra", "unknown_call", Some(running)),
        ("dana supervision.end", "not_supervising", Some(running)),
    ] {
        let explanation = explain(&folder, &Question { text: text.to_owned(), logged_in: vec![] });
        assert_eq!(explanation["reason"], reason, "{text}: {explanation}");
        let given = explanation["no_change"].as_str();
        assert_eq!(given.is_some(), why.is_some(), "{text}: {explanation}");
        assert!(why.is_none_or(|why| given.unwrap().contains(why)), "{text}: {explanation}");
    }
}

/// Given an explanation with a rule, when that line of that file is read, then the line begins the grant, which has the
/// same rules and the same action.
#[test]
fn the_explanation_names_the_line_of_the_grant() {
    let allowed = [
        ("alice *13600", "", "assigned"),
        ("alice queue.login queue=600 via=dashboard", "", "assigned"),
        ("alice *13601", "601", "already_logged_in"),
        ("petra *14600", "600", "logged_out"),
        ("alice *13", "", "assigned"),
        ("dana agent.login target=paul queue=600", "", "supervisor_login"),
        ("dana agent.logout target=alice queue=600", "600", "supervisor_logout"),
        ("dana call.whisper target=alice queue=600", "", "role_permits"),
        ("alice call.outbound", "", "role_permits"),
        ("erin permissions.view", "", "role_permits"),
    ];
    let allowed = allowed.map(|(text, logged_in, reason)| (reason, EditableOrganization::new(), text, logged_in));
    let mut cited = 0;
    for (reason, organization, text, logged_in) in allowed.into_iter().chain(denials()) {
        let folder = organization.folder();
        let explanation = explain(&folder, &Question { text: text.to_owned(), logged_in: words(logged_in) });
        assert_eq!(explanation["reason"], reason, "{text}: {explanation}");
        let Value::Object(rule) = &explanation["rule"] else {
            assert_eq!(explanation["verdict"], "deny", "{text}: an allow has a rule");
            continue;
        };
        assert_eq!(rule["file"], folder.path().join("models/goto.toml").to_str().unwrap());
        let model = folder.read("models/goto.toml");
        let from = usize::try_from(rule["line"].as_u64().unwrap()).unwrap() - 1;
        let block: Vec<&str> = model
            .lines()
            .skip(from)
            .enumerate()
            .take_while(|(at, line)| *at == 0 || !line.starts_with("[["))
            .map(|(_, line)| line)
            .collect();
        assert_eq!(block[0], "[[grants]]", "{text}: line {}", from + 1);
        let rules: Vec<String> = rule["rules"].as_array().unwrap().iter().map(Value::to_string).collect();
        let block = block.join("\n");
        assert!(block.contains(&format!("rules = [{}]", rules.join(", "))), "{text}: {rules:?} is not in {block}");
        let action = explanation["action"].as_str().unwrap();
        assert!(block.contains(&format!("\"{action}\"")), "{text}: {action} is not in {block}");
        if explanation["verdict"] == "allow" && ["assigned", "supervisor_login", "supervisor_logout"].contains(&reason)
        {
            assert!(block.contains(&format!("reason = \"{reason}\"")), "{text}: {block}");
        }
        cited += 1;
    }
    assert!(cited > 30, "{cited}");
}

/// Given a question, when a sidecar answers and `explain` explains it, then verdict, reason, action and queues agree.
#[test]
fn explain_and_the_server_give_the_same_verdict() {
    let folder = Folder::with("acme.toml", ORGANIZATION);
    let sidecar = Sidecar::start(&folder);
    let mut line = sidecar.line();
    for text in [
        "1001 *13601",
        "3002 queue.login queue=600 via=dashboard",
        "3001 *13",
        "1001 agent.login target=3001 queue=600",
        "2005 call.barge target=1001 queue=600",
        "2001 call.listen target=1001 queue=600",
        "2001 call.listen target=1001",
        "2001 call.listen target=2002 queue=600",
        "2001 *2211001 queue=601",
        "1001 *14",
        "1001 *45601",
        "9999 *13600",
        "1001 *99",
        "1001 no.action",
        "1001 *13600 queue=600",
        "1003 *13",
    ] {
        let explanation = explain(&folder, &Question { text: text.to_owned(), logged_in: vec![] });
        let queues: Vec<&str> =
            explanation["queues"].as_array().unwrap().iter().map(|queue| queue.as_str().unwrap()).collect();
        let words = [explanation["verdict"].as_str(), explanation["reason"].as_str(), explanation["action"].as_str()];
        let mut explained: Vec<&str> = words.into_iter().flatten().collect();
        let queues = queues.join(",");
        if !queues.is_empty() {
            explained.push(&queues);
        }
        let answer = by_line(&mut line, "acme", text);
        assert_eq!(explained.join(" "), answer.replace("duplicate_key queue", "duplicate_key"), "{text}");
    }
}

#[test]
fn the_text_has_verdict_rule_facts_and_change() {
    let folder = EditableOrganization::new().folder();
    let question = |text: &str| Question { text: text.to_owned(), logged_in: vec![] };
    let (status, text) = explained(&folder, &question("dana call.whisper target=alice queue=601"), false);
    assert_eq!(status, Some(0), "a denial exits with 0");
    let explanation = explain(&folder, &question("dana call.whisper target=alice queue=601"));
    let rule = format!("{}:{}", explanation["rule"]["file"].as_str().unwrap(), explanation["rule"]["line"]);
    for part in
        ["deny queue_out_of_scope: ", "call.whisper", "601", &rule, "R37", "add queue 601 to what dana supervises"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    let facts: BTreeMap<&str, &str> = explanation["facts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| (entry["fact"].as_str().unwrap(), entry["value"].as_str().unwrap()))
        .collect();
    for (fact, value) in [
        ("actor", "2001 (dana)"),
        ("actor.roles", "supervisor"),
        ("target", "1001 (alice)"),
        ("target.roles", "agent"),
        ("queue.supervised", "false"),
        ("settings.supervisor.limit_to_assigned_queues", "true"),
    ] {
        assert_eq!(facts.get(fact), Some(&value), "{fact}: {explanation}");
        assert!(text.lines().any(|line| line.contains(&format!("{fact} = {value}"))), "{fact}: {text}");
    }
    let (_, text) = explained(&folder, &question("alice *13600"), false);
    assert!(text.starts_with("allow assigned: ") && text.contains("rule") && !text.contains("change"), "{text}");
}

/// Given a malformed question, when it is explained, then the exit code is 1; with a broken configuration it is 78.
#[test]
fn an_unexplainable_question_has_an_exit_code_of_its_own() {
    let folder = EditableOrganization::new().folder();
    let question = |text: &str, logged_in: &str| Question { text: text.to_owned(), logged_in: words(logged_in) };
    let cases = [
        (question("alice queue.login queue=6/0", ""), "malformed"),
        (question("alice queue.login colour=red", ""), "unknown_key"),
        (question("alice queue.login queue=600 queue=601", ""), "duplicate_key"),
        (question("alice *13600", "999"), "999"),
    ];
    for (question, message) in &cases {
        let (status, text) = explained(&folder, question, false);
        assert!(status == Some(1) && text.contains(message), "{}: {status:?} {text}", question.text);
    }
    let good = question("alice *13600", "");
    folder.replace(FILE, "kind = \"ring_group\"", "kind = \"fax\"");
    let place = folder.place(FILE, "\"fax\"");
    let (status, text) = explained(&folder, &good, false);
    assert!(status == Some(78) && text.contains(&place), "{status:?} {text}");
}

/// Given `--json`, when a question cannot be explained, then the output is JSON too: scripts parse it.
#[test]
fn with_json_every_output_is_json() {
    let folder = EditableOrganization::new().folder();
    let question = |text: &str, logged_in: &str| Question { text: text.to_owned(), logged_in: words(logged_in) };
    let mut not_json = vec![];
    let mut expect_json = |folder: &Folder, question: &Question, code: i32| {
        let (status, text) = explained(folder, question, true);
        assert_eq!(status, Some(code), "{text}");
        if serde_json::from_str::<Value>(&text).is_err() {
            not_json.push(text);
        }
    };
    expect_json(&folder, &question("alice *13600", ""), 0);
    expect_json(&folder, &question("alice queue.login queue=6/0", ""), 1);
    expect_json(&folder, &question("alice *13600", "999"), 1);
    folder.replace(FILE, "kind = \"ring_group\"", "kind = \"fax\"");
    expect_json(&folder, &question("alice *13600", ""), 78);
    assert!(not_json.is_empty(), "{not_json:#?}");
}
