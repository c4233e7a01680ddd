//! Given a running sidecar, when its configuration is reloaded, then the whole new policy applies, or the old policy
//! stays. No connection and no reply is lost, and every reply has the revision of the policy that decided.

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use queuewarden::config::load_process_whole;
use queuewarden::config::schema::Kind;
use queuewarden::config::schema::keys::TABLES;

use crate::stories::fixtures::{ORGANIZATION, with_switched};
use crate::support::{
    Folder, Sidecar, agi_environment, close_our_side, connect, read_to_end, run, variables, wait_until,
};

const FILE: &str = "organizations/acme.toml";
const REVISION: &str = "queuewarden_policy_revision";
const RESTART: &str = "queuewarden_restart_needed";
const SUCCESSFUL: &str = "queuewarden_policy_last_reload_successful";
const LOGIN: &str = "may org=acme actor=1001 action=queue.login queue=q1";

fn metric_is(sidecar: &Sidecar, series: &str, value: u32) -> bool {
    format!("{}", sidecar.metric(series)) == format!("{value}")
}

/// Given a broken configuration, when it is loaded, then the log and `/status` have every problem with its position,
/// and the old policy stays. After a correction the new policy applies.
#[test]
fn a_broken_configuration_leaves_the_running_policy_and_reports_every_problem() {
    let folder = Folder::with("acme.toml", ORGANIZATION);
    let sidecar = Sidecar::start(&folder);
    let barred = "deny action=queue.login queue=601 reason=unassigned_barred policy=1";
    assert_eq!(sidecar.ask(LOGIN), barred);
    assert!(metric_is(&sidecar, SUCCESSFUL, 1) && metric_is(&sidecar, REVISION, 1));
    let stamp = "queuewarden_policy_last_reload_success_timestamp_seconds";
    let loaded_at = sidecar.metric(stamp);

    let broken = with_switched(&["allow_unassigned_login"])
        .replace("queues = [\"q1\", \"q0\"]", "queues = [\"q1\", \"q9\"]")
        .replace("may_supervise = false", "may_supervise = \"yes\"");
    folder.write(FILE, &broken);
    folder.replace("queuewarden.toml", "[state]\n", "[state]\nspeed = \"high\"\n");
    let places = [
        folder.place(FILE, "\"q9\""),
        folder.place(FILE, "may_supervise = \"yes\""),
        folder.place("queuewarden.toml", "speed"),
    ];
    for failures in 1..=2 {
        let last = sidecar.reload();
        assert_eq!((&last["successful"], &last["problems"]["more"]), (&false.into(), &0.into()), "{last}");
        let problems = last["problems"]["problems"].as_array().unwrap();
        let reported: Vec<String> = problems
            .iter()
            .map(|problem| format!("{}:{}:{}", problem["file"].as_str().unwrap(), problem["line"], problem["column"]))
            .collect();
        let mut sorted = (reported.clone(), places.to_vec());
        sorted.0.sort();
        sorted.1.sort();
        assert_eq!(sorted.0, sorted.1);
        sidecar.log_until_all(&places.each_ref().map(|place| format!("{place}: ")));
        assert!(metric_is(&sidecar, SUCCESSFUL, 0) && metric_is(&sidecar, REVISION, 1));
        assert!(metric_is(&sidecar, "queuewarden_policy_reloads_total{result=\"failure\"}", failures));
        assert_eq!(sidecar.metric(stamp).to_string(), loaded_at.to_string(), "the time of the last success");
        assert_eq!(sidecar.ask(LOGIN), barred, "the old policy and its revision");
        assert_eq!(sidecar.try_get("/readyz").0, 200);
    }
    folder.write(FILE, &with_switched(&["allow_unassigned_login"]));
    folder.replace("queuewarden.toml", "speed = \"high\"\n", "");
    let last = sidecar.reload();
    assert_eq!((&last["successful"], &last["problems"]["problems"]), (&true.into(), &serde_json::json!([])), "{last}");
    assert!(metric_is(&sidecar, SUCCESSFUL, 1) && metric_is(&sidecar, REVISION, 2));
    assert_eq!(sidecar.ask(LOGIN), "allow action=queue.login queue=601 reason=unassigned_allowed policy=2");
}

