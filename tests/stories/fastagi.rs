//! Given an Asterisk at the FastAGI listener, when it sends an environment, whole or in pieces, valid or not, then it
//! gets one verdict, in the last line, made of fixed words and configured names. The sidecar reads Asterisk's replies.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use crate::stories::fixtures::ORGANIZATION;
use crate::support::{Folder, Sidecar, agi_environment, close_our_side, connect, read_to_end, variables, wait_until};

const ENVIRONMENT_BYTES_MAX: usize = 16 * 1024;
const ENVIRONMENT_LINES_MAX: usize = 200;
const FRAME_TIMEOUT: Duration = Duration::from_secs(2);

/// A question of a supervisor that changes no session; its answer sets every variable.
const WHISPER: (&str, &str, &[&str]) = ("2001", "acme/call.whisper", &["target=agent", "queue=q0", "call=c-77"]);

fn start() -> Sidecar {
    Sidecar::start(&Folder::with("acme.toml", ORGANIZATION))
}

fn whisper() -> String {
    agi_environment(WHISPER.0, WHISPER.1, WHISPER.2)
}

/// The answer to [`whisper`], with the options of the line dialect; `supervision.rs` tests the options.
fn whisper_allowed(sidecar: &Sidecar) -> String {
    let reply = sidecar.ask("may org=acme actor=2001 action=call.whisper target=1001 queue=600");
    let options = reply.split(' ').find_map(|pair| pair.strip_prefix("asterisk=")).expect(&reply);
    format!(
        "SET VARIABLE QW_REASON \"role_permits\"\n\
         SET VARIABLE QW_ACTION \"call.whisper\"\n\
         SET VARIABLE QW_QUEUES \"600\"\n\
         SET VARIABLE QW_TARGET \"1001-\"\n\
         SET VARIABLE QW_SPY_OPTIONS \"{options}\"\n\
         SET VARIABLE QW_VERDICT \"ALLOW\"\n"
    )
}

/// The answer to an invalid question.
fn refused(reason: &str) -> String {
    let empty: String = ["ACTION", "QUEUES", "TARGET", "SPY_OPTIONS"]
        .iter()
        .map(|variable| format!("SET VARIABLE QW_{variable} \"\"\n"))
        .collect();
    format!("SET VARIABLE QW_REASON \"{reason}\"\n{empty}SET VARIABLE QW_VERDICT \"DENY\"\n")
}

fn protocol_errors(sidecar: &Sidecar, reason: &str) -> f64 {
    sidecar.metric(&format!("queuewarden_protocol_errors_total{{dialect=\"fastagi\",reason=\"{reason}\"}}"))
}

/// Waits until every FastAGI connection has ended: its counters are final then.
fn wait_for_end(sidecar: &Sidecar) {
    wait_until("the connections to end", || sidecar.metric("queuewarden_connections{dialect=\"fastagi\"}") < 1.0);
}

fn assert_counted(sidecar: &Sidecar, reason: &str, times: usize) {
    wait_for_end(sidecar);
    assert_eq!(format!("{}", protocol_errors(sidecar, reason)), format!("{times}"), "{reason}");
}

/// Given an environment cut in two at any byte, or sent byte by byte, when it is complete, then the answer is the same:
/// six commands in a fixed order, the verdict last.
#[test]
fn however_the_environment_is_cut_the_answer_is_the_same_and_the_verdict_is_last() {
    let sidecar = start();
    let allowed = whisper_allowed(&sidecar);
    let mut elsewhere = sidecar.line();
    let environment = whisper();
    let mut converse = |pieces: &[&[u8]]| {
        let mut stream = connect(sidecar.address("fastagi"));
        for (number, piece) in pieces.iter().enumerate() {
            stream.write_all(piece).unwrap();
            // The answer to this ping proves that the sidecar had time to read the piece: pieces arrive one by one.
            // With many pieces only some are followed by a ping, because the environment must be complete within 2 s.
            if pieces.len() < 64 || number % 32 == 0 {
                assert_eq!(elsewhere.ask("ping"), "pong");
            }
        }
        assert_eq!(read_to_end(&mut stream), allowed, "first piece {:?}", pieces[0].len());
    };
    converse(&[environment.as_bytes()]);
    for cut in 1..environment.len() {
        let (first, second) = environment.as_bytes().split_at(cut);
        converse(&[first, second]);
    }
    for length in [1, 2, 19, 413] {
        let pieces: Vec<&[u8]> = environment.as_bytes().chunks(length).collect();
        converse(&pieces);
    }
}

