//! Given a real Kamailio with the shipped configuration, when a phone sends a feature code, `Join`, `Replaces`, a REFER
//! or a SUBSCRIBE, then Kamailio asks the sidecar for the action that the configuration documents. Both transports give
//! the same answer, and no request passes without a verdict.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::support::kamailio_lab::{KamailioLab, Transport};
use crate::support::{Sidecar, connect, wait_until};

/// Longest time until a refusal: the timeout of the shipped configuration and a tick of Kamailio's timer, with a
/// reserve for a busy machine. It is far below the timers of SIP.
const REFUSED_WITHIN: Duration = Duration::from_secs(3);

#[test]
fn a_code_passes_if_its_caller_may() {
    for transport in Transport::BOTH {
        let lab = KamailioLab::start(transport);
        assert_eq!(lab.phone("1001").dial("*13600"), 200, "{transport:?}");
        assert_eq!(lab.phone("1001").dial("%2A13%36%300"), 200, "an escaped code is the same code");
        assert_eq!(lab.phone("1001").dial("*13602"), 403);
        assert_eq!(lab.phone("1001").dial("*99"), 403, "not a feature code of the organization");
        assert_eq!(lab.phone("1001").dial("1002"), 200, "a plain call is not asked about");
        for (code, action) in [("*2211001", "call.listen"), ("*2221001", "call.whisper"), ("*2231001", "call.barge")] {
            assert_eq!(lab.phone("2001").dial(code), 200, "{code}");
            assert_eq!(lab.phone("1002").dial(code), 403, "{code}");
            assert!((lab.decided(action, "allow", "role_permits") - 1.0).abs() < f64::EPSILON, "{code}");
            assert!((lab.decided(action, "deny", "supervisor_role_required") - 1.0).abs() < f64::EPSILON, "{code}");
        }
        let passed: Vec<String> = lab.pbx.requests("INVITE");
        let passed: Vec<&str> = passed.iter().map(|request| request.split('@').next().unwrap()).collect();
        assert_eq!(passed.len(), 6, "{passed:?}");
        assert!(lab.pbx.requests("INVITE")[0].contains("P-Asserted-Identity: <sip:1001@"), "the PBX gets the user");
        assert!(!lab.pbx.requests("INVITE")[0].contains("Proxy-Authorization"), "the PBX does not get the credentials");
    }
}

/// The actor is the user of the digest authentication. Other headers do not count.
#[test]
fn a_caller_without_the_password_of_the_user_is_refused() {
    let lab = KamailioLab::start(Transport::JsonRpc);
    assert_eq!(lab.phone("1001").with_password("wrong").dial("*13600"), 407);
    assert_eq!(lab.phone("1001").with_password("wrong").ask("SUBSCRIBE", "1002", &["Event: dialog"]), 407);
    let claims = ["P-Asserted-Identity: <sip:2001@lab.example>", "Remote-Party-ID: <sip:2001@lab.example>"];
    assert_eq!(lab.phone("1002").ask("INVITE", "*2231001", &claims), 403);
    assert_eq!(lab.phone("2001").ask("INVITE", "*2231001", &claims[..1]), 200);
    let asserted = lab.pbx.requests("INVITE")[0].matches("P-Asserted-Identity").count();
    assert_eq!(asserted, 1, "the header of the phone is removed");
    let around = format!("Route: <sip:evil@{};lr>", lab.pbx.address);
    assert_eq!(lab.phone("1001").ask("INVITE", "1002", &[&around]), 403, "a `Route` of the phone is refused");
}