/// Given unchanged files, when they are reloaded, then the revision rises in replies, in the gauge and in `/status`.
#[test]
fn every_successful_load_raises_the_revision() {
    let folder = Folder::with("acme.toml", ORGANIZATION);
    let sidecar = Sidecar::start(&folder);
    let mut kept_open = sidecar.line();
    for revision in 1..=3 {
        if revision > 1 {
            sidecar.reload();
        }
        let reply = format!("deny action=queue.login queue=601 reason=unassigned_barred policy={revision}");
        assert_eq!(kept_open.ask(LOGIN), reply, "on a connection from before the reload");
        assert_eq!(sidecar.ask(LOGIN), reply, "on a new connection");
        assert!(metric_is(&sidecar, REVISION, revision));
        assert_eq!(sidecar.status()["policy"]["revision"], revision);
        assert!(
            metric_is(&sidecar, "queuewarden_policy_reloads_total{result=\"success\"}", revision),
            "the first load counts"
        );
    }
}

/// The organization file of this revision. Between odd and even revisions a setting and the number of a queue change
/// together, so an answer of a mixed policy would show.
fn organization_at(revision: u64) -> String {
    if revision % 2 == 1 {
        ORGANIZATION.to_owned()
    } else {
        with_switched(&["allow_unassigned_login"]).replace("\"601\"", "\"801\"")
    }
}

/// Given clients of two dialects that ask without a pause, when the policy changes repeatedly, then no reply is lost or
/// out of order, one policy decides each question, and the revision never falls on a connection.
#[test]
fn under_load_no_reply_is_lost_and_none_mixes_two_policies() {
    let folder = Folder::with("acme.toml", &organization_at(1));
    let sidecar = Sidecar::start(&folder);
    let over = Arc::new(AtomicBool::new(false));
    let (address, fastagi) = (sidecar.address("line"), sidecar.address("fastagi"));
    let by_line = {
        let over = Arc::clone(&over);
        thread::spawn(move || {
            let mut line = crate::support::LineClient::new(connect(address));
            let (mut questions, mut latest) = (0_u64, 1);
            while !over.load(Ordering::Relaxed) {
                let batch: String = (questions..questions + 64).map(|id| format!("{id} {LOGIN}\n")).collect();
                line.send(batch.as_bytes());
                for id in questions..questions + 64 {
                    let reply = line.line();
                    let (answer, revision) = reply.rsplit_once(" policy=").expect(&reply);
                    let revision: u64 = revision.parse().unwrap();
                    let expected = if revision % 2 == 1 {
                        format!("{id} deny action=queue.login queue=601 reason=unassigned_barred")
                    } else {
                        format!("{id} allow action=queue.login queue=801 reason=unassigned_allowed")
                    };
                    assert_eq!(answer, expected, "decided by revision {revision}");
                    assert!(revision >= latest, "{revision} after {latest}");
                    latest = revision;
                }
                questions += 64;
            }
            (questions, latest)
        })
    };
    let by_fastagi = {
        let over = Arc::clone(&over);
        thread::spawn(move || {
            // A toggle reads the policy and the sessions, and must use one policy for both.
            let environment = agi_environment("1002", "acme/queue.toggle", &["queue=q1"]);
            let mut questions = 0;
            while !over.load(Ordering::Relaxed) {
                let mut stream = connect(fastagi);
                stream.write_all(environment.as_bytes()).unwrap();
                let reply = variables(&read_to_end(&mut stream));
                let answer = (&*reply["QW_VERDICT"], &*reply["QW_REASON"], &*reply["QW_QUEUES"]);
                let is_consistent = matches!(
                    answer,
                    ("DENY", "unassigned_barred", "601")
                        | ("ALLOW", "logged_out", "601" | "801")
                        | ("ALLOW", "unassigned_allowed", "801")
                );
                assert!(is_consistent, "{answer:?}");
                questions += 1;
            }
            questions
        })
    };
    for revision in 2..=5 {
        folder.write(FILE, &organization_at(revision));
        sidecar.reload();
        // `/status` shows the revision once every connection uses the policy.
        wait_until("the new revision", || sidecar.status()["policy"]["revision"] == revision);
        let reply = sidecar.ask(LOGIN);
        assert!(reply.ends_with(&format!("policy={revision}")), "{reply}");
    }
    over.store(true, Ordering::Relaxed);
    let (questions, latest) = by_line.join().unwrap();
    let fastagi_questions = by_fastagi.join().unwrap();
    assert!(questions > 1_000 && fastagi_questions > 100, "{questions} and {fastagi_questions}");
    assert!(latest >= 4, "an old connection uses the new policies");
    assert!(metric_is(&sidecar, "queuewarden_panics_total", 0));
}