/// Given an environment that ends at any byte, when Asterisk closes its side, then it gets a denial: Asterisk takes a
/// connection that ends without an answer for success.
#[test]
fn an_environment_that_breaks_off_is_denied() {
    let sidecar = start();
    let environment = whisper();
    for cut in 0..environment.len() {
        let mut stream = connect(sidecar.address("fastagi"));
        stream.write_all(&environment.as_bytes()[..cut]).unwrap();
        close_our_side(&stream);
        assert_eq!(read_to_end(&mut stream), refused("malformed"), "cut at {cut}");
    }
}

/// Given a verdict, when it is sent, then the sidecar closes its side and goes on reading: Asterisk replies to every
/// command and sends HANGUP at the end, also of a healthy call.
#[test]
fn after_the_verdict_our_side_closes_and_replies_are_still_read() {
    let sidecar = start();
    let allowed = whisper_allowed(&sidecar);
    let converse = |replies: &[&str]| {
        let mut stream = connect(sidecar.address("fastagi"));
        stream.write_all(whisper().as_bytes()).unwrap();
        assert_eq!(read_to_end(&mut stream), allowed);
        for reply in replies {
            stream.write_all(reply.as_bytes()).unwrap();
        }
        close_our_side(&stream);
        let rest = read_to_end(&mut stream);
        assert_eq!(rest, "", "the sidecar sends nothing after the verdict");
    };
    let confirmed = "200 result=1\n".repeat(6);
    converse(&[&format!("{confirmed}HANGUP\n")]);
    converse(&[&confirmed, "HANGUP\n"]);
    let bytes: Vec<String> = format!("{confirmed}HANGUP\n").chars().map(String::from).collect();
    converse(&bytes.iter().map(String::as_str).collect::<Vec<_>>());
    converse(&["HANGUP\n", &confirmed]);
    wait_for_end(&sidecar);
    let exposition = sidecar.get("/metrics");
    let errors = exposition.lines().filter(|line| line.starts_with("queuewarden_protocol_errors_total"));
    assert!(
        errors.clone().count() > 0 && errors.clone().all(|line| line.ends_with(" 0")),
        "{:?}",
        errors.collect::<Vec<_>>()
    );

    // Each refused command counts once: unknown command, dead channel, bad syntax (a reply of three lines).
    converse(&["510 Invalid or unknown command\n", "200 result=1\n"]);
    assert_counted(&sidecar, "verdict_refused", 1);
    converse(&["200 result=1\n511 Command Not Permitted on a dead channel or intercept routine\n"]);
    assert_counted(&sidecar, "verdict_refused", 2);
    converse(&[
        "520-Invalid command syntax.  Proper usage follows:\n",
        "Sets a variable to the current channel.\n",
        "520 End of proper usage.\n200 result=1\nHANGUP\n",
    ]);
    assert_counted(&sidecar, "verdict_refused", 3);
    assert_counted(&sidecar, "verdict_unread", 0);
    // No command was confirmed: the caller hung up.
    converse(&["HANGUP\n"]);
    assert_counted(&sidecar, "verdict_unread", 1);
    converse(&[]);
    assert_counted(&sidecar, "verdict_unread", 2);
    converse(&["200 result=1"]);
    assert_counted(&sidecar, "verdict_unread", 3);
    assert_counted(&sidecar, "verdict_refused", 3);
}