/// FIELD C5: the toggle of the pause, with and without the extension of the key's user.
#[test]
fn the_toggle_of_the_pause_is_a_code() {
    for transport in Transport::BOTH {
        let preset = |name: &str| format!("feature_code_preset = \"{name}\"");
        let lab = KamailioLab::with_organization(transport, &preset("asterisk"), &preset("freepbx"));
        let is_paused = || {
            let sessions = lab.sidecar().ask("may org=acme actor=1001 action=queue.toggle_pause queue=600");
            assert!(sessions.contains("allow"), "{sessions}");
            sessions.contains("action=queue.resume")
        };
        assert_eq!(lab.phone("1001").dial("*46600"), 403, "{transport:?}: not logged in");
        assert_eq!(lab.phone("1001").dial("*45600"), 200, "{transport:?}");
        for (code, paused) in [("*46600", true), ("*46*1001*600", false), ("%2A46", true), ("*46*1001", false)] {
            assert_eq!(lab.phone("1001").dial(code), 200, "{transport:?} {code}");
            assert_eq!(is_paused(), paused, "{transport:?} {code}");
            assert_eq!(lab.phone("1002").dial(code), 403, "{transport:?} {code}: the key of another phone, or not in");
        }
        assert_eq!(lab.pbx.requests("INVITE").len(), 5, "{transport:?}");
    }
}

#[test]
fn join_and_replaces_are_asked_by_the_call_they_name() {
    for transport in Transport::BOTH {
        let lab = KamailioLab::start(transport);
        let before = lab.pbx.requests("INVITE").len();
        for header in ["Join", "Replaces"] {
            let action = if header == "Join" { "call.join" } else { "call.replace" };
            let named = format!("{header}: 425928@bobster.example.org;to-tag=7743;from-tag=6472");
            // No PBX has reported this call to the sidecar.
            assert_eq!(lab.phone("2001").ask("INVITE", "1001", &[&named]), 403, "{transport:?} {header}");
            assert!((lab.decided(action, "deny", "unknown_call") - 1.0).abs() < f64::EPSILON, "{header}");
            let within = {
                let mut phone = lab.phone("2001");
                phone.to_tag = Some("made-up".to_owned());
                phone.ask("INVITE", "1001", &[&named, &format!("Route: <sip:{};lr>", lab.sip())])
            };
            assert_eq!(within, 403, "{header} within a dialog");
            let twice = [&*named, &named];
            assert_eq!(lab.phone("2001").ask("INVITE", "1001", &twice), 400, "two of {header}");
            for named in [format!("{header}: a b;to-tag=1;from-tag=2"), format!("{header}: \"}}{{;to-tag=1;from-tag=2")]
            {
                assert_eq!(lab.phone("2001").ask("INVITE", "1001", &[&named]), 400, "{named}");
            }
        }
        let both = ["Join: a@b;to-tag=1;from-tag=2", "Replaces: a@b;to-tag=1;from-tag=2"];
        assert_eq!(lab.phone("2001").ask("INVITE", "1001", &both), 400);
        assert_eq!(lab.pbx.requests("INVITE").len(), before, "no INVITE passed");
    }
}

#[test]
fn a_refer_is_a_dial_of_the_code_inside() {
    for transport in Transport::BOTH {
        let lab = KamailioLab::start(transport);
        let refer = |user: &'static str, to: &str| lab.phone(user).ask("REFER", "1002", &[&format!("Refer-To: {to}")]);
        assert_eq!(refer("2001", "<sip:*2231001@lab.example;method=INVITE>"), 202, "{transport:?}");
        assert_eq!(refer("1002", "<sip:*2231001@lab.example;method=INVITE>"), 403);
        assert_eq!(refer("1002", "<sip:%2a2231001@lab.example>"), 403);
        assert_eq!(refer("1002", "<sip:1001@lab.example>"), 202, "a plain transfer");
        assert_eq!(refer("1002", "<tel:*2231001>"), 403);
        for inside in ["Replaces=a%40b%3Bto-tag%3D1%3Bfrom-tag%3D2", "x=y&Re%70laces=a%40b%3Bto-tag%3D1%3Bfrom-tag%3D2"]
        {
            assert_eq!(refer("2001", &format!("<sip:1001@lab.example?{inside}>")), 403, "{inside}");
        }
        assert!((lab.decided("call.replace", "deny", "unknown_call") - 2.0).abs() < f64::EPSILON);
        assert_eq!(refer("2001", "<sip:*2231001@lab.example?Replaces=a%3Bto-tag%3D1>"), 403, "a code with `Replaces`");
        assert_eq!(lab.pbx.requests("REFER").len(), 2);
    }
}