/// Given a role model that the operator wrote, when it is loaded, then its roles and grants decide. A broken model does
/// not load, and the running model goes on deciding.
#[test]
fn a_custom_role_model_is_loaded_and_reloaded() {
    let folder = Folder::with("acme.toml", ORGANIZATION);
    let sidecar = Sidecar::start(&folder);
    let question = "may org=acme actor=3001 action=call.outbound";
    assert_eq!(sidecar.ask(question), "deny action=call.outbound reason=agent_role_required policy=1");
    let goto_grant = "actions = [\"call.outbound\", \"call.direct_in\"]\nroles = [\"agent\"]";
    let mine = folder.read("models/goto.toml").replace("model = \"goto\"", "model = \"mine\"");
    assert!(mine.contains(goto_grant));
    folder.write("models/mine.toml", &mine.replace(goto_grant, &goto_grant.replace("\"agent\"]", "\"everyone\"]")));
    folder.replace(FILE, "model = \"goto\"", "model = \"mine\"");
    assert_eq!(sidecar.reload()["successful"], true);
    assert_eq!(sidecar.ask(question), "allow action=call.outbound reason=role_permits policy=2");
    folder.write("models/mine.toml", &mine.replace(goto_grant, &goto_grant.replace("\"agent\"]", "\"nobody\"]")));
    let last = sidecar.reload();
    assert_eq!(last["successful"], false);
    assert!(last["problems"].to_string().contains("`nobody`"), "{last}");
    assert_eq!(sidecar.ask(question), "allow action=call.outbound reason=role_permits policy=2");
}

/// Given more than a thousand signals within some seconds, when the last has arrived, then the configuration was loaded
/// about once a second, and the last change applies.
#[test]
fn a_thousand_signals_load_about_once_a_second() {
    let folder = Folder::with("acme.toml", ORGANIZATION);
    let sidecar = Sidecar::start(&folder);
    let began = Instant::now();
    let mut sent = 0;
    while sent < 1_000 || began.elapsed() < Duration::from_secs(2) {
        sidecar.signal_often("HUP", 100);
        sent += 100;
    }
    folder.write(FILE, &with_switched(&["allow_unassigned_login"]));
    sidecar.signal("HUP");
    let last = Instant::now();
    wait_until("the last change", || sidecar.ask(LOGIN).starts_with("allow"));
    assert!(last.elapsed() < Duration::from_secs(5), "a signal is handled within 5 s");
    let loads = sidecar.metric("queuewarden_policy_reloads_total{result=\"success\"}") - 1.0;
    let most = 2.0 + began.elapsed().as_secs_f64();
    assert!(loads >= 2.0 && loads <= most, "{loads} loads for {sent} signals in {:?}", began.elapsed());
}

