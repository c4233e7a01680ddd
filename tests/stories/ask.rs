//! Given a running sidecar, when an operator asks a question with `queuewarden ask`, then the command prints the answer
//! that a phone gets, and its explanation. Without `--do` the state does not change.

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

    /// The exit code and the output of `ask` with this actor.
    fn ask(&self, actor: &str, words: &[&str]) -> (i32, String) {
        ask(&self.folder, actor, words)
    }

    fn json(&self, actor: &str, words: &[&str]) -> Value {
        let (code, output) = self.ask(actor, &[&["--json"], words].concat());
        assert_eq!(code, 0, "{words:?}: {output}");
        serde_json::from_str(&output).unwrap_or_else(|error| panic!("{error}: {output}"))
    }
}

fn ask(folder: &Folder, actor: &str, words: &[&str]) -> (i32, String) {
    let config = folder.path().to_str().unwrap();
    let (status, output) = run(&[&["--config", config, "ask", "--org", "acme", "--actor", actor], words].concat());
    (status.code().unwrap(), output)
}

/// A reply of the line dialect as the JSON of `ask --json`, without the members `done` and `sentence`.
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
    let command = AskCommand::open();
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
        let mut printed = command.json(actor, &["dial", digits]);
        assert_eq!(printed["done"], false);
        assert!(printed["sentence"].as_str().unwrap().ends_with('.'), "{printed}");
        let answer = as_json(&command.sidecar.ask(&format!("dial org=acme actor={actor} digits={digits}")));
        for extra in ["done", "sentence"] {
            printed.as_object_mut().unwrap().remove(extra);
        }
        assert_eq!(printed, answer, "{actor} dials {digits}");
    }
}

