//! Given a PBX that says with `until` when it stops waiting, when its question is read or its change is durable later,
//! then the answer is `too_late` in every dialect, and nothing has changed (TRUTH 1, FIELD B1 to B3).

use std::io::Write;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::stories::fixtures::ORGANIZATION;
use crate::support::{
    Folder, FreeSwitchPeer, Sidecar, agi_environment, channel_block, connect, netstring, read_to_end, run, variables,
    wait_until,
};

/// Milliseconds since 1970, this many from now.
fn in_ms(ahead: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    (i64::try_from(now).unwrap() + ahead).to_string()
}

fn start() -> Sidecar {
    Sidecar::start(&Folder::with("acme.toml", ORGANIZATION).durable())
}

fn jsonrpc(sidecar: &Sidecar, method: &str, params: &Value) -> Value {
    let mut stream = connect(sidecar.address("kamailio"));
    let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
    stream.write_all(format!("{}:{request},", request.len()).as_bytes()).unwrap();
    serde_json::from_str(&netstring(&mut stream)).unwrap()
}

/// The reason of the answer to `*45600` by 1001 in each dialect, with these values of `until`.
fn reasons(sidecar: &Sidecar, until: &str) -> Vec<String> {
    let line = sidecar.ask(&format!("dial org=acme actor=1001 digits=*45600 until={until}"));
    let line = line.split("reason=").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    let agi = sidecar.agi("1001", "acme/dial", &["digits=*45600", &format!("until={until}")]);
    let block = channel_block("*45600", &[("qw_org", "acme"), ("user_name", "1001"), ("qw_until", until)]);
    let freeswitch = FreeSwitchPeer::ring(sidecar).ask(&block);
    let mut all = vec![line, agi["QW_REASON"].clone(), freeswitch["qw_reason"].clone()];
    let number = until.parse::<u64>().map_or(Value::Null, Value::from);
    for value in [json!(until), number] {
        let params = json!({"org": "acme", "actor": "1001", "digits": "*45600", "until": value});
        let reply = jsonrpc(sidecar, "dial", &params);
        let reason = reply["result"]["reason"].as_str().or(reply["error"]["data"]["reason"].as_str());
        all.push(reason.unwrap().to_owned());
    }
    all
}

fn is_logged_in(sidecar: &Sidecar) -> bool {
    sidecar.ask("may org=acme actor=1001 action=queue.login queue=600").contains("already_logged_in")
}

#[test]
fn a_question_past_its_end_changes_nothing_in_any_dialect() {
    let sidecar = start();
    assert_eq!(reasons(&sidecar, &in_ms(-1)), ["too_late"; 5]);
    assert!(!is_logged_in(&sidecar));
    assert_eq!(
        sidecar.ask(&format!("dial org=acme actor=1001 digits=*45600 until={}", in_ms(-1))),
        "deny reason=too_late policy=1"
    );
    // Toggled five times in time: in.
    assert_eq!(reasons(&sidecar, &in_ms(20_000)), ["assigned", "logged_out", "assigned", "logged_out", "assigned"]);
    assert!(is_logged_in(&sidecar));
    let wrong =
        sidecar.ask(&format!("do org=acme actor=2001 action=call.listen target=1001 queue=600 until={}", in_ms(-5)));
    assert_eq!(wrong, "deny reason=too_late policy=1");
    assert_eq!(sidecar.metric("queuewarden_supervisions{mode=\"listen\"}"), 0.0);
}

/// Bad input of issue 14: zero, 20 digits, seconds, signs, too far ahead. `may` takes any time and ignores it.
#[test]
fn a_time_that_is_none_is_malformed_in_every_dialect() {
    let sidecar = start();
    for wrong in ["0", "17642880000000000000", "1764288000", "99999999999999", "0764288000000"] {
        assert_eq!(reasons(&sidecar, wrong), ["malformed"; 5], "{wrong}");
    }
    assert_eq!(reasons(&sidecar, &in_ms(61_000)), ["malformed"; 5]);
    for wrong in ["+764288000000", "-764288000000", "1764288000.00", "now"] {
        let answer = sidecar.ask(&format!("dial org=acme actor=1001 digits=*13600 until={wrong}"));
        assert_eq!(answer, "error reason=malformed key=until", "{wrong}");
    }
    assert_eq!(
        sidecar.ask(&format!("dial org=acme actor=1001 digits=*13600 until={}", in_ms(61_000))),
        "error reason=malformed key=until"
    );
    assert!(!is_logged_in(&sidecar));
    for any in [in_ms(-100_000), in_ms(100_000)] {
        let answer = sidecar.ask(&format!("may org=acme actor=1001 action=queue.login queue=600 until={any} once=x"));
        assert_eq!(answer, "allow action=queue.login queue=600 reason=assigned policy=1");
    }
}