/// Given a change that needs a restart, when the configuration is loaded, then the other changes apply, and the sidecar
/// reports that a restart is needed.
#[test]
fn a_change_that_needs_a_restart_is_reported() {
    let folder = Folder::with("acme.toml", ORGANIZATION);
    folder.replace("queuewarden.toml", "[listen]\n", "[listen]\nline_token_file = \"token\"\n");
    folder.write("token", "first-of-16-bytes\n");
    let sidecar = Sidecar::start(&folder);
    assert_eq!(sidecar.status()["last_reload"]["restart_needed"], false);
    folder.replace("queuewarden.toml", "[state]\n", "[limits]\nconnections_max = 77\n[state]\n");
    let last = sidecar.reload();
    assert_eq!((&last["successful"], &last["restart_needed"]), (&true.into(), &true.into()), "{last}");
    sidecar.log_until("restart");
    assert!(metric_is(&sidecar, "queuewarden_connections_limit", 10_000), "the gauge shows the limit in use");
    folder.replace("queuewarden.toml", "[limits]\nconnections_max = 77\n", "");
    assert_eq!(sidecar.reload()["restart_needed"], false);
}

/// FIELD D7. Given a key that needs a restart, when the configuration is loaded, then the log, `/status`, `/readyz` and
/// `top` name the key and its table and the gauge counts it, also after a load that fails, until the key is as before.
/// The sidecar stays ready.
#[test]
fn the_keys_that_need_a_restart_are_named_everywhere() {
    let folder = Folder::with("acme.toml", ORGANIZATION);
    let sidecar = Sidecar::start(&folder);
    let top = |words: &[&str]| {
        let folder = folder.path().to_str().unwrap();
        run(&[&["--config", folder, "top", "--once", "--interval", "0.1"], words].concat()).1
    };
    let none = "[+] restart not needed\n";
    assert!(sidecar.get("/readyz?verbose").ends_with(none) && metric_is(&sidecar, RESTART, 0));
    assert!(!top(&[]).contains("RESTART"));

    let before = folder.read("queuewarden.toml");
    folder.replace("queuewarden.toml", "[state]\n", "[limits]\nconnections_max = 77\n[state]\n");
    folder.replace("queuewarden.toml", "[listen]\n", "[listen]\nadmin_hosts = [\"pbx.example.org\"]\n");
    let keys = ["[listen] admin_hosts", "[limits] connections_max"];
    let named = keys.join(", ");
    let last = sidecar.reload();
    assert_eq!((&last["restart_needed"], &last["restart_keys"]), (&true.into(), &serde_json::json!(keys)), "{last}");
    sidecar.log_until(&format!("\"keys\":\"{named}\""));
    let is_shown = || {
        assert!(metric_is(&sidecar, RESTART, 2), "two keys");
        assert_eq!(sidecar.get("/readyz"), "ok\n", "an old value is no reason to send questions elsewhere");
        let checks = sidecar.get("/readyz?verbose");
        assert!(checks.ends_with(&format!("\n[!] restart needed for {named}\n")), "{checks}");
        let text = top(&[]);
        assert!(text.contains(&format!("RESTART NEEDED FOR {named}")), "{text}");
        let figures: serde_json::Value = serde_json::from_str(&top(&["--json"])).unwrap();
        assert_eq!(figures["policy"]["restart_keys"], serde_json::json!(keys), "{figures}");
        assert_eq!(figures["policy"]["restart_needed"], true, "{figures}");
    };
    is_shown();
    // A load that fails applies nothing, so the keys still wait.
    folder.write(FILE, &ORGANIZATION.replacen("model = \"goto\"", "model = \"gone\"", 1));
    let last = sidecar.reload();
    assert_eq!((&last["successful"], &last["restart_needed"]), (&false.into(), &true.into()), "{last}");
    is_shown();
    folder.write(FILE, ORGANIZATION);
    folder.write("queuewarden.toml", &before);
    assert_eq!(sidecar.reload()["restart_keys"], serde_json::json!([]));
    assert!(sidecar.get("/readyz?verbose").ends_with(none) && metric_is(&sidecar, RESTART, 0));
}