#[test]
fn ask_changes_nothing_without_do() {
    let command = AskCommand::open();
    let sessions = || command.sidecar.metric(r#"queuewarden_sessions{ground="assigned"}"#).to_string();
    for words in [
        &["dial", "*13600"][..],
        &["do", "queue.login", "--queue", "600"],
        &["do", "queue.login", "queue=600"],
        &["--explain", "dial", "*13600"],
    ] {
        let (code, output) = command.ask("1001", words);
        assert!(
            code == 0 && output.starts_with("allow assigned: The user serves that queue.\n"),
            "{words:?}: {output}"
        );
        assert!(output.contains("  action  queue.login (queue 600)\n") && output.contains("  policy  1\n"), "{output}");
        assert!(!output.contains("done"), "{output}");
        assert_eq!(sessions(), "0", "{words:?}");
    }
    let (code, output) = command.ask("1001", &["--do", "dial", "*13600"]);
    assert!(code == 0 && output.ends_with("  policy  1\n  done\n"), "{output}");
    assert_eq!(sessions(), "1");
    let (_, output) = command.ask("1001", &["do", "queue.logout", "--queue", "600", "--do", "--explain"]);
    assert!(output.starts_with("allow logged_out: ") && output.contains("\n  done\n"), "{output}");
    assert!(output.contains("logged_in = true"), "the facts are those before the logout: {output}");
    assert_eq!(sessions(), "0");
    // A denial exits with 0 too, and changes nothing.
    let (code, output) = command.ask("1001", &["--do", "dial", "*14"]);
    assert!(code == 0 && output.starts_with("deny not_logged_in: ") && !output.contains("done"), "{output}");
}

#[test]
fn a_named_action_has_the_keys_of_the_line_dialect() {
    let command = AskCommand::open();
    let words = ["do", "agent.login", "--target", "3001", "--queue", "600", "--for", "60", "--via", "dashboard"];
    let answer = command.json("2001", &[&["--do"], &words[..]].concat());
    assert_eq!((&answer["reason"], &answer["done"]), (&json!("supervisor_login"), &json!(true)));
    assert!((command.sidecar.metric("queuewarden_leases") - 1.0).abs() < f64::EPSILON);
    let answer = command.json("2001", &["may", "call.listen", "--target", "1001", "--queue", "600", "--call", "c-7"]);
    assert_eq!(answer["mode"], "listen");
    assert_eq!((&answer["target"], &answer["asterisk"]), (&json!("1001"), &json!("qbES")));
    let (_, output) = command.ask("2001", &["do", "call.listen", "target=1001", "queue=600"]);
    assert!(output.contains("  mode    listen\n") && output.contains("  asterisk qbES\n"), "{output}");
}

/// `explain` without a sidecar assumes that nobody is logged in; `ask --explain` uses the sessions of the sidecar.
#[test]
fn the_explanation_uses_the_current_sessions_and_calls() {
    let command = AskCommand::open();
    let explain =
        |actor: &str, words: &[&str]| command.json(actor, &[&["--explain"], words].concat())["explanation"].clone();
    let fact = |explanation: &Value, name: &str| {
        let facts = explanation["facts"].as_array().unwrap();
        facts.iter().find(|fact| fact["fact"] == name).map(|fact| fact["value"].as_str().unwrap().to_owned())
    };
    let before = explain("1001", &["dial", "*14"]);
    assert_eq!((&before["reason"], fact(&before, "logged_in")), (&json!("not_logged_in"), Some("false".to_owned())));
    assert!(before["change"][0].as_str().unwrap().contains("log agent in to queue 600 first"), "{before}");
    command.sidecar.ask("dial org=acme actor=1001 digits=*13600");
    let after = explain("1001", &["dial", "*14"]);
    assert_eq!((&after["reason"], fact(&after, "logged_in")), (&json!("logged_out"), Some("true".to_owned())));
    assert!(after["rule"]["file"].as_str().unwrap().ends_with("models/goto.toml"), "{after}");
    // A call that the PBX reported supplies its target and its queue.
    let listen = ["do", "call.listen", "--call", "c-9"];
    assert_eq!(explain("2001", &listen)["reason"], "unknown_call");
    command.sidecar.ask("do org=acme actor=1001 action=call.begin call=c-9 queue=600");
    let known = explain("2001", &listen);
    assert_eq!((&known["reason"], fact(&known, "queue.given")), (&json!("role_permits"), Some("true".to_owned())));
    // A report of the PBX needs no grant.
    assert_eq!(explain("1001", &["do", "call.end", "--call", "c-9"])["reason"], "reported");
    assert_eq!(explain("1001", &["do", "call.end", "--call", "c-8"])["reason"], "unknown_call");
    // A reload makes a new policy revision, and the answer has the revision that decided.
    let denied = command.json("1002", &["--explain", "dial", "*13602"]);
    assert_eq!(denied["policy"], 1);
    assert!(!denied["explanation"]["change"].as_array().unwrap().is_empty(), "{denied}");
    assert_eq!(command.sidecar.reload()["successful"], true);
    assert_eq!(command.json("1002", &["--explain", "dial", "*13602"])["policy"], 2);
}

#[test]
fn a_reached_limit_is_explained() {
    let limits = "\n[limits]\nsupervisions_per_supervisor_max = 1\none_queue_at_a_time = true\n";
    let command = AskCommand::with(Folder::with("acme.toml", &(ORGANIZATION.to_owned() + limits)));
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
        let ask = |words: [&str; 3]| command.ask(actor, &[&["--explain", "do"][..], &words].concat()).1;
        assert!(ask(second).starts_with("allow "), "{}", ask(second));
        let (_, done) = command.ask(actor, &[&["--do", "do"][..], &first].concat());
        assert!(done.contains("  done\n"), "{done}");
        let output = ask(second);
        assert!(output.starts_with(&format!("deny {reason}: ")) && output.contains(change), "{output}");
    }
}

#[test]
fn ask_presents_the_token_of_the_configuration() {
    let folder = Folder::with("acme.toml", ORGANIZATION);
    folder.write("line.token", "a-secret-of-16-bytes\n");
    folder.replace("queuewarden.toml", "[listen]\n", "[listen]\nline_token_file = \"line.token\"\n");
    let command = AskCommand::with(folder);
    let (code, output) = command.ask("1001", &["dial", "*13600"]);
    assert!(code == 0 && output.starts_with("allow assigned"), "{output}");
    command.folder.write("line.token", "another-of-16-bytes\n");
    let (code, output) = command.ask("1001", &["dial", "*13600"]);
    assert!(code == 1 && output.contains("help: ") && !output.contains("another"), "{output}");
    command.folder.replace("queuewarden.toml", "line_token_file = \"line.token\"\n", "");
    let (code, output) = command.ask("1001", &["do", "queue.login", "queue=600"]);
    assert!(code == 1 && output.contains("unauthenticated") && output.contains("line_token_file"), "{output}");
}