/// TRUTH 1: an `until` that is past or absurdly far says that a clock is wrong; the log names the peer.
#[test]
fn a_clock_that_is_off_is_counted_and_named() {
    let sidecar = start();
    let offsets =
        |dialect: &str| sidecar.metric(&format!("queuewarden_peer_clock_offsets_total{{dialect=\"{dialect}\"}}"));
    for (ahead, counted) in [(-1_000, 0.0), (1_000, 0.0), (59_000, 0.0), (-2_500, 1.0), (3_600_000, 2.0)] {
        sidecar.ask(&format!("do org=acme actor=1001 action=queue.login queue=600 until={}", in_ms(ahead)));
        assert_eq!(offsets("line"), counted, "{ahead} ms ahead");
    }
    let log = sidecar.log_until("the clock of a peer differs").join("\n");
    assert!(log.contains("\"actor\":\"1001\"") && log.contains("\"offset_ms\":-2"), "{log}");
    // FreeSWITCH says what time it is; `qw_within` counts from there.
    let ask = |ahead: i64| {
        let variables = [("qw_org", "acme"), ("user_name", "1001"), ("qw_within", "30000")];
        let block = format!("Event-Date-Timestamp: {}000\n{}", in_ms(ahead), channel_block("*45600", &variables));
        FreeSwitchPeer::ring(&sidecar).ask(&block)["qw_reason"].clone()
    };
    assert_eq!([ask(0), ask(10_000), ask(-29_000), ask(-31_000)], ["logged_out", "assigned", "logged_out", "too_late"]);
    assert_eq!(offsets("freeswitch"), 3.0);
}

/// FIELD B1 and B2: the sidecar is stopped while the questions arrive, and goes on when nobody waits any more.
#[test]
fn a_sidecar_that_was_stopped_does_nothing_later() {
    let sidecar = start();
    let mut line = sidecar.line();
    let mut kamailio = connect(sidecar.address("kamailio"));
    let mut asterisk = connect(sidecar.address("fastagi"));
    assert_eq!(line.ask("ping"), "pong");
    sidecar.signal("STOP");
    let until = in_ms(300);
    line.send(format!("1 dial org=acme actor=1001 digits=*13600 until={until}\n").as_bytes());
    let params = json!({"org": "acme", "actor": "1001", "digits": "*45600", "until": until, "once": "c-1.1"});
    let request = json!({"jsonrpc": "2.0", "id": 1, "method": "dial", "params": params}).to_string();
    kamailio.write_all(format!("{}:{request},", request.len()).as_bytes()).unwrap();
    let arguments = ["digits=*45600", &format!("until={until}")];
    asterisk.write_all(agi_environment("1002", "acme/dial", &arguments).as_bytes()).unwrap();
    std::thread::sleep(Duration::from_millis(400));
    sidecar.signal("CONT");
    // A thread may have read the question before it stopped.
    let answer = line.line();
    assert!(answer.starts_with("1 deny ") && answer.contains("reason=too_late"), "{answer}");
    let reply: Value = serde_json::from_str(&netstring(&mut kamailio)).unwrap();
    assert_eq!(reply["result"]["reason"], "too_late");
    assert_eq!(variables(&read_to_end(&mut asterisk))["QW_REASON"], "too_late");
    assert_eq!(sidecar.get("/sessions").matches("\"queue\":").count(), 0);
    assert_eq!(sidecar.ask("dial org=acme actor=1001 digits=*45600").split(' ').nth(1), Some("action=queue.login"));
}

/// Rounds of a test that stops the sidecar at random moments.
const ROUNDS_MIN: u64 = 60;
/// Rounds after which a test gives up to wait for a stop at the moment that it is about: some 20 s.
const ROUNDS_MAX: u64 = 1_500;

/// Stops at random moments, also between the change and its answer: whoever was told no is not logged in, whoever was
/// told yes is.
#[test]
fn a_stop_at_any_moment_leaves_what_the_answers_say() {
    let sidecar = start();
    let mut line = sidecar.line();
    let mut is_in = false;
    let mut late = 0;
    for round in 0..ROUNDS_MAX {
        if round >= ROUNDS_MIN && late > 0 {
            break;
        }
        let until = in_ms(25);
        line.send(format!("1 dial org=acme actor=1001 digits=*45600 until={until}\n").as_bytes());
        std::thread::sleep(Duration::from_micros(round * 97 % 4_000));
        sidecar.signal("STOP");
        std::thread::sleep(Duration::from_millis(if round % 2 == 0 { 40 } else { 1 }));
        sidecar.signal("CONT");
        let answer = line.line();
        if answer.contains("reason=too_late") {
            late += 1;
        } else {
            assert!(answer.starts_with("1 allow "), "{answer}");
            is_in = answer.contains("action=queue.login");
        }
        assert_eq!(is_logged_in(&sidecar), is_in, "round {round}: {answer}");
    }
    assert!(late > 0, "no round was late");
}

