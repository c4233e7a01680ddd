//! Given a FreeSWITCH that connects to the outbound socket, when it sends a channel, then the sidecar sends `connect`,
//! one answer made of fixed words and configured names, and `exit`. The sidecar sends nothing else, whatever the peer
//! sends.
//!
//! Here FreeSWITCH is a script that sends the bytes that a real FreeSWITCH 1.11.1 sent (`captures/`, one file a
//! connection).

use std::collections::HashMap;
use std::fs;
use std::io::Read;

use crate::stories::fixtures::{ORGANIZATION, by_line};
use crate::support::{
    Folder, FreeSwitchPeer, Sidecar, channel_block, channel_variables, close_our_side, connect, project, url_encoded,
    wait_until,
};

const BLOCK_BYTES_MAX: usize = 64 * 1024;

/// Distance in bytes between two cuts of a long exchange; odd, so that the cuts fall on different bytes of a line.
const STRIDE: usize = 61;

fn start() -> Sidecar {
    Sidecar::start(&Folder::with("acme.toml", ORGANIZATION))
}

fn protocol_errors(sidecar: &Sidecar, reason: &str) -> f64 {
    sidecar.metric(&format!("queuewarden_protocol_errors_total{{dialect=\"freeswitch\",reason=\"{reason}\"}}"))
}

fn assert_counted(sidecar: &Sidecar, reason: &str, times: usize) {
    wait_until(&format!("{times} times {reason}"), || {
        format!("{}", protocol_errors(sidecar, reason)) == times.to_string()
    });
}

/// Sends a channel with these variables. Returns verdict, reason, action, queues and target.
fn ask(sidecar: &Sidecar, destination: &str, variables: &[(&str, &str)]) -> String {
    in_short(&FreeSwitchPeer::ring(sidecar).ask(&channel_block(destination, variables)))
}