/// Given a peer that neither replies to the verdict nor disconnects, when 1 s is over, then the sidecar disconnects it.
#[test]
fn a_peer_that_stays_after_the_verdict_is_disconnected() {
    let sidecar = start();
    let allowed = whisper_allowed(&sidecar);
    let mut stays = connect(sidecar.address("fastagi"));
    stays.write_all(whisper().as_bytes()).unwrap();
    assert_eq!(read_to_end(&mut stays), allowed);
    let began = Instant::now();
    wait_for_end(&sidecar);
    assert!(began.elapsed() < Duration::from_secs(4));
}

/// Given a peer that goes on sending after the verdict, when 1 s is over, then the sidecar disconnects it: no peer may
/// occupy a connection without limit.
#[test]
fn a_peer_that_goes_on_replying_after_the_verdict_is_disconnected() {
    let sidecar = start();
    let mut talks = connect(sidecar.address("fastagi"));
    talks.write_all(whisper().as_bytes()).unwrap();
    read_to_end(&mut talks);
    let began = Instant::now();
    while sidecar.metric("queuewarden_connections{dialect=\"fastagi\"}") > 0.0 {
        drop(talks.write_all(b"200 result=1\n"));
        assert!(began.elapsed() < Duration::from_secs(4), "further bytes keep the connection open");
    }
}

/// Given a caller who hangs up before the verdict, when the sidecar reads the question, then no session begins.
#[test]
fn a_hangup_before_the_verdict_changes_nothing() {
    let sidecar = start();
    let login = agi_environment("1001", "acme/dial", &["digits=*13600"]);
    let commands = sidecar.agi_bytes(format!("{login}HANGUP\n").as_bytes());
    assert!(commands.starts_with("failure") && commands.lines().count() == 1, "{commands:?}");
    let mid_way = login.replace("agi_callingpres", "HANGUP\nagi_callingpres");
    assert_eq!(sidecar.agi_bytes(mid_way.as_bytes()), refused("malformed"));
    assert_eq!(
        sidecar.ask("dial org=acme actor=1001 digits=*14"),
        "deny action=queue.logout reason=not_logged_in policy=1"
    );
}

/// Given an environment one byte or one line over the bounds, when the sidecar reads it, then it is refused; an
/// environment at the bounds is accepted.
#[test]
fn an_environment_over_16_kib_or_200_lines_is_refused() {
    let sidecar = start();
    let allowed = whisper_allowed(&sidecar);
    let padded = |bytes: usize| {
        let body = whisper();
        let filling = bytes - body.len() - "agi_x: \n".len();
        body.replacen("agi_network: yes\n", &format!("agi_network: yes\nagi_x: {}\n", "x".repeat(filling)), 1)
    };
    assert_eq!(padded(ENVIRONMENT_BYTES_MAX).len(), ENVIRONMENT_BYTES_MAX);
    assert_eq!(sidecar.agi_bytes(padded(ENVIRONMENT_BYTES_MAX).as_bytes()), allowed);
    assert_eq!(sidecar.agi_bytes(padded(ENVIRONMENT_BYTES_MAX + 1).as_bytes()), refused("too_long"));
    let lined = |lines: usize| {
        let missing = lines - whisper().lines().count();
        "agi_x: y\n".repeat(missing) + &whisper()
    };
    assert_eq!(lined(ENVIRONMENT_LINES_MAX).lines().count(), ENVIRONMENT_LINES_MAX);
    assert_eq!(sidecar.agi_bytes(lined(ENVIRONMENT_LINES_MAX).as_bytes()), allowed);
    assert_eq!(sidecar.agi_bytes(lined(ENVIRONMENT_LINES_MAX + 2).as_bytes()), refused("too_long"));
    // An incomplete environment over a bound is refused too, also one without a line end.
    let endless = [
        format!("agi_x: {}", "x".repeat(ENVIRONMENT_BYTES_MAX)),
        "agi_x: y\n".repeat(ENVIRONMENT_LINES_MAX + 1),
        "x".repeat(ENVIRONMENT_BYTES_MAX + 1),
    ];
    for environment in &endless {
        assert_eq!(sidecar.agi_bytes(environment.as_bytes()), refused("too_long"), "{environment:.20}");
    }
    assert_counted(&sidecar, "too_long", 5);
    let mut flood = connect(sidecar.address("fastagi"));
    flood.write_all(format!("agi_x: {}", "x".repeat(1 << 20)).as_bytes()).unwrap();
    close_our_side(&flood);
    assert_eq!(read_to_end(&mut flood), refused("too_long"));
}

