//! Given an operator who wonders about a denial, when they ask the running sidecar with `queuewarden ask`, then they
//! see the answer of the phone and its explanation, and nothing changes unless they ask for it.

use std::net::TcpListener;

use serde_json::{Value, json};

use crate::stories::fixtures::ORGANIZATION;
use crate::support::{Folder, Sidecar, run};

struct AskCommand {
    folder: Folder,
    sidecar: Sidecar,
}

impl AskCommand {
    fn open() -> Self {
        Self::with(Folder::with("acme.toml", ORGANIZATION))
    }

    fn with(folder: Folder) -> Self {
        let sidecar = Sidecar::start(&folder);
        Self { folder, sidecar }
    }

    /// The exit code of `ask` as this actor, and what it prints.
    fn ask(&self, actor: &str, words: &[&str]) -> (i32, String) {
        ask(&self.folder, actor, words)
    }

    fn json(&self, actor: &str, words: &[&str]) -> Value {
        let (code, said) = self.ask(actor, &[&["--json"], words].concat());
        assert_eq!(code, 0, "{words:?}: {said}");
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
    }
}

fn ask(folder: &Folder, actor: &str, words: &[&str]) -> (i32, String) {
    let config = folder.path().to_str().unwrap();
    let (status, said) = run(&[&["--config", config, "ask", "--org", "acme", "--actor", actor], words].concat());
    (status.code().unwrap(), said)
}

/// A reply of the line dialect in the words of `ask --json`, without what only some replies have.
fn as_json(reply: &str) -> Value {
    let mut words = reply.split(' ');
    let mut answer = json!({"verdict": words.next().unwrap(), "queues": []});
    for (key, value) in words.map(|word| word.split_once('=').unwrap()) {
        match key {
            "queue" | "queues" => answer["queues"] = value.split(',').collect(),
            "policy" => answer["policy"] = value.parse::<u64>().unwrap().into(),
            key => answer[key] = value.into(),
        }
    }
    answer
}

#[test]
fn ask_prints_the_answer_that_a_phone_gets() {
    let desk = AskCommand::open();
    let dialed = [
        ("1001", "*13600"),
        ("1001", "*13601"),
        ("1001", "*13"),
        ("1003", "*13"),
        ("1001", "*13"),
        ("3001", "*13600"),
        ("1001", "*45600"),
        ("1001", "*14"),
        ("1001", "*14"),
        ("1001", "*99"),
        ("9999", "*13600"),
        ("1001", "*13699"),
        ("2001", "*2211001"),
        ("1001", "*2211002"),
        ("1003", "*14"),
    ];
    for (actor, digits) in dialed {
        let mut asked = desk.json(actor, &["dial", digits]);
        assert_eq!(asked["done"], false);
        assert!(asked["sentence"].as_str().unwrap().ends_with('.'), "{asked}");
        let heard = as_json(&desk.sidecar.ask(&format!("dial org=acme actor={actor} digits={digits}")));
        for extra in ["done", "sentence"] {
            asked.as_object_mut().unwrap().remove(extra);
        }
        assert_eq!(asked, heard, "{actor} dials {digits}");
    }
}