fn in_short(set: &HashMap<String, String>) -> String {
    let value = |name: &str| set[&format!("qw_{name}")].as_str();
    let words = ["verdict", "reason", "action", "queues", "target"].map(value);
    words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_authenticated_user_dials_and_is_answered() {
    let sidecar = start();
    let agent = [("qw_org", "acme"), ("user_name", "1001")];
    let supervisor = [("qw_org", "acme"), ("sip_auth_username", "2001"), ("qw_queue", "q0")];
    assert_eq!(ask(&sidecar, "*13600", &agent), "allow assigned queue.login 600");
    assert_eq!(ask(&sidecar, "*13600", &agent), "allow already_logged_in queue.login 600");
    assert_eq!(ask(&sidecar, "*13601", &agent), "deny unassigned_barred queue.login 601");
    assert_eq!(ask(&sidecar, "%2A14", &agent), "allow logged_out queue.logout 600");
    assert_eq!(ask(&sidecar, "*99", &agent), "deny unknown_feature_code");
    assert_eq!(ask(&sidecar, "*2221001", &supervisor), "allow role_permits call.whisper 600 1001");
    assert_eq!(
        ask(&sidecar, "*2231001", &[("qw_org", "acme"), ("user_name", "1002"), ("qw_queue", "600")]),
        "deny supervisor_role_required call.barge 600"
    );
    let several = [("qw_org", "acme"), ("user_name", "1003"), ("qw_digits", "*13")];
    assert_eq!(ask(&sidecar, "anything", &several), "allow assigned queue.login 600,601");
    let named = [
        ("qw_org", "acme"),
        ("user_name", "2001"),
        ("qw_verb", "do"),
        ("qw_action", "agent.login"),
        ("qw_target", "1001"),
        ("qw_queue", "600"),
    ];
    assert_eq!(ask(&sidecar, "*13600", &named), "allow supervisor_login agent.login 600 1001");
}

/// The answer to an allowed supervision disables the keypad of the listener.
#[test]
fn an_allowed_supervision_leaves_the_listener_no_keys() {
    let sidecar = start();
    let options_of = |code: &str| {
        let variables = [("qw_org", "acme"), ("user_name", "2001"), ("qw_queue", "600")];
        let mut set = FreeSwitchPeer::ring(&sidecar).ask(&channel_block(code, &variables));
        set.retain(|name, _| name.starts_with("eavesdrop_"));
        let mut options: Vec<String> = set.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        options.sort_unstable();
        options
    };
    assert_eq!(options_of("*2211001"), ["eavesdrop_enable_dtmf=false"]);
    assert_eq!(options_of("*2221001"), ["eavesdrop_enable_dtmf=false", "eavesdrop_whisper_bleg=true"]);
    assert_eq!(
        options_of("*2231001"),
        ["eavesdrop_enable_dtmf=false", "eavesdrop_whisper_aleg=true", "eavesdrop_whisper_bleg=true"]
    );
    assert_eq!(options_of("*2211004"), Vec::<String>::new(), "denied");
}

/// The actor is never taken from the caller id, the dialed number or headers of the caller.
#[test]
fn the_caller_id_is_never_the_actor() {
    let sidecar = start();
    let cases: &[(&[(&str, &str)], &str)] = &[
        (&[], "deny missing_key"),
        (&[("user_name", "_undef_")], "deny missing_key"),
        (&[("effective_caller_id_number", "2001"), ("sip_h_X-user_name", "2001")], "deny missing_key"),
        (&[("sip_h_X-qw_actor", "2001"), ("user_name", "1001")], "deny supervisor_role_required call.barge 600"),
        (&[("qw_actor", "2001"), ("user_name", "1001")], "deny unknown_key"),
        (&[("user_name", "1001"), ("user_name", "2001")], "deny duplicate_key"),
        (&[("user_name", "1001%0A2001")], "deny malformed"),
        (&[("user_name", "2001")], "allow role_permits call.barge 600 1002"),
    ];
    for (variables, answer) in cases {
        let variables = [&[("qw_org", "acme"), ("qw_queue", "600")], *variables].concat();
        assert_eq!(ask(&sidecar, "*2231002", &variables), *answer, "{variables:?}");
    }
}

/// One recorded connection of a real FreeSWITCH.
struct Exchange {
    name: String,
    block: String,
    replies: String,
}

impl Exchange {
    fn all() -> Vec<Self> {
        let files = fs::read_dir(project().join("tests/stories/freeswitch/captures")).unwrap();
        let mut exchanges: Vec<Self> = files
            .map(|file| {
                let path = file.unwrap().path();
                let text = fs::read_to_string(&path).unwrap();
                let end = text.find("\n\n").expect("a block ends in an empty line") + 2;
                let (block, replies) = text.split_at(end);
                let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
                Self { name, block: block.to_owned(), replies: replies.to_owned() }
            })
            .collect();
        exchanges.sort_by(|one, other| one.name.cmp(&other.name));
        assert!(exchanges.len() >= 5, "exchanges are missing");
        exchanges
    }

    /// The same call of an authenticated user, with queuewarden's variables. The question changes no session.
    fn with_our_variables(&self) -> String {
        let ours = [("user_name", "2001"), ("qw_org", "acme"), ("qw_digits", "*2211001"), ("qw_call", "a%40b")];
        let ours: String = ours.iter().map(|(name, value)| format!("variable_{name}: {value}\n")).collect();
        let at = self.block.find("variable_direction").unwrap();
        format!("{}{ours}variable_qw_queue: 600\n{}", &self.block[..at], &self.block[at..])
    }
}

#[test]
fn recorded_freeswitch_calls_are_understood_wherever_they_are_cut() {
    let sidecar = start();
    let mut elsewhere = sidecar.line();
    let mut pause = || assert_eq!(elsewhere.ask("ping"), "pong");
    let mut line = sidecar.line();
    let decided = by_line(&mut line, "acme", "2001 *2211001 queue=600 call=a@b") + " 1001";
    let mut refused = 0;
    for exchange in Exchange::all() {
        let stride = if exchange.name == "login" { 1 } else { STRIDE };
        for (block, answer) in [(exchange.block.clone(), "deny malformed"), (exchange.with_our_variables(), &decided)] {
            for cut in (0..=block.len()).step_by(stride) {
                let mut peer = FreeSwitchPeer::ring(&sidecar);
                peer.say(&block.as_bytes()[..cut]);
                pause();
                peer.say(&block.as_bytes()[cut..]);
                let result = in_short(&channel_variables(&peer.commands()));
                assert_eq!(result, answer, "{} cut at {cut}", exchange.name);
                refused += usize::from(result == "deny malformed");
                peer.say(exchange.replies.as_bytes());
            }
        }
        for cut in (0..=exchange.replies.len()).step_by(stride.min(7)) {
            let mut peer = FreeSwitchPeer::ring(&sidecar);
            peer.say(exchange.with_our_variables().as_bytes());
            assert_eq!(in_short(&channel_variables(&peer.commands())), decided);
            let (first, second) = exchange.replies.as_bytes().split_at(cut);
            peer.say(first);
            pause();
            peer.say(second);
        }
    }
    assert_counted(&sidecar, "malformed", refused);
    for reason in ["verdict_unread", "verdict_refused", "timed_out"] {
        assert_counted(&sidecar, reason, 0);
    }
}

/// After `exit` the sidecar waits until FreeSWITCH closes the connection, and does not close its own side first.
#[test]
fn our_side_stays_open_until_freeswitch_closes() {
    let sidecar = start();
    let mut peer = FreeSwitchPeer::ring(&sidecar);
    peer.say(channel_block("*13600", &[("qw_org", "acme"), ("user_name", "1001")]).as_bytes());
    assert!(peer.commands().ends_with("exit\n\n"));
    peer.0.set_nonblocking(true).unwrap();
    let nothing = peer.0.read(&mut [0]).unwrap_err();
    assert_eq!(nothing.kind(), std::io::ErrorKind::WouldBlock);
    peer.0.set_nonblocking(false).unwrap();
    peer.say(FreeSwitchPeer::GOODBYE.as_bytes());
    close_our_side(&peer.0);
    assert_eq!(peer.0.read(&mut [0]).unwrap(), 0);
    // A peer that never closes is disconnected.
    let mut lingering = FreeSwitchPeer::ring(&sidecar);
    lingering.say(channel_block("*14600", &[("qw_org", "acme"), ("user_name", "1001")]).as_bytes());
    lingering.commands();
    assert_eq!(lingering.0.read(&mut [0]).unwrap(), 0);
    assert_counted(&sidecar, "verdict_unread", 1);
}

#[test]
fn a_refused_command_and_a_caller_who_is_gone_are_counted() {
    let sidecar = start();
    let block = channel_block("*2211001", &[("qw_org", "acme"), ("user_name", "2001"), ("qw_queue", "600")]);
    let mut refuses = FreeSwitchPeer::ring(&sidecar);
    refuses.say(block.as_bytes());
    refuses.commands();
    refuses.say(FreeSwitchPeer::GOODBYE.replace("+OK\n", "-ERR invalid session id\n").as_bytes());
    drop(refuses);
    assert_counted(&sidecar, "verdict_refused", 1);
    let mut goes = FreeSwitchPeer::ring(&sidecar);
    goes.say(block.as_bytes());
    goes.commands();
    drop(goes);
    assert_counted(&sidecar, "verdict_unread", 1);
}

/// Peers that are silent, send NUL bytes, close early, or are not a FreeSWITCH.
#[test]
fn other_peers_get_a_denial_and_are_closed() {
    let sidecar = start();
    let answer_to = |bytes: &[u8]| {
        let mut peer = FreeSwitchPeer::ring(&sidecar);
        peer.say(bytes);
        in_short(&channel_variables(&peer.commands()))
    };
    for bytes in [&b"\0\x01\x02\xff"[..], b"HTTP/1.1 400 Bad Request\r\n\r\n", b"hello there\n\n", b"x: y\nno\n"] {
        assert_eq!(answer_to(bytes), "deny malformed", "{}", bytes.escape_ascii());
    }
    assert_counted(&sidecar, "malformed", 4);
    assert_eq!(answer_to(&vec![b'x'; BLOCK_BYTES_MAX]), "deny too_long");
    let good = channel_block("*13600", &[("qw_org", "acme"), ("user_name", "1001")]);
    let padded = |length: usize| format!("Padding: {}\n{good}", "x".repeat(length - good.len() - 10));
    assert_eq!(answer_to(padded(BLOCK_BYTES_MAX).as_bytes()), "allow assigned queue.login 600");
    assert_eq!(answer_to(padded(BLOCK_BYTES_MAX + 1).as_bytes()), "deny too_long");

    let mut silent = FreeSwitchPeer::ring(&sidecar);
    let mut stuck = FreeSwitchPeer::ring(&sidecar);
    stuck.say(&good.as_bytes()[..good.len() - 1]);
    for peer in [&mut silent, &mut stuck] {
        assert_eq!(in_short(&channel_variables(&peer.commands())), "deny timed_out");
    }
    let mut early = FreeSwitchPeer::ring(&sidecar);
    early.say(&good.as_bytes()[..40]);
    close_our_side(&early.0);
    assert_eq!(in_short(&channel_variables(&early.commands())), "deny malformed");
    // The silent peer may be a health check: it gets the denial and is not counted.
    assert_counted(&sidecar, "timed_out", 1);
    assert_counted(&sidecar, "malformed", 5);
    let again = sidecar.ask("may org=acme actor=1001 action=queue.login queue=600");
    assert!(again.contains("already_logged_in"), "only complete questions change the sessions: {again}");
}

/// FreeSWITCH expands the values that it sets, so the sidecar must not send text of a caller.
#[test]
fn no_text_of_the_caller_is_sent_to_freeswitch() {
    const MARK: &str = "EVIL";
    let sidecar = start();
    let values = [MARK, "${system(EVIL)}", "EVIL\n\nsendmsg\n", "EVIL qw_verdict=allow", "EVIL\0"];
    let names = ["org", "verb", "digits", "action", "target", "queue", "call", "via", "to_tag", MARK];
    for value in values.map(url_encoded) {
        for name in names.map(|name| format!("qw_{name}")) {
            for verb in ["dial", "do", "may"] {
                let mut variables = vec![("user_name", "2001"), (&*name, &*value)];
                variables.extend([("qw_org", "acme"), ("qw_verb", verb)].iter().filter(|(other, _)| *other != name));
                let block = channel_block("*2211001", &variables);
                let mut peer = FreeSwitchPeer::ring(&sidecar);
                peer.say(block.as_bytes());
                let received = peer.commands();
                assert!(!received.contains(MARK), "{block}\n{received}");
                let fixed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_.,-".contains(&byte);
                for (name, value) in channel_variables(&received) {
                    assert!(value.bytes().all(fixed), "{name}={value}");
                }
                peer.say(FreeSwitchPeer::GOODBYE.as_bytes());
            }
        }
    }
    let answer =
        in_short(&FreeSwitchPeer::ring(&sidecar).ask(&channel_block(MARK, &[("qw_org", MARK), ("user_name", MARK)])));
    assert_eq!(answer, "deny malformed");
}

/// A connection beyond the limit is sent `connect` and a denial at once.
#[test]
fn beyond_the_connection_limit_freeswitch_gets_a_denial() {
    let folder = Folder::with("acme.toml", ORGANIZATION);
    folder.write("queuewarden.toml", &(folder.read("queuewarden.toml") + "[limits]\nconnections_max = 1\n"));
    let sidecar = Sidecar::start(&folder);
    let _first = FreeSwitchPeer::ring(&sidecar);
    let mut second = connect(sidecar.address("freeswitch"));
    let mut received = String::new();
    second.read_to_string(&mut received).unwrap();
    let commands = received.strip_prefix("connect\n\n").expect(&received);
    assert_eq!(in_short(&channel_variables(commands)), "deny overload");
}