/// Given an incomplete environment, when 2 s are over since the connection began, then the answer is deny with
/// `timed_out`, also if single bytes go on arriving.
#[test]
fn an_environment_that_is_not_complete_in_two_seconds_is_denied() {
    let sidecar = start();
    let environment = whisper();
    let began = Instant::now();
    thread::scope(|scope| {
        let address = sidecar.address("fastagi");
        let environment = &environment;
        let outcome = move |mut stream: TcpStream| {
            assert_eq!(read_to_end(&mut stream), refused("timed_out"));
            let took = began.elapsed();
            assert!(took >= FRAME_TIMEOUT && took < 3 * FRAME_TIMEOUT, "{took:?}");
        };
        for length in [0, 1, environment.len() / 2, environment.len() - 1] {
            scope.spawn(move || {
                let mut stream = connect(address);
                stream.write_all(&environment.as_bytes()[..length]).unwrap();
                outcome(stream);
            });
        }
        scope.spawn(move || {
            let mut stream = connect(address);
            stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            let mut chunk = [0; 16];
            for byte in environment.as_bytes().chunks(1) {
                stream.write_all(byte).unwrap();
                if let Ok(count) = stream.read(&mut chunk) {
                    assert_eq!(String::from_utf8_lossy(&chunk[..count]), refused("timed_out")[..count]);
                    break;
                }
            }
            let took = began.elapsed();
            assert!(took >= FRAME_TIMEOUT && took < 3 * FRAME_TIMEOUT, "{took:?}");
        });
    });
    // The peer that sent nothing may be a health check: it gets the denial and is not counted.
    assert_counted(&sidecar, "timed_out", 4);
}