/// The right to replace a call is there if the PBX was told of the transfer, and gone if it was told of the
/// replacement, whatever happened between the change and its answer.
#[test]
fn a_stop_at_any_moment_gives_and_takes_no_right_to_replace_a_call() {
    let sidecar = start();
    let mut line = sidecar.line();
    assert!(line.ask("do org=acme actor=1001 action=call.begin call=c-1 queue=600").contains("reported"));
    let replace = "org=acme actor=1002 action=call.replace call=c-1";
    let questions = ["org=acme actor=1001 action=call.transfer call=c-1 target=1002", replace];
    let (mut is_offered, mut late) = (false, [0, 0]);
    for round in 0..ROUNDS_MAX {
        // Which questions are late is a matter of chance: as many rounds as it takes to see both.
        if round >= ROUNDS_MIN && late.iter().all(|&count| count > 0) {
            break;
        }
        let which = usize::from(is_offered);
        line.send(format!("1 do {} until={}\n", questions[which], in_ms(25)).as_bytes());
        // An answer takes some 100 µs.
        std::thread::sleep(Duration::from_micros(round * 37 % 400));
        sidecar.signal("STOP");
        std::thread::sleep(Duration::from_millis(if round % 3 == 0 { 1 } else { 40 }));
        sidecar.signal("CONT");
        let answer = line.line();
        if answer.contains("reason=too_late") {
            late[which] += 1;
        } else {
            assert!(answer.contains("reason=transfer_offered"), "{answer}");
            is_offered = !is_offered;
        }
        let offered = sidecar.ask(&format!("may {replace}")).contains("transfer_offered");
        assert_eq!(offered, is_offered, "round {round}: {answer}");
    }
    assert!(late.iter().all(|&count| count > 0), "late transfers and replacements: {late:?}");
}

/// A disk that is slower than the asker waits: the audit log says so, and so do `changes_undone_total` and the log.
#[test]
fn the_answer_leaves_when_the_asker_stops_waiting_however_slow_the_disk_is() {
    let sidecar = start();
    let mut line = sidecar.line();
    // A past `until` of a question that changes nothing is `too_late` as well.
    assert!(line.ask(&format!("do org=acme actor=1001 action=nothing until={}", in_ms(-1))).contains("too_late"));
    let asked = Instant::now();
    let answer = line.ask(&format!("dial org=acme actor=1001 digits=*13600 until={}", in_ms(5_000)));
    assert!(answer.starts_with("allow "), "{answer}");
    assert!(asked.elapsed() < Duration::from_secs(4));
    wait_until("the figure", || sidecar.metric("queuewarden_changes_undone_total") == 0.0);
}

/// `queuewarden ask` takes the keys as any other.
#[test]
fn ask_and_explain_take_the_keys() {
    let folder = Folder::with("acme.toml", ORGANIZATION);
    let _sidecar = Sidecar::start(&folder);
    let path = folder.path().to_str().unwrap();
    let question = ["--org", "acme", "--actor", "1001", "do", "queue.login", "--queue", "600"];
    let ask = |command: &str, more: &[&str]| {
        let mut arguments = vec!["--config", path, command];
        arguments.extend(question);
        arguments.extend(more);
        run(&arguments).1
    };
    let (late, far) = (format!("until={}", in_ms(-10)), format!("until={}", in_ms(70_000)));
    assert!(ask("ask", &["--do", &late]).starts_with("deny too_late"), "{}", ask("ask", &["--do", &late]));
    let late_explained = ask("ask", &["--do", "--explain", &late]);
    assert!(late_explained.starts_with("deny too_late"), "{late_explained}");
    assert!(late_explained.contains("because `until` was over") && !late_explained.contains("something changed"));
    assert!(ask("ask", &["--do", &far]).contains("malformed (key `until`)"));
    assert!(ask("ask", &[&late, "once=a"]).starts_with("allow assigned"), "nothing is done without --do");
    assert!(ask("explain", &[&late, "once=a"]).starts_with("allow assigned"));
    assert!(ask("ask", &["--do", "once=a"]).starts_with("allow assigned"));
    assert!(ask("ask", &["--do", "once=a"]).starts_with("allow assigned"), "the first answer again");
    assert!(ask("ask", &["--do", "once=b"]).starts_with("allow already_logged_in"));
}

/// TRUTH 1 holds for reports: what is answered `too_late` changed nothing, and what was taken in time is `reported`.
#[test]
fn a_report_is_taken_however_late_its_answer_is_but_not_after_its_end() {
    let sidecar = start();
    let report = |until: &str| sidecar.ask(&format!("do org=acme actor=1001 action=call.begin call=c-1 until={until}"));
    assert_eq!(report(&in_ms(-1)), "deny reason=too_late policy=1");
    assert!(sidecar.ask("do org=acme actor=1001 action=call.end call=c-1").contains("unknown_call"));
    assert!(report(&in_ms(10_000)).contains("reason=reported"));
    let transfer = format!("do org=acme actor=1001 action=call.transfer call=c-1 target=1002 until={}", in_ms(-1));
    assert_eq!(sidecar.ask(&transfer), "deny reason=too_late policy=1");
    assert!(sidecar.ask("may org=acme actor=1002 action=call.replace call=c-1").starts_with("deny "));
}