#[test]
fn watching_calls_is_asked_as_listening_and_is_no_supervision() {
    for transport in Transport::BOTH {
        let limit = "[limits]\nsupervisions_per_supervisor_max = 1\n[[queues]]\nid = \"support\"";
        let lab = KamailioLab::with_organization(transport, "[[queues]]\nid = \"support\"", limit);
        let watch = |user: &'static str, event: &str| lab.phone(user).ask("SUBSCRIBE", "1001", &[event]);
        for event in ["Event: dialog", "event:  Dialog;shared", "o: dialog"] {
            assert_eq!(watch("2001", event), 200, "{transport:?} {event}");
            assert_eq!(watch("1002", event), 403, "{event}");
        }
        assert_eq!(watch("1002", "Event: message-summary"), 200, "an event package without calls is not asked about");
        assert_eq!(lab.phone("2001").ask("SUBSCRIBE", "1002", &["Event: dialog"]), 200, "{transport:?}: a second lamp");
        assert!(lab.sidecar().ask("may org=acme actor=2001 action=supervision.end").contains("not_supervising"));
        assert_eq!(lab.phone("2001").dial("*2211001"), 200, "{transport:?}: lamps take no place of a supervision");
        assert!((lab.decided("call.watch", "allow", "role_permits") - 4.0).abs() < f64::EPSILON);
        assert!((lab.decided("call.watch", "deny", "supervisor_role_required") - 3.0).abs() < f64::EPSILON);
    }
}