#[test]
fn ask_changes_nothing_without_do() {
    let desk = AskCommand::open();
    let sessions = || desk.sidecar.metric(r#"queuewarden_sessions{ground="assigned"}"#).to_string();
    for words in [
        &["dial", "*13600"][..],
        &["do", "queue.login", "--queue", "600"],
        &["do", "queue.login", "queue=600"],
        &["--explain", "dial", "*13600"],
    ] {
        let (code, said) = desk.ask("1001", words);
        assert!(code == 0 && said.starts_with("allow assigned: The user serves that queue.\n"), "{words:?}: {said}");
        assert!(said.contains("  action  queue.login (queue 600)\n") && said.contains("  policy  1\n"), "{said}");
        assert!(!said.contains("done"), "{said}");
        assert_eq!(sessions(), "0", "{words:?}");
    }
    let (code, said) = desk.ask("1001", &["--do", "dial", "*13600"]);
    assert!(code == 0 && said.ends_with("  policy  1\n  done\n"), "{said}");
    assert_eq!(sessions(), "1");
    let (_, said) = desk.ask("1001", &["do", "queue.logout", "--queue", "600", "--do", "--explain"]);
    assert!(said.starts_with("allow logged_out: ") && said.contains("\n  done\n"), "{said}");
    assert!(said.contains("logged_in = true"), "as it was before: {said}");
    assert_eq!(sessions(), "0");
    // A denial is an answer too, and does nothing.
    let (code, said) = desk.ask("1001", &["--do", "dial", "*14"]);
    assert!(code == 0 && said.starts_with("deny not_logged_in: ") && !said.contains("done"), "{said}");
}

#[test]
fn a_named_action_has_the_keys_of_the_line_dialect() {
    let desk = AskCommand::open();
    let words = ["do", "agent.login", "--target", "3001", "--queue", "600", "--for", "60", "--via", "dashboard"];
    let answer = desk.json("2001", &[&["--do"], &words[..]].concat());
    assert_eq!((&answer["reason"], &answer["done"]), (&json!("supervisor_login"), &json!(true)));
    assert!((desk.sidecar.metric("queuewarden_leases") - 1.0).abs() < f64::EPSILON);
    let answer = desk.json("2001", &["may", "call.listen", "--target", "1001", "--queue", "600", "--call", "c-7"]);
    assert_eq!(answer["mode"], "listen");
    assert_eq!((&answer["target"], &answer["asterisk"]), (&json!("1001"), &json!("qbES")));
    let (_, said) = desk.ask("2001", &["do", "call.listen", "target=1001", "queue=600"]);
    assert!(said.contains("  mode    listen\n") && said.contains("  asterisk qbES\n"), "{said}");
}

/// Offline nobody is logged in; here whoever is.
#[test]
fn the_explanation_uses_the_current_sessions_and_calls() {
    let desk = AskCommand::open();
    let of = |actor: &str, words: &[&str]| desk.json(actor, &[&["--explain"], words].concat())["explanation"].clone();
    let fact = |explanation: &Value, name: &str| {
        let facts = explanation["facts"].as_array().unwrap();
        facts.iter().find(|fact| fact["fact"] == name).map(|fact| fact["value"].as_str().unwrap().to_owned())
    };
    let before = of("1001", &["dial", "*14"]);
    assert_eq!((&before["reason"], fact(&before, "logged_in")), (&json!("not_logged_in"), Some("false".to_owned())));
    assert!(before["change"][0].as_str().unwrap().contains("log the user in first"), "{before}");
    desk.sidecar.ask("dial org=acme actor=1001 digits=*13600");
    let after = of("1001", &["dial", "*14"]);
    assert_eq!((&after["reason"], fact(&after, "logged_in")), (&json!("logged_out"), Some("true".to_owned())));
    assert!(after["rule"]["file"].as_str().unwrap().ends_with("models/goto.toml"), "{after}");
    // A call that the PBX has reported says whom and where.
    let listen = ["do", "call.listen", "--call", "c-9"];
    assert_eq!(of("2001", &listen)["reason"], "unknown_call");
    desk.sidecar.ask("do org=acme actor=1001 action=call.begin call=c-9 queue=600");
    let known = of("2001", &listen);
    assert_eq!((&known["reason"], fact(&known, "queue.given")), (&json!("role_permits"), Some("true".to_owned())));
    // And a report is no question of rights.
    assert_eq!(of("1001", &["do", "call.end", "--call", "c-9"])["reason"], "reported");
    assert_eq!(of("1001", &["do", "call.end", "--call", "c-8"])["reason"], "unknown_call");
    // A reload is a new revision, and the answer says which one judged.
    let denied = desk.json("1002", &["--explain", "dial", "*13602"]);
    assert_eq!(denied["policy"], 1);
    assert!(!denied["explanation"]["change"].as_array().unwrap().is_empty(), "{denied}");
    assert_eq!(desk.sidecar.reload()["successful"], true);
    assert_eq!(desk.json("1002", &["--explain", "dial", "*13602"])["policy"], 2);
}

#[test]
fn a_reached_limit_is_explained() {
    let limits = "\n[limits]\nsupervisions_per_supervisor_max = 1\none_queue_at_a_time = true\n";
    let desk = AskCommand::with(Folder::with("acme.toml", &(ORGANIZATION.to_owned() + limits)));
    for (actor, first, second, reason, change) in [
        (
            "2001",
            ["call.listen", "target=1001", "queue=600"],
            ["call.listen", "target=1002", "queue=600"],
            "supervisor_supervisions_at_limit",
            "raise `supervisions_per_supervisor_max`",
        ),
        (
            "1003",
            ["queue.login", "queue=600", "via=phone"],
            ["queue.login", "queue=601", "via=phone"],
            "logged_in_elsewhere",
            "set `one_queue_at_a_time = false`",
        ),
    ] {
        let ask = |words: [&str; 3]| desk.ask(actor, &[&["--explain", "do"][..], &words].concat()).1;
        assert!(ask(second).starts_with("allow "), "{}", ask(second));
        let (_, done) = desk.ask(actor, &[&["--do", "do"][..], &first].concat());
        assert!(done.contains("  done\n"), "{done}");
        let said = ask(second);
        assert!(said.starts_with(&format!("deny {reason}: ")) && said.contains(change), "{said}");
    }
}

#[test]
fn ask_presents_the_token_of_the_configuration() {
    let folder = Folder::with("acme.toml", ORGANIZATION);
    folder.write("line.token", "a-secret\n");
    folder.replace("queuewarden.toml", "[listen]\n", "[listen]\nline_token_file = \"line.token\"\n");
    let desk = AskCommand::with(folder);
    let (code, said) = desk.ask("1001", &["dial", "*13600"]);
    assert!(code == 0 && said.starts_with("allow assigned"), "{said}");
    desk.folder.write("line.token", "another\n");
    let (code, said) = desk.ask("1001", &["dial", "*13600"]);
    assert!(code == 1 && said.contains("help: ") && !said.contains("another"), "{said}");
    desk.folder.replace("queuewarden.toml", "line_token_file = \"line.token\"\n", "");
    let (code, said) = desk.ask("1001", &["do", "queue.login", "queue=600"]);
    assert!(code == 1 && said.contains("unauthenticated") && said.contains("line_token_file"), "{said}");
}

#[test]
fn ask_uses_the_addresses_where_there_are_no_unix_sockets() {
    let folder = Folder::with("acme.toml", ORGANIZATION);
    let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (line, admin) = (free(), free());
    folder.write("queuewarden.toml", &format!("[listen]\nline = \"{line}\"\nadmin = \"{admin}\"\nfastagi = \"off\"\n"));
    let desk = AskCommand::with(folder);
    let (code, said) = desk.ask("1001", &["--explain", "dial", "*13600"]);
    assert!(code == 0 && said.starts_with("allow assigned") && said.contains("  policy  1\n"), "{said}");
}

#[test]
fn an_unanswerable_question_is_an_error_with_help() {
    let AskCommand { folder, sidecar } = AskCommand::open();
    for words in [
        &["dial", "*13 600"][..],
        &["dial", "*13600\n2 dial org=acme actor=1002 digits=*13600"],
        &["do", "queue.login", "queue=600\n"],
        &["do", "queue.login", "colour=red"],
        &["do", "queue.login", "--for", "0"],
        &["do", "queue.login", "--queue", "600", "queue=601"],
    ] {
        let (code, said) = ask(&folder, "1001", words);
        assert!(code == 1 && said.starts_with("this is no question: "), "{words:?}: {said}");
    }
    let (code, said) = ask(&folder, "1001", &["dial", "*13600", "--queue", "601"]);
    assert!(code == 1 && said.contains("duplicate_key"), "{said}");
    assert_eq!(ask(&folder, "1001", &["dial"]).0, 2);
    assert_eq!(ask(&folder, "1001", &["sing", "loudly"]).0, 2);
    drop(sidecar);
    for words in [&["dial", "*13600"][..], &["do", "queue.login", "queue=600"], &["--do", "dial", "*13600"]] {
        let (code, said) = ask(&folder, "1001", words);
        assert!(code == 1 && said.contains("cannot be reached") && said.contains("help: "), "{words:?}: {said}");
        let (code, said) = ask(&folder, "1001", &[&["--json"], words].concat());
        let told: Value = serde_json::from_str(&said).unwrap();
        assert!(code == 1 && told["error"].as_str().unwrap().contains("cannot be reached"), "{said}");
    }
    folder.write("queuewarden.toml", "[listen]\nline = 7\n");
    assert_eq!(ask(&folder, "1001", &["dial", "*13600"]).0, 78);
    folder.write("queuewarden.toml", "[listen]\nline = \"off\"\nadmin = \"off\"\n");
    let (code, said) = ask(&folder, "1001", &["do", "queue.login", "queue=600"]);
    assert!(code == 1 && said.contains("no line listener"), "{said}");
    let (code, said) = ask(&folder, "1001", &["dial", "*13600"]);
    assert!(code == 1 && said.contains("`admin_unix` is off"), "{said}");
}

/// `/explain` takes what the line dialect takes, and nothing else.
#[test]
fn the_admin_listener_explains_over_http() {
    let desk = AskCommand::open();
    let (status, body) = desk.sidecar.try_get("/explain?org=acme&actor=1001&digits=*13600");
    let told: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &told["verdict"], &told["policy"]), (200, &json!("allow"), &json!(1)));
    assert_eq!(told["means"], json!({"action": "queue.login", "queue": "600"}));
    for (query, says) in [
        ("", "missing_key (key `org`)"),
        ("?org=acme&actor=1001", "missing_key (key `action`)"),
        ("?org=acme&actor=1001&digits=*13600&target=1", "unknown_key (key `target`)"),
        ("?org=acme&actor=1001&action=queue.login&colour=red", "unknown_key"),
        ("?org=acme&org=acme&actor=1001&digits=*13600", "duplicate_key (key `org`)"),
        ("?org=acme&actor=%0A&digits=*13600", "malformed (key `actor`)"),
    ] {
        let (status, body) = desk.sidecar.try_get(&format!("/explain{query}"));
        assert!(status == 400 && body.starts_with(says), "{query}: {status} {body}");
    }
    assert!((desk.sidecar.metric(r#"queuewarden_sessions{ground="assigned"}"#)).abs() < f64::EPSILON);
}