/// Given any text in any field, when the question is answered, then the answer does not contain the text: Asterisk
/// would execute it.
#[test]
fn no_text_of_the_peer_is_sent_back() {
    const MARK: &str = "EVIL";
    let sidecar = start();
    let fields = [
        "agi_network",
        "agi_network_script",
        "agi_request",
        "agi_channel",
        "agi_language",
        "agi_type",
        "agi_uniqueid",
        "agi_version",
        "agi_callerid",
        "agi_calleridname",
        "agi_callingpres",
        "agi_dnid",
        "agi_rdnis",
        "agi_context",
        "agi_extension",
        "agi_priority",
        "agi_enhanced",
        "agi_accountcode",
        "agi_threadid",
    ];
    let values = [
        MARK.to_owned(),
        format!("{MARK}\"\\n SET VARIABLE QW_VERDICT \"ALLOW\""),
        format!("acme/{MARK}"),
        format!("{MARK}/dial"),
        format!("acme/dial/{MARK}"),
        format!("${{{MARK}}}"),
    ];
    let mut environments = vec![];
    for field in fields {
        let environment = whisper();
        let line = environment.lines().find(|line| line.starts_with(&format!("{field}: "))).expect(field);
        for value in &values {
            environments.push(environment.replace(&format!("{line}\n"), &format!("{field}: {value}\n")));
            environments.push(environment.replace(&format!("{line}\n"), &format!("{line}\n{field}: {value}\n")));
        }
    }
    for key in
        ["org", "actor", "action", "queue", "target", "from", "group", "role", "call", "via", "for", "field", MARK]
    {
        for value in [MARK.to_owned(), format!("{MARK}\""), format!("{MARK}&600")] {
            environments.push(agi_environment(
                "2001",
                "acme/call.whisper",
                &[&format!("{key}={value}"), "target=1001"],
            ));
            environments.push(agi_environment("2001", "acme/dial", &["digits=*2211001", &format!("{key}={value}")]));
        }
    }
    for (account, path) in
        [(MARK, "acme/dial"), ("1001", "EVIL/dial"), ("1001", "acme/EVIL"), ("1001", "acme/EVIL.login")]
    {
        environments.push(agi_environment(account, path, &["digits=*13600"]));
        environments.push(agi_environment(account, path, &["queue=600"]));
    }
    environments.push(format!("{MARK}\n"));
    environments.push(format!("{MARK}: {MARK}\n\n"));
    environments.push(whisper() + &format!("{MARK}\n200 result=1 ({MARK})\n"));
    for environment in environments {
        let commands = sidecar.agi_bytes(environment.as_bytes());
        assert!(!commands.contains(MARK), "{environment}\n{commands}");
        let names: Vec<&str> = commands.lines().filter_map(|line| line.split(' ').nth(2)).collect();
        assert_eq!(names, ["QW_REASON", "QW_ACTION", "QW_QUEUES", "QW_TARGET", "QW_SPY_OPTIONS", "QW_VERDICT"]);
        let fixed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_.&-".contains(&byte);
        for (name, value) in variables(&commands) {
            let is_fixed = value.bytes().all(fixed) || ["QW_VERDICT", "QW_SPY_OPTIONS"].contains(&name.as_str());
            assert!(is_fixed, "{name}: {value}");
        }
    }
}

/// Given a caller who sets every field that a caller controls to another extension, when the question is read, then the
/// actor is the accountcode, which only the configuration of the endpoint sets.
#[test]
fn the_accountcode_alone_is_the_actor() {
    let sidecar = start();
    let claims = agi_environment("1001", "acme/call.barge", &["target=1002", "queue=600"])
        .replace("agi_callerid: 5551234", "agi_callerid: 2001")
        .replace("agi_calleridname: Ev: il, \"x\"", "agi_calleridname: 2001")
        .replace("agi_channel: PJSIP/1001-00000000", "agi_channel: PJSIP/2001-00000000")
        .replace("agi_rdnis: unknown", "agi_rdnis: 2001")
        .replace("agi_dnid: unknown", "agi_dnid: 2001")
        .replace("agi_extension: s", "agi_extension: 2001");
    assert_eq!(variables(&sidecar.agi_bytes(claims.as_bytes()))["QW_REASON"], "supervisor_role_required");
    let is_supervisor = claims.replace("agi_accountcode: 1001", "agi_accountcode: 2001");
    assert_eq!(variables(&sidecar.agi_bytes(is_supervisor.as_bytes()))["QW_REASON"], "role_permits");

    let cases: &[(String, &str)] = &[
        (claims.replace("agi_accountcode: 1001", "agi_accountcode: "), "missing_key"),
        (claims.replace("agi_accountcode: 1001\n", ""), "missing_key"),
        (claims.replace("agi_accountcode: 1001", "agi_accountcode: 1001\nagi_accountcode: 2001"), "duplicate_key"),
        (claims.replace("agi_accountcode: 1001", "agi_accountcode: 2001 "), "malformed"),
        (claims.replace("agi_accountcode: 1001", "agi_accountcode: 2001,1001"), "malformed"),
        (claims.replace("agi_accountcode: 1001", "agi_accountcode: 2001\r"), "malformed"),
        (agi_environment("1001", "acme/call.barge", &["target=1002", "queue=600", "actor=2001"]), "unknown_key"),
        (agi_environment("1001", "acme/dial", &["digits=*13600", "actor=2001"]), "unknown_key"),
        (agi_environment("1001", "acme/dial", &["digits=*13600", "org=acme"]), "unknown_key"),
        (agi_environment("1001", "acme/dial", &["digits=*13600", "action=call.barge"]), "unknown_key"),
        (agi_environment("", "acme/dial", &["digits=*13600", "actor=1001"]), "missing_key"),
    ];
    for (environment, reason) in cases {
        assert_eq!(sidecar.agi_bytes(environment.as_bytes()), refused(reason), "{environment}");
    }
}

