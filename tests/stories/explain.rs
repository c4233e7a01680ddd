//! Given a question and its answer, when the question is explained offline, then the verdict is the server's, the rule
//! is at the line that is named, and the change that is proposed turns the denial.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::stories::fixtures::{ORGANIZATION, by_line};
use crate::support::{Folder, Sidecar, run};

const FILE: &str = "organizations/acme.toml";

/// An organization that changes can be made to.
#[derive(Clone)]
struct PhoneBook {
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

impl PhoneBook {
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

    fn with_wrap_up(mut self, queue: &str) -> Self {
        self.wrap_up_seconds.insert(queue.to_owned(), 30);
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

/// A question, as `ACTOR WHAT [KEY=VALUE…]`, and where its subject is assumed to be logged in.
#[derive(Clone)]
struct Question {
    text: String,
    logged_in: Vec<String>,
}

impl Question {
    fn keys(&self) -> impl Iterator<Item = (&str, &str)> {
        self.text.split(' ').skip(2).map(|pair| pair.split_once('=').expect("a pair"))
    }

    fn without(&self, key: &str) -> String {
        self.text.split(' ').filter(|word| !word.starts_with(&format!("{key}="))).collect::<Vec<_>>().join(" ")
    }

    fn set(&mut self, key: &str, value: &str) {
        self.text = format!("{} {key}={value}", self.without(key));
    }
}

/// What `explain` prints for the question, with its exit status.
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

/// Carries a change out as an operator would who has nothing but the sentence.
fn carry_out(change: &str, book: &mut PhoneBook, question: &mut Question) {
    let quoted: Vec<&str> = change.split('`').skip(1).step_by(2).collect();
    let words: Vec<&str> = change.split(' ').collect();
    match words[..] {
        ["give", user, "the", "role", ..] => book.person(user).roles.push(quoted[0].to_owned()),
        ["take", "the", "supervising", "role", "from", user] => {
            book.person(user).roles.retain(|role| role != "supervisor");
        }
        ["ask", "by", "phone"] => question.text = question.without("via"),
        ["set", _, "=", _, "in", "the", "settings", "of", "organization", _] => {
            let (setting, on) = quoted[0].split_once(" = ").unwrap();
            book.settings.insert(setting.to_owned(), on == "true");
        }
        ["set", "protected", "=", "false", "for", user] => book.person(user).protected = false,
        ["set", "wrap_up_seconds", "for", "queue", queue] => drop(book.wrap_up_seconds.insert(queue.to_owned(), 30)),
        ["add", "queue", queue, "to", "the", "queues", "of", user] => {
            assert!(QUEUES.iter().any(|(number, _)| *number == queue), "{change:?} names no queue");
            book.person(user).queues.push(queue.to_owned());
        }
        ["add", "queue", queue, "to", "what", user, "supervises"] => {
            assert!(QUEUES.iter().any(|(number, _)| *number == queue), "{change:?} names no queue");
            book.person(user).supervises.push(queue.to_owned());
        }
        ["add", "a", "queue", "to", "the", "queues", "of", user] => book.person(user).queues.push("602".to_owned()),
        ["assign", target, "to", "a", "queue", "that", actor, "supervises"] => {
            let queue = book.person(actor).supervises[0].clone();
            book.person(target).queues.push(queue);
        }
        ["name", "the", "queue", ..] | ["ask", "about", "a", "queue", "of", "another", "kind"] => {
            question.set("queue", "600");
        }
        ["name", "the", "target", ..] => question.set("target", "alice"),
        ["name", "all", "that", "the", "action", "needs:", ..] => {
            for key in change.split(": ").nth(1).unwrap().split(", ") {
                let is_given = question.keys().any(|(given, _)| given == key);
                if !is_given {
                    question.set(key, if key == "target" { "alice" } else { "600" });
                }
            }
        }
        ["log", "the", "user", "in", "first:", ..] => {
            let queue = question.keys().find(|(key, _)| *key == "queue").map_or("600", |(_, queue)| queue).to_owned();
            question.logged_in.push(queue);
        }
        ["raise", ..] => *book.limits.get_mut(quoted[0]).unwrap() += 1,
        ["add", "the", "user", _, "to", "organization", "`acme`"] => {
            let extension = if quoted[0].parse::<u32>().is_ok() { quoted[0] } else { "9998" };
            let id = if extension == quoted[0] { "newcomer" } else { quoted[0] };
            book.people.push(Person {
                id: id.to_owned(),
                extension: extension.to_owned(),
                roles: vec![],
                queues: vec![],
                supervises: vec![],
                protected: false,
            });
        }
        _ => panic!("nobody could carry out {change:?}"),
    }
}

/// Denials, with the organization and the assumed sessions that lead to them.
fn denials() -> Vec<(&'static str, PhoneBook, &'static str, &'static str)> {
    let book = PhoneBook::new;
    vec![
        ("unassigned_barred", book(), "alice *13601", ""),
        ("unassigned_barred", book(), "3001 queue.login queue=602", ""),
        ("agent_role_required", book(), "petra queue.login queue=600 via=dashboard", ""),
        ("agent_role_required", book(), "paul queue.login queue=601 via=dashboard", ""),
        ("agent_role_required", book(), "petra queue.pause queue=600 via=dashboard", "600"),
        ("agent_role_required", book(), "paul call.outbound", ""),
        ("supervisor_role_required", book(), "alice agent.login target=paul queue=602", ""),
        ("supervisor_role_required", book(), "alice *2213001 queue=601", ""),
        ("permission_off", book(), "erin agent.login target=paul queue=600", ""),
        ("permission_off", book(), "erin call.barge target=alice queue=600", ""),
        ("permission_off", book(), "dana portal.open", ""),
        ("permission_off", book(), "dana queue.settings.edit queue=601", ""),
        ("permission_off", book(), "alice disposition.set queue=600", ""),
        (
            "wrapup_not_configured",
            book().with_setting("agent.enable_dispositions", true),
            "alice disposition.set queue=600",
            "",
        ),
        (
            "wrong_kind",
            book().with_setting("agent.enable_dispositions", true).with_wrap_up("600"),
            "alice disposition.set queue=601",
            "",
        ),
        ("role_forbids", book(), "dana permissions.edit", ""),
        ("role_forbids", book(), "alice report.view queue=600", ""),
        ("queue_out_of_scope", book(), "dana agent.login target=paul queue=601", ""),
        ("queue_out_of_scope", book(), "dora call.whisper target=alice queue=600", ""),
        ("queue_out_of_scope", book(), "dora agent.logout target=alice queue=600", "600"),
        ("no_queue_context", book(), "dana call.listen target=alice", ""),
        (
            "no_queue_context",
            book().with_setting("supervisor.supervise_outside_queues", true),
            "dana call.listen target=paul",
            "",
        ),
        ("target_protected", book(), "dana call.barge target=guarded queue=600", ""),
        ("target_protected", book(), "dana call.barge target=dora queue=600", ""),
        ("not_logged_in", book(), "alice *14600", ""),
        ("not_logged_in", book(), "alice *14", ""),
        ("not_logged_in", book(), "dana agent.pause target=alice queue=600", ""),
        ("user_logins_at_limit", book().with_limit("logins_per_user_max", 1), "alice *13600", "601"),
        ("organization_logins_at_limit", book().with_limit("logins_max", 1), "petra *13600", "601"),
        ("missing_attribute", book(), "dana agent.login", ""),
        ("unknown_call", book(), "dana call.listen call=c-7 queue=600", ""),
        ("no_assigned_queue", book().with_setting("allow_unassigned_login", true), "paul *13", ""),
    ]
}

/// Given a denial, when all that its explanation names is carried out, and nothing else, then the answer is allow; and
/// every part of it was needed.
#[test]
fn the_proposed_change_turns_the_denial() {
    for (reason, book, text, logged_in) in denials() {
        let question = Question { text: text.to_owned(), logged_in: words(logged_in) };
        let told = explain(&book.folder(), &question);
        assert_eq!((&told["verdict"], &told["reason"]), (&json!("deny"), &json!(reason)), "{text}: {told}");
        let changes = changes(&told);
        assert!(!changes.is_empty(), "{text}: {told}");
        let after = |carried_out: &[String]| {
            let (mut book, mut question) = (book.clone(), question.clone());
            for change in carried_out {
                carry_out(change, &mut book, &mut question);
            }
            explain(&book.folder(), &question)
        };
        let turned = after(&changes);
        assert_eq!(turned["verdict"], "allow", "{text}: {changes:?} gives {turned}");
        assert_eq!(turned["change"], json!([]));
        for left_out in 0..changes.len() {
            let mut fewer = changes.clone();
            fewer.remove(left_out);
            assert_eq!(after(&fewer)["verdict"], "deny", "{text}: {:?} was not needed", changes[left_out]);
        }
    }
}

/// Given somebody who serves no queue, in an organization that bars unassigned logins, when they log in to all of their
/// queues, then the remedy is a queue: turning the setting on would leave them with none.
#[test]
fn the_proposed_change_for_a_user_without_a_queue_is_a_queue() {
    let (mut book, mut question) = (PhoneBook::new(), Question { text: "paul *13".to_owned(), logged_in: vec![] });
    let told = explain(&book.folder(), &question);
    assert_eq!(told["reason"], "no_assigned_queue");
    for change in changes(&told) {
        carry_out(&change, &mut book, &mut question);
    }
    let turned = explain(&book.folder(), &question);
    assert_eq!(turned["verdict"], "allow", "{} gives {turned}", told["change"]);
}

/// Given a denial with another one behind it, when it is explained, then what is named is enough to turn the answer.
#[test]
fn the_proposed_change_is_complete_when_one_denial_hides_another() {
    let mut not_enough = vec![];
    for text in [
        "dora agent.logout target=alice queue=600",
        "petra queue.pause queue=600 via=dashboard",
        "alice agent.pause target=petra queue=600",
    ] {
        let (mut book, mut question) = (PhoneBook::new(), Question { text: text.to_owned(), logged_in: vec![] });
        let told = explain(&book.folder(), &question);
        assert_eq!(told["verdict"], "deny");
        for change in changes(&told) {
            carry_out(&change, &mut book, &mut question);
        }
        let turned = explain(&book.folder(), &question);
        if turned["verdict"] != "allow" {
            not_enough.push(format!("{text}: {} gives {}", told["change"], turned["reason"]));
        }
    }
    assert!(not_enough.is_empty(), "{not_enough:#?}");
}

/// Given names that nobody knows, when they are explained, then the change says which name to add, as it was asked for.
#[test]
fn the_explanation_names_the_unknown_name() {
    let folder = PhoneBook::new().folder();
    for (text, reason, name) in [
        ("nobody *13600", "unknown_user", "`nobody`"),
        ("dana agent.login target=ghost queue=600", "unknown_target", "`ghost`"),
        ("dana *2219999 queue=600", "unknown_target", "`9999`"),
        ("alice queue.dance", "unknown_action", "goto.toml"),
        ("alice *99", "unknown_feature_code", "`acme`"),
    ] {
        let told = explain(&folder, &Question { text: text.to_owned(), logged_in: vec![] });
        assert_eq!(told["reason"], reason, "{text}");
        assert!(matches!(&changes(&told)[..], [only] if only.contains(name)), "{text}: {told}");
    }
    // What no operator can change is not pretended to be changeable.
    let told =
        explain(&folder, &Question { text: "dana agent.login target=dana queue=600".to_owned(), logged_in: vec![] });
    assert_eq!((&told["reason"], &told["change"]), (&json!("self_target"), &json!([])));
}

/// Given an explanation, when its rule is looked up, then there stands the grant: at that line of that file, with
/// those rules, for that action.
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
    let allowed = allowed.map(|(text, logged_in, reason)| (reason, PhoneBook::new(), text, logged_in));
    let mut cited = 0;
    for (reason, book, text, logged_in) in allowed.into_iter().chain(denials()) {
        let folder = book.folder();
        let told = explain(&folder, &Question { text: text.to_owned(), logged_in: words(logged_in) });
        assert_eq!(told["reason"], reason, "{text}: {told}");
        let Value::Object(rule) = &told["rule"] else {
            assert_eq!(told["verdict"], "deny", "{text}: what is allowed is allowed by a rule");
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
        let action = told["action"].as_str().unwrap();
        assert!(block.contains(&format!("\"{action}\"")), "{text}: {action} is not in {block}");
        if told["verdict"] == "allow" && ["assigned", "supervisor_login", "supervisor_logout"].contains(&reason) {
            assert!(block.contains(&format!("reason = \"{reason}\"")), "{text}: {block}");
        }
        cited += 1;
    }
    assert!(cited > 30, "{cited}");
}

/// Given a question, when the server is asked and when it is explained, then both say the same of it.
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
        let told = explain(&folder, &Question { text: text.to_owned(), logged_in: vec![] });
        let queues: Vec<&str> =
            told["queues"].as_array().unwrap().iter().map(|queue| queue.as_str().unwrap()).collect();
        let words = [told["verdict"].as_str(), told["reason"].as_str(), told["action"].as_str()];
        let mut said: Vec<&str> = words.into_iter().flatten().collect();
        let queues = queues.join(",");
        if !queues.is_empty() {
            said.push(&queues);
        }
        let heard = by_line(&mut line, "acme", text);
        assert_eq!(said.join(" "), heard.replace("duplicate_key queue", "duplicate_key"), "{text}");
    }
}

#[test]
fn the_text_has_verdict_rule_facts_and_change() {
    let folder = PhoneBook::new().folder();
    let question = |text: &str| Question { text: text.to_owned(), logged_in: vec![] };
    let (status, text) = explained(&folder, &question("dana call.whisper target=alice queue=601"), false);
    assert_eq!(status, Some(0), "a denial is an answer");
    let told = explain(&folder, &question("dana call.whisper target=alice queue=601"));
    let rule = format!("{}:{}", told["rule"]["file"].as_str().unwrap(), told["rule"]["line"]);
    for part in
        ["deny queue_out_of_scope: ", "call.whisper", "601", &rule, "R37", "add queue 601 to what dana supervises"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    let facts: BTreeMap<&str, &str> = told["facts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|seen| (seen["fact"].as_str().unwrap(), seen["value"].as_str().unwrap()))
        .collect();
    for (fact, value) in [
        ("actor", "2001 (dana)"),
        ("actor.roles", "supervisor"),
        ("target", "1001 (alice)"),
        ("target.roles", "agent"),
        ("queue.supervised", "false"),
        ("settings.supervisor.limit_to_assigned_queues", "true"),
    ] {
        assert_eq!(facts.get(fact), Some(&value), "{fact}: {told}");
        assert!(text.lines().any(|line| line.contains(&format!("{fact} = {value}"))), "{fact}: {text}");
    }
    let (_, text) = explained(&folder, &question("alice *13600"), false);
    assert!(text.starts_with("allow assigned: ") && text.contains("rule") && !text.contains("change"), "{text}");
}

/// Given what cannot be explained, when it is asked, then the exit status says why, and JSON stays JSON.
#[test]
fn an_unexplainable_question_has_an_exit_code_of_its_own() {
    let folder = PhoneBook::new().folder();
    let question = |text: &str, logged_in: &str| Question { text: text.to_owned(), logged_in: words(logged_in) };
    let cases = [
        (question("alice queue.login queue=6/0", ""), "malformed"),
        (question("alice queue.login colour=red", ""), "unknown_key"),
        (question("alice queue.login queue=600 queue=601", ""), "duplicate_key"),
        (question("alice *13600", "999"), "999"),
    ];
    for (question, says) in &cases {
        let (status, text) = explained(&folder, question, false);
        assert!(status == Some(1) && text.contains(says), "{}: {status:?} {text}", question.text);
    }
    let good = question("alice *13600", "");
    folder.replace(FILE, "kind = \"ring_group\"", "kind = \"fax\"");
    let place = folder.place(FILE, "\"fax\"");
    let (status, text) = explained(&folder, &good, false);
    assert!(status == Some(78) && text.contains(&place), "{status:?} {text}");
}

/// Given `--json`, when a question cannot be explained, then what is printed is JSON all the same: a script reads it.
#[test]
fn with_json_every_output_is_json() {
    let folder = PhoneBook::new().folder();
    let question = |text: &str, logged_in: &str| Question { text: text.to_owned(), logged_in: words(logged_in) };
    let mut plain = vec![];
    let mut expect_json = |folder: &Folder, question: &Question, code: i32| {
        let (status, text) = explained(folder, question, true);
        assert_eq!(status, Some(code), "{text}");
        if serde_json::from_str::<Value>(&text).is_err() {
            plain.push(text);
        }
    };
    expect_json(&folder, &question("alice *13600", ""), 0);
    expect_json(&folder, &question("alice queue.login queue=6/0", ""), 1);
    expect_json(&folder, &question("alice *13600", "999"), 1);
    folder.replace(FILE, "kind = \"ring_group\"", "kind = \"fax\"");
    expect_json(&folder, &question("alice *13600", ""), 78);
    assert!(plain.is_empty(), "{plain:#?}");
}