/// FIELD D7, for every key of `queuewarden.toml`: a reload with a new value names the key, unless the reload applies
/// the value.
#[test]
fn every_key_that_a_reload_does_not_apply_is_named() {
    let link = "[[connect.asterisk_ami]]\norganization = \"acme\"\naddress = \"127.0.0.1:1\"\nusername = \"qw\"\n\
                secret_file = \"secret\"\n";
    let esl = "[[connect.freeswitch_esl]]\norganization = \"acme\"\naddress = \"127.0.0.1:1\"\nusername = \"qw@acme\"\n\
               secret_file = \"secret\"\n";
    let file = |changes: &[(&str, &str)]| {
        let mut text = "[listen]\n[state]\n[audit]\n[limits]\n[metrics]\n[connect]\n".to_owned() + link + esl;
        for (table, line) in changes {
            text = text.replacen(&format!("{table}\n"), &format!("{table}\n{line}\n"), 1);
        }
        text
    };
    let folder = Folder::with("acme.toml", ORGANIZATION);
    for secret in ["secret", "token"] {
        folder.write(secret, "s3cret-of-16-bytes\n");
    }
    folder.write("agents.csv", "extension,name\n1001,PJSIP/alice\n");
    folder.write("queues.csv", "number,name\n600,support\n");
    let authority = rcgen::generate_simple_self_signed(["pbx".to_owned()]).unwrap();
    folder.write("ca.pem", &authority.cert.pem());
    let keys_after = |before: &str, text: &str| {
        folder.write("queuewarden.toml", before);
        let in_force = load_process_whole(folder.path()).unwrap();
        folder.write("queuewarden.toml", text);
        in_force.restart_keys(&load_process_whole(folder.path()).unwrap())
    };
    let keys = |text: &str| keys_after(&file(&[]), text);
    let mut tried = BTreeSet::new();
    let quoted = |text: &str| format!("\"{text}\"");
    for (table, key, value) in [
        ("[listen]", "line", quoted("127.0.0.1:2")),
        ("[listen]", "fastagi", quoted("off")),
        ("[listen]", "freeswitch", quoted("127.0.0.1:2")),
        ("[listen]", "kamailio", quoted("127.0.0.1:2")),
        ("[listen]", "line_unix", quoted("line.sock")),
        ("[listen]", "admin", quoted("off")),
        ("[listen]", "admin_unix", quoted("admin.sock")),
        ("[listen]", "admin_hosts", "[\"pbx\"]".to_owned()),
        ("[state]", "store", quoted("memory")),
        ("[state]", "folder", quoted("elsewhere")),
        ("[audit]", "enabled", "false".to_owned()),
        ("[audit]", "folder", quoted("elsewhere")),
        ("[audit]", "rotation_max_bytes", "5000".to_owned()),
        ("[audit]", "rotation_max_seconds", "77".to_owned()),
        ("[audit]", "retention_max_seconds", "77".to_owned()),
        ("[audit]", "retention_max_bytes", "77".to_owned()),
        ("[audit]", "record_retention_max_seconds", "77".to_owned()),
        ("[audit]", "record_retention_max_bytes", "77".to_owned()),
        ("[audit]", "witness", quoted("file:kept")),
        ("[audit]", "witness_interval_seconds", "77".to_owned()),
        ("[audit]", "plain_allows_one_in", "77".to_owned()),
        ("[audit]", "plain_allows_per_second", "77".to_owned()),
        ("[limits]", "connections_max", "77".to_owned()),
        ("[limits]", "drain_delay_seconds", "7".to_owned()),
        ("[metrics]", "sessions_by_queue_max", "7".to_owned()),
        ("[connect]", "evapi", "[\"127.0.0.1:2\"]".to_owned()),
        ("[[connect.asterisk_ami]]", "interface", quoted("SIP/%")),
        ("[[connect.asterisk_ami]]", "state_interface", quoted("SIP/%")),
        ("[[connect.asterisk_ami]]", "queue", quoted("q-%")),
        ("[[connect.freeswitch_esl]]", "agent", quoted("%@acme.example")),
        ("[[connect.freeswitch_esl]]", "queue", quoted("%@acme.example")),
    ]
    .into_iter()
    .chain(["[[connect.asterisk_ami]]", "[[connect.freeswitch_esl]]"].into_iter().flat_map(|table| {
        [
            (table, "name", quoted("pbx-7")),
            (table, "members", quoted("repair")),
            (table, "supervisions", quoted("off")),
            (table, "adopt", "true".to_owned()),
            (table, "poll_interval_seconds", "7".to_owned()),
            (table, "undo_max_per_minute", "7".to_owned()),
            (table, "undo_max_percent", "7".to_owned()),
            (table, "agents_file", quoted("agents.csv")),
            (table, "queues_file", quoted("queues.csv")),
        ]
    })) {
        let text = file(&[(table, &format!("{key} = {value}"))]);
        assert_eq!(keys(&text), [format!("{table} {key}")], "{text}");
        tried.insert(key);
    }
    for (table, text, username) in [("asterisk_ami", link, "qw"), ("freeswitch_esl", esl, "qw@acme")] {
        for (key, from, to) in [("address", ":1", ":3"), ("username", username, "warden@acme")] {
            let changed = file(&[]).replace(text, &text.replace(&format!("{from}\""), &format!("{to}\"")));
            assert_eq!(keys(&changed), [format!("[[connect.{table}]] {key}")]);
            tried.insert(key);
        }
    }
    let tls = file(&[("[[connect.asterisk_ami]]", "tls = true\nca_file = \"ca.pem\"")]);
    assert_eq!(keys(&tls), ["[[connect.asterisk_ami]] tls"]);
    let named = tls.replace("tls = true", "tls = true\ntls_name = \"pbx\"");
    assert_eq!(keys_after(&tls, &named), ["[[connect.asterisk_ami]] tls_name"]);
    tried.extend(["tls", "tls_name"]);
    // Every link has a number as soon as there are two.
    let two = |second: &str| file(&[]) + &link.replace(":1\"", second);
    assert_eq!(keys(&two(":2\"")), ["[[connect.asterisk_ami]]"], "a link more");
    // A reload applies tokens, secrets and authorities.
    for key in ["line_token_file", "admin_token_file"] {
        assert_eq!(keys(&file(&[("[listen]", &format!("{key} = \"token\""))])), [""; 0], "{key}");
        tried.insert(key);
    }
    tried.extend(["secret_file", "ca_file", "organization"]);
    let certificate = "tls_certificate_file = \"ca.pem\"\ntls_key_file = \"ca.key\"";
    let peer = "[[peers]]\nname = \"p\"\naddresses = [\"127.0.0.1/32\"]\n";
    folder.write("ca.key", &authority.signing_key.serialize_pem());
    let guarded = file(&[("[listen]", certificate)]) + peer;
    for key in ["line_tls", "kamailio_tls", "admin_tls"] {
        let changed = guarded.replace(certificate, &format!("{certificate}\n{key} = \"127.0.0.1:2\""));
        assert_eq!(keys_after(&guarded, &changed), [format!("[listen] {key}")]);
        tried.insert(key);
    }
    let further = "[[listen.more]]\nname = \"tunnel\"\ndialect = \"line\"\naddress = \"127.0.0.1:7\"\n";
    assert_eq!(keys_after(&guarded, &(guarded.clone() + further)), ["[[listen.more]]"]);
    for (key, from, to) in [
        ("name", "\"tunnel\"", "\"other\""),
        ("dialect", "\"line\"", "\"fastagi\""),
        ("address", ":7\"", ":8\""),
        ("proxy", ":7\"", ":7\"\nproxy = true"),
        ("tls", ":7\"", ":7\"\ntls = true"),
    ] {
        let changed = guarded.clone() + &further.replace(from, to);
        assert_eq!(keys_after(&(guarded.clone() + further), &changed), [format!("[[listen.more]] {key}")]);
        tried.insert(key);
    }
    // A reload applies certificates and peers.
    tried.extend(["tls_certificate_file", "tls_key_file", "tls_ca_file", "tls_crl_file"]);
    let stays = guarded.clone() + "listeners = [\"line\"]\nrights = [\"ask\"]\nshare_max_percent = 7\n";
    assert_eq!(keys_after(&guarded, &stays), [""; 0]);
    tried.extend(["listeners", "addresses", "users", "certificate", "token_files", "organizations", "rights"]);
    tried.insert("share_max_percent");
    let documented = || TABLES.iter().filter(|table| table.kind == Kind::Process);
    tried.extend(documented().filter_map(|table| table.table.rsplit('.').next()));
    let names = documented().flat_map(|table| table.keys).flat_map(|key| key.names.split(' '));
    let untried: Vec<&str> = names.filter(|key| !tried.contains(key)).collect();
    assert!(untried.is_empty(), "keys that this test does not change: {untried:?}");
}