/// Given a URL and arguments that are not a valid question, when they are read, then the answer is deny with the reason
/// of the line dialect.
#[test]
fn an_invalid_question_is_denied_with_its_reason() {
    let sidecar = start();
    let cases: &[(&str, &[&str], &str)] = &[
        ("acme", &["digits=*13"], "malformed"),
        ("", &["digits=*13"], "malformed"),
        ("/dial", &["digits=*13"], "malformed"),
        ("acme/", &["digits=*13"], "malformed"),
        ("acme/dial/", &["digits=*13"], "malformed"),
        ("acme/dial/now", &["digits=*13"], "malformed"),
        ("acme/dial?digits=*13", &[], "malformed"),
        ("ac me/dial", &["digits=*13"], "malformed"),
        ("acme/queue login", &["queue=600"], "malformed"),
        ("acme/dial", &["digits"], "malformed"),
        ("acme/dial", &[""], "malformed"),
        ("acme/dial", &["digits="], "malformed"),
        ("acme/dial", &["digits=*13 600"], "malformed"),
        ("acme/dial", &["digits=13a"], "malformed"),
        ("acme/dial", &[" digits=*13"], "malformed"),
        ("acme/queue.login", &["queue=600,601"], "malformed"),
        ("acme/queue.login", &["queue=600&601"], "malformed"),
        ("acme/queue.login", &["via=fax"], "malformed"),
        ("acme/dial", &["digits=*13", "target=1001"], "unknown_key"),
        ("acme/dial", &["digits=*13", "colour=red"], "unknown_key"),
        ("acme/queue.login", &["digits=*13"], "unknown_key"),
        ("acme/queue.login", &["token=x"], "unknown_key"),
        ("acme/dial", &["digits=*13", "digits=*13"], "duplicate_key"),
        ("acme/queue.login", &["queue=600", "queue=600"], "duplicate_key"),
        ("acme/dial", &["digits=*13600", "queue=600"], "duplicate_key"),
    ];
    for (path, arguments, reason) in cases {
        let commands = sidecar.agi_bytes(agi_environment("1001", path, arguments).as_bytes());
        assert_eq!(commands, refused(reason), "{path} {arguments:?}");
    }
    let good = agi_environment("1001", "acme/dial", &["digits=*13600"]);
    let raw: &[(String, &str)] = &[
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), "malformed"),
        ("\n".to_owned(), "missing_key"),
        ("\r\n".to_owned(), "malformed"),
        (good.replace("agi_network: yes", "agi_network:yes"), "malformed"),
        (good.replace("agi_network: yes", "agi network: yes"), "malformed"),
        (good.replace("agi_network: yes", ": yes"), "malformed"),
        (good.replace('\n', "\r\n"), "malformed"),
        (good.replace("agi_network_script: acme/dial\n", ""), "missing_key"),
        (
            good.replace(
                "agi_network_script: acme/dial\n",
                "agi_network_script: acme/dial\nagi_network_script: acme/dial\n",
            ),
            "duplicate_key",
        ),
        (good.replace("agi_extension: s\n", "agi_extension: s\nagi_extension: *13600\n"), "duplicate_key"),
        (good.replace("agi_dnid: unknown\n", "agi_dnid: unknown\nagi_dnid: *13600\n"), "duplicate_key"),
    ];
    for (environment, reason) in raw {
        assert_eq!(sidecar.agi_bytes(environment.as_bytes()), refused(reason), "{environment:?}");
    }
    assert_eq!(
        sidecar.ask("dial org=acme actor=1001 digits=*14"),
        "deny action=queue.logout reason=not_logged_in policy=1"
    );
}