#[test]
fn ask_uses_the_addresses_where_there_are_no_unix_sockets() {
    let folder = Folder::with("acme.toml", ORGANIZATION);
    let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (line, admin) = (free(), free());
    folder.write("queuewarden.toml", &format!("[listen]\nline = \"{line}\"\nadmin = \"{admin}\"\nfastagi = \"off\"\n"));
    let command = AskCommand::with(folder);
    let (code, output) = command.ask("1001", &["--explain", "dial", "*13600"]);
    assert!(code == 0 && output.starts_with("allow assigned") && output.contains("  policy  1\n"), "{output}");
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
        let (code, output) = ask(&folder, "1001", words);
        assert!(code == 1 && output.starts_with("this is no question: "), "{words:?}: {output}");
    }
    let (code, output) = ask(&folder, "1001", &["dial", "*13600", "--queue", "601"]);
    assert!(code == 1 && output.contains("duplicate_key"), "{output}");
    assert_eq!(ask(&folder, "1001", &["dial"]).0, 2);
    assert_eq!(ask(&folder, "1001", &["sing", "loudly"]).0, 2);
    drop(sidecar);
    for words in [&["dial", "*13600"][..], &["do", "queue.login", "queue=600"], &["--do", "dial", "*13600"]] {
        let (code, output) = ask(&folder, "1001", words);
        assert!(code == 1 && output.contains("cannot be reached") && output.contains("help: "), "{words:?}: {output}");
        let (code, output) = ask(&folder, "1001", &[&["--json"], words].concat());
        let printed: Value = serde_json::from_str(&output).unwrap();
        assert!(code == 1 && printed["error"].as_str().unwrap().contains("cannot be reached"), "{output}");
    }
    folder.write("queuewarden.toml", "[listen]\nline = 7\n");
    assert_eq!(ask(&folder, "1001", &["dial", "*13600"]).0, 78);
    folder.write("queuewarden.toml", "[listen]\nline = \"off\"\nadmin = \"off\"\n");
    let (code, output) = ask(&folder, "1001", &["do", "queue.login", "queue=600"]);
    assert!(code == 1 && output.contains("no line listener"), "{output}");
    let (code, output) = ask(&folder, "1001", &["dial", "*13600"]);
    assert!(code == 1 && output.contains("`admin_unix` and `admin` are off"), "{output}");
}

/// `/explain` accepts the keys of the line dialect, and no other.
#[test]
fn the_admin_listener_explains_over_http() {
    let command = AskCommand::open();
    let (status, body) = command.sidecar.try_get("/explain?org=acme&actor=1001&digits=*13600");
    let explanation: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &explanation["verdict"], &explanation["policy"]), (200, &json!("allow"), &json!(1)));
    assert_eq!(explanation["means"], json!({"action": "queue.login", "queue": "600"}));
    for (query, message) in [
        ("", "missing_key (key `org`)"),
        ("?org=acme&actor=1001", "missing_key (key `action`)"),
        ("?org=acme&actor=1001&digits=*13600&target=1", "unknown_key (key `target`)"),
        ("?org=acme&actor=1001&action=queue.login&colour=red", "unknown_key"),
        ("?org=acme&org=acme&actor=1001&digits=*13600", "duplicate_key (key `org`)"),
        ("?org=acme&actor=%0A&digits=*13600", "malformed (key `actor`)"),
    ] {
        let (status, body) = command.sidecar.try_get(&format!("/explain{query}"));
        assert!(status == 400 && body.starts_with(message), "{query}: {status} {body}");
    }
    assert!((command.sidecar.metric(r#"queuewarden_sessions{ground="assigned"}"#)).abs() < f64::EPSILON);
}