/// Given a changed token, when the configuration is loaded, then the new token counts, or the sidecar reports that a
/// restart is needed: a leaked token must not stay valid while the operator believes that it is not.
#[test]
fn a_changed_token_applies_or_a_restart_is_reported_as_needed() {
    let folder = Folder::with("acme.toml", ORGANIZATION);
    folder.replace("queuewarden.toml", "[listen]\n", "[listen]\nline_token_file = \"token\"\n");
    folder.write("token", "first-of-16-bytes\n");
    let sidecar = Sidecar::start(&folder);
    assert_eq!(sidecar.ask("auth token=first-of-16-bytes"), "allow reason=authenticated");
    folder.write("token", "second-of-16-bytes\n");
    let last = sidecar.reload();
    assert_eq!(last["successful"], true, "{last}");
    let is_new = sidecar.ask("auth token=second-of-16-bytes") == "allow reason=authenticated"
        && sidecar.ask("auth token=first-of-16-bytes") == "error reason=unauthenticated";
    assert!(
        is_new || last["restart_needed"] == true,
        "the old token is still valid, and no restart is reported: {last}"
    );
}

/// Given connections with half a question, when the policy changes before the other half arrives, then the new policy
/// decides.
#[test]
fn a_question_under_way_is_judged_by_the_policy_of_its_last_byte() {
    let folder = Folder::with("acme.toml", ORGANIZATION);
    let sidecar = Sidecar::start(&folder);
    folder.write(FILE, &with_switched(&["allow_unassigned_login"]));
    let mut line = connect(sidecar.address("line"));
    let question = format!("7 {LOGIN}\n");
    let (first, second) = question.split_at(30);
    let environment = agi_environment("1001", "acme/queue.login", &["queue=q1"]);
    let (early, late) = environment.split_at(400);
    let mut agi = connect(sidecar.address("fastagi"));
    line.write_all(first.as_bytes()).unwrap();
    agi.write_all(early.as_bytes()).unwrap();
    sidecar.reload();
    line.write_all(second.as_bytes()).unwrap();
    close_our_side(&line);
    assert_eq!(read_to_end(&mut line), "7 allow action=queue.login queue=601 reason=unassigned_allowed policy=2\n");
    agi.write_all(late.as_bytes()).unwrap();
    assert_eq!(variables(&read_to_end(&mut agi))["QW_REASON"], "unassigned_allowed");
}