/// Given `/ORG/dial` without `digits`, when every argument is valid, then the digits are taken from `agi_extension`, or
/// else from `agi_dnid`.
#[test]
fn digits_come_from_the_argument_else_the_extension_else_the_number_dialed() {
    let sidecar = start();
    let cases: &[(&[&str], &str, &str, &str)] = &[
        (&["digits=*15600"], "*13600", "*14600", "queue.pause"),
        (&[], "*13600", "*14600", "queue.login"),
        (&[], "s", "*14600", "queue.logout"),
        (&["queue=600"], "s", "*16", "queue.resume"),
        (&["via=phone"], "h", "*15600", "queue.pause"),
    ];
    let environment = |arguments: &[&str], extension: &str, dialed: &str| {
        agi_environment("1001", "acme/dial", arguments)
            .replace("agi_extension: s\n", &format!("agi_extension: {extension}\n"))
            .replace("agi_dnid: unknown\n", &format!("agi_dnid: {dialed}\n"))
    };
    for (arguments, extension, dialed, action) in cases {
        let commands = sidecar.agi_bytes(environment(arguments, extension, dialed).as_bytes());
        assert_eq!(variables(&commands)["QW_ACTION"], *action, "{arguments:?} {extension} {dialed}");
    }
    for (arguments, extension, dialed, reason) in [
        (&[][..], "s", "unknown", "missing_key"),
        (&[], "", "", "missing_key"),
        (&[], "s", "13a", "missing_key"),
        (&["queue"], "*13600", "*13600", "malformed"),
        (&["digits=x"], "*13600", "*13600", "malformed"),
        (&["digits="], "*13600", "*13600", "malformed"),
        (&["actor=2001"], "*13600", "*13600", "unknown_key"),
        (&["queue=600"], "*13600", "unknown", "duplicate_key"),
    ] {
        let commands = sidecar.agi_bytes(environment(arguments, extension, dialed).as_bytes());
        assert_eq!(commands, refused(reason), "{arguments:?} {extension} {dialed}");
    }
    // A named action ignores both.
    let named = environment(&[], "*14600", "*14600").replace("acme/dial", "acme/queue.login");
    assert_eq!(variables(&sidecar.agi_bytes(named.as_bytes()))["QW_ACTION"], "queue.login");
}

/// Given an answer with several queues, when it is sent to Asterisk, then `&` separates the queues: the dialplan loop
/// over `AddQueueMember` splits at `&`.
#[test]
fn several_queues_are_joined_by_ampersands() {
    let sidecar = start();
    let answer = sidecar.agi("1003", "acme/dial", &["digits=*13"]);
    assert_eq!((&*answer["QW_VERDICT"], &*answer["QW_QUEUES"]), ("ALLOW", "600&601"));
}

/// FastAGI has no `may`: every question is carried out. A path or an argument that tries it changes nothing.
#[test]
fn a_question_that_only_asks_is_none_in_fastagi() {
    let sidecar = start();
    for (path, arguments, reason) in [
        ("acme/may/queue.login", &["queue=600"][..], "malformed"),
        ("may/acme/queue.login", &["queue=600"], "malformed"),
        ("acme/may", &["action=queue.login", "queue=600"], "unknown_key"),
        ("acme/may", &["queue=600"], "unknown_action"),
        ("acme/queue.login", &["queue=600", "verb=may"], "malformed"),
        ("acme/queue.login", &["queue=600", "may"], "malformed"),
    ] {
        let answer = sidecar.agi("1001", path, arguments);
        assert_eq!((&*answer["QW_VERDICT"], &*answer["QW_REASON"]), ("DENY", reason), "{path} {arguments:?}");
    }
    assert!(sidecar.ask("may org=acme actor=1001 action=queue.logout queue=600").contains("not_logged_in"));
}