/// The text of a header stays within the value of one member of the question.
#[test]
fn a_caller_cannot_add_members_to_the_question() {
    for transport in Transport::BOTH {
        let lab = KamailioLab::start(transport);
        let mut phone = lab.phone("1002");
        phone.call_id = Some(r#"x","actor":"2001","z":""#.to_owned());
        assert_eq!(phone.dial("*2231001"), 403, "{transport:?}");
        let named = r#"Join: x","actor":"2001","target":"1001;to-tag=1;from-tag=2"#;
        assert_eq!(lab.phone("1002").ask("INVITE", "1001", &[named]), 400);
        for number in ["*13600%0d%0aX", "*13600%22,%22queue%22:%22602", "*13600%00", "*13600;x=y"] {
            let status = lab.phone("1001").dial(number);
            assert_eq!(status, 400, "{number}");
        }
        let refused = ["?Replaces=a%3Bto-tag%3D1", "?Join=a"];
        for headers in refused {
            let status = lab.phone("2001").dial(&format!("1001@lab.example{headers}&x="));
            assert!(status >= 400, "{headers}: {status}");
        }
        assert!(lab.pbx.requests("INVITE").is_empty());
    }
}

/// A frozen sidecar and a stopped sidecar; afterwards a restarted sidecar.
#[test]
fn without_a_verdict_in_time_nothing_passes() {
    for transport in Transport::BOTH {
        let mut lab = KamailioLab::start(transport);
        let refused_soon = |lab: &KamailioLab, case: &str| {
            let began = Instant::now();
            assert_eq!(lab.phone("1001").dial("*13600"), 503, "{transport:?}: {case}");
            assert!(began.elapsed() < REFUSED_WITHIN, "{transport:?}: {case} took {:?}", began.elapsed());
        };
        lab.sidecar().signal("STOP");
        refused_soon(&lab, "frozen");
        assert_eq!(lab.phone("1001").dial("1002"), 200, "{transport:?}: a plain call passes");
        lab.sidecar().signal("CONT");
        wait_until("verdicts", || lab.phone("1001").dial("*13600") == 200);
        assert!(lab.sidecar.take().unwrap().terminate().success());
        refused_soon(&lab, "stopped");
        lab.sidecar = Some(Sidecar::start(&lab.folder));
        lab.wait_for_sidecar();
        assert_eq!(lab.phone("1001").dial("*13602"), 403, "{transport:?}: the restarted sidecar decides");
    }
}

/// Answers of another program in place of the sidecar, or of a faulty sidecar.
#[test]
fn only_a_whole_allow_lets_a_call_pass() {
    for transport in Transport::BOTH {
        let lab = KamailioLab::without_sidecar(transport);
        let mut impostor = FakeSidecar::start(&lab);
        let answers: [(&str, Answer, u16); 6] = [
            ("garbage", |_| vec![b"\0\xffHELLO not a frame\r\n".to_vec()], 503),
            ("an error", |name| vec![frame(&format!(r#"{{{name},"error":{{"code":-32000,"message":"x"}}}}"#))], 503),
            ("no verdict", |name| vec![frame(&format!(r#"{{{name},"result":{{}}}}"#))], 503),
            (
                "almost",
                |name| vec![frame(&format!(r#"{{{name},"verdict":"ALLOW","result":{{"verdict":"allowed"}}}}"#))],
                503,
            ),
            ("silence", |_| vec![], 503),
            ("allow", |name| vec![frame(&allowed(name))], 200),
        ];
        for (case, answer, status) in answers {
            let received = impostor.answers(&lab, answer);
            assert_eq!(received, status, "{transport:?}: {case}");
        }
        assert_eq!(impostor.closes(&lab), 503, "{transport:?}: closed in the middle of a request");
    }
}

/// Kamailio may lose an evapi answer that arrives in pieces, and then refuses the call. It never reads another answer.
#[test]
fn an_answer_that_is_cut_anywhere_allows_or_is_lost() {
    for transport in Transport::BOTH {
        let lab = KamailioLab::without_sidecar(transport);
        let mut impostor = FakeSidecar::start(&lab);
        let length = frame(&allowed(transport.name())).len();
        // The real frame may be a digit or two longer, because the id differs; the cuts cover both ends.
        for cut in [1, 2, 3, 4, 5, length / 2, length - 2, length - 1] {
            let status = impostor.answers_in_two(&lab, cut);
            assert!(
                status == 200 || (transport == Transport::Evapi && status == 503),
                "{transport:?} cut at {cut}: {status}"
            );
        }
    }
}

impl Transport {
    const fn name(self) -> &'static str {
        match self {
            Self::JsonRpc => r#""id":12"#,
            Self::Evapi => r#""idx":12345,"lbl":123456789"#,
        }
    }
}

/// A CANCEL while the sidecar does not answer ends the call when the wait is over, and a late verdict does not revive
/// it.
#[test]
fn a_cancel_ends_the_wait() {
    for transport in Transport::BOTH {
        let lab = KamailioLab::start(transport);
        let phone = lab.phone("1001");
        let credentials = phone.credentials("*13600");
        lab.sidecar().signal("STOP");
        let began = Instant::now();
        let status = phone.ask_and_cancel("*13600", &credentials, || ());
        assert!(began.elapsed() < REFUSED_WITHIN, "{transport:?}: {:?}", began.elapsed());
        lab.sidecar().signal("CONT");
        assert_eq!(status, 487, "{transport:?}");
        assert!(lab.pbx.requests("INVITE").is_empty(), "{transport:?}");
        wait_until("the next verdict", || lab.phone("1001").dial("*13602") == 403);
        assert!(lab.pbx.requests("INVITE").is_empty(), "{transport:?}: the late verdict let an INVITE pass");
    }
}

/// FIELD B1, B3: what the sidecar allows after the caller has hung up, and before `until`, is taken back.
#[test]
fn what_is_allowed_after_a_cancel_is_taken_back() {
    for transport in Transport::BOTH {
        let lab = KamailioLab::start(transport);
        let cancel = |user: &'static str, code: &str| {
            let phone = lab.phone(user);
            let credentials = phone.credentials(code);
            lab.sidecar().signal("STOP");
            let status = phone.ask_and_cancel(code, &credentials, || lab.sidecar().signal("CONT"));
            assert_eq!(status, 487, "{transport:?} {code}");
        };
        // On a busy machine the sidecar may read the question after `until`: then there is nothing to take back.
        wait_until("a login that is allowed and taken back", || {
            cancel("1001", "*13600");
            lab.decided("queue.login", "allow", "assigned") > 0.0
        });
        wait_until("the end of the session", || {
            lab.sidecar().ask("may org=acme actor=1001 action=queue.logout queue=600").contains("not_logged_in")
        });
        wait_until("a supervision that is allowed and taken back", || {
            cancel("2001", "*2211001");
            lab.decided("call.listen", "allow", "role_permits") > 0.0
        });
        wait_until("the end of the supervision", || {
            lab.sidecar().ask("may org=acme actor=2001 action=supervision.end").contains("not_supervising")
        });
        assert!(lab.pbx.requests("INVITE").is_empty(), "{transport:?}");
        // An agent who was in before stays in.
        assert_eq!(lab.phone("1001").dial("*13600"), 200, "{transport:?}");
        cancel("1001", "*13600");
        assert_eq!(lab.phone("1001").dial("*13602"), 403, "{transport:?}");
        assert!(lab.sidecar().ask("may org=acme actor=1001 action=queue.logout queue=600").contains("logged_out"));
        // A CANCEL after the answer goes to the PBX.
        lab.pbx.answer_invite("100 Trying");
        let phone = lab.phone("1001");
        let credentials = phone.credentials("*13600");
        let passes = || wait_until("the INVITE at the PBX", || lab.pbx.requests("INVITE").len() == 2);
        let canceled = || wait_until("the CANCEL at the PBX", || lab.pbx.requests("CANCEL").len() == 1);
        assert_eq!(phone.ask_and_cancel_after("*13600", &credentials, passes, canceled), 487, "{transport:?}");
    }
}

/// FIELD B1, B3: an answer that comes after the wait is over (here 0.5 s, in place of a slow network) finds the phone
/// told 503. Over evapi Kamailio sees the answer and takes back what was allowed; over JSON-RPC it sees none.
#[test]
fn what_is_allowed_after_the_wait_is_taken_back() {
    let lab = KamailioLab::without_sidecar(Transport::Evapi);
    let mut impostor = FakeSidecar::start(&lab);
    for (code, allowed, report, object) in [
        ("*13600", r#""action":"queue.login","reason":"assigned","queues":["600"]"#, "queue.logout", "600"),
        (
            "*2211001",
            r#""action":"call.listen","reason":"role_permits","queues":[],"mode":"listen","target":"1001""#,
            "supervision.end",
            "1001",
        ),
    ] {
        let phone = lab.phone(if code == "*13600" { "1001" } else { "2001" });
        impostor.connection(&lab);
        std::thread::sleep(Duration::from_millis(50));
        let asking = std::thread::spawn(move || phone.dial(code));
        let question = whole_frame(impostor.connection(&lab));
        assert_eq!(asking.join().unwrap(), 503, "{code}");
        std::thread::sleep(Duration::from_millis(500));
        let name = name_of(Transport::Evapi, &question);
        impostor.connection(&lab).write_all(&frame(&format!(r#"{{{name},"verdict":"allow",{allowed}}}"#))).unwrap();
        let reported = whole_frame(impostor.connection(&lab));
        let expected = [format!(r#""action":"{report}""#), format!(r#""{object}""#)];
        assert!(expected.iter().all(|part| reported.contains(part)), "{code}: {reported}");
    }
}

/// The pieces of an answer to the question with this id.
type Answer = fn(&str) -> Vec<Vec<u8>>;

fn frame(payload: &str) -> Vec<u8> {
    format!("{}:{payload},", payload.len()).into_bytes()
}

fn allowed(name: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0",{name},"verdict":"allow","result":{{"verdict":"allow","reason":"x"}}}}"#)
}

/// A program in place of the sidecar, whose answers the test chooses.
struct FakeSidecar {
    listener: Option<TcpListener>,
    stream: Option<TcpStream>,
}

impl FakeSidecar {
    fn start(lab: &KamailioLab) -> Self {
        match lab.transport {
            Transport::JsonRpc => {
                Self { listener: Some(TcpListener::bind(lab.sidecar_address).unwrap()), stream: None }
            }
            Transport::Evapi => Self { listener: None, stream: None },
        }
    }

    /// The connection to Kamailio. Connects again after the last connection has ended.
    fn connection(&mut self, lab: &KamailioLab) -> &mut TcpStream {
        if self.stream.is_none() {
            let stream = match &self.listener {
                Some(listener) => listener.accept().unwrap().0,
                None => connect(lab.sidecar_address),
            };
            stream.set_nodelay(true).unwrap();
            stream.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
            self.stream = Some(stream);
        }
        self.stream.as_mut().unwrap()
    }

    /// Lets a phone dial, sends the pieces as the answer, and returns the final status of the phone.
    fn play(&mut self, lab: &KamailioLab, pieces: impl FnOnce(&str) -> Option<Vec<Vec<u8>>>) -> u16 {
        let phone = lab.phone("1001");
        self.connection(lab);
        // Kamailio must have accepted the connection before the phone dials.
        std::thread::sleep(Duration::from_millis(50));
        let asking = std::thread::spawn(move || phone.dial("*13600"));
        let stream = self.connection(lab);
        let question = whole_frame(stream);
        match pieces(&name_of(lab.transport, &question)) {
            Some(pieces) => {
                for piece in pieces {
                    stream.write_all(&piece).unwrap();
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
            None => self.stream = None,
        }
        let status = asking.join().unwrap();
        // After garbage Kamailio connects again.
        if status == 503 {
            self.stream = None;
            if lab.transport == Transport::JsonRpc {
                wait_until("Kamailio to connect again", || {
                    let listener = self.listener.as_ref().unwrap();
                    listener.set_nonblocking(true).unwrap();
                    let again = listener.accept();
                    listener.set_nonblocking(false).unwrap();
                    if let Ok((stream, _)) = again {
                        stream.set_nonblocking(false).unwrap();
                        stream.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
                        self.stream = Some(stream);
                    }
                    self.stream.is_some()
                });
            }
        }
        status
    }

    fn answers(&mut self, lab: &KamailioLab, answer: Answer) -> u16 {
        self.play(lab, |name| Some(answer(name)))
    }

    fn answers_in_two(&mut self, lab: &KamailioLab, cut: usize) -> u16 {
        self.play(lab, |name| {
            let whole = frame(&allowed(name));
            let (first, second) = whole.split_at(cut.min(whole.len() - 1));
            Some(vec![first.to_vec(), second.to_vec()])
        })
    }

    fn closes(&mut self, lab: &KamailioLab) -> u16 {
        self.play(lab, |_| None)
    }
}

fn whole_frame(stream: &mut TcpStream) -> String {
    let (mut received, mut byte) = (vec![], [0]);
    while !received.ends_with(b":") {
        stream.read_exact(&mut byte).unwrap();
        received.push(byte[0]);
    }
    let length: usize = String::from_utf8(received).unwrap().trim_end_matches(':').parse().unwrap();
    let mut payload = vec![0; length + 1];
    stream.read_exact(&mut payload).unwrap();
    String::from_utf8(payload).unwrap()
}

/// The members of the question that an answer must repeat.
fn name_of(transport: Transport, question: &str) -> String {
    let question: serde_json::Value = serde_json::from_str(question.trim_end_matches(',')).unwrap();
    match transport {
        Transport::JsonRpc => format!("\"id\":{}", question["id"]),
        Transport::Evapi => format!("\"idx\":{},\"lbl\":{}", question["idx"], question["lbl"]),
    }
}
