//! Given a real Asterisk with a link, when a channel listens to another on any way around the shipped dialplan, then the
//! link counts it, and hangs it up at `enforce` (TRUTH 2).
//!
//! The ways: ChanSpy and ExtenSpy of another context, Originate by another AMI user, a code of `features.conf`, a key
//! that leads ChanSpy to the next channel, a snoop channel of an ARI application, and a supervision that is handed over.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::Duration;

use tempfile::TempDir;

use crate::pbx::asterisk_lab::{AsteriskLab, conf_with, read_until};
use crate::pbx::link_supervisions::{hang_ups, violations};
use crate::pbx::links::{act, show, wait_for_link};
use crate::pbx::phone::Phone;
use crate::pbx::takeover::{AGENT, CUSTOMER, Office, SUPERVISOR, hears};
use crate::support::{connect, wait_until};

/// The field with the id of the bridge in a line of `core show channels concise`.
const BRIDGE_FIELD: usize = 12;

/// What another operator adds to the lab: codes to listen, an ARI application, and DTMF through AMI.
fn conf() -> TempDir {
    let modules = [
        "app_senddtmf",
        "res_stasis",
        "res_stasis_playback",
        "res_stasis_recording",
        "res_stasis_answer",
        "res_stasis_snoop",
        "app_stasis",
        "res_ari",
        "res_ari_model",
        "res_http_websocket",
        // Since Asterisk 22; older ones say that they lack it.
        "res_websocket_client",
        "res_ari_events",
        "res_ari_channels",
    ];
    let modules = modules.map(|module| format!("load = {module}.so\n")).concat();
    conf_with(&[
        ("modules.conf", &*modules),
        ("http.conf", "[general](+)\nenabled = yes\nbindaddr = 127.0.0.1\nbindport = @HTTP_PORT@\n"),
        ("ari.conf", "[general]\nenabled = yes\n[listener]\ntype = user\npassword = s3cret\n"),
        ("features.conf", "[applicationmap]\nspy => #8,self,ChanSpy,\"PJSIP/1001,q\"\n"),
        (
            "extensions.conf",
            "[phones]\nexten => _555X.,1,Answer()\n same => n,ChanSpy(PJSIP/${EXTEN:3},q)\n\
             exten => _556X.,1,Answer()\n same => n,ExtenSpy(${EXTEN:3}@phones,q)\n\
             exten => 557,1,Answer()\n same => n,ChanSpy(,q)\n",
        ),
    ])
}

/// A lab in which 1001 is in a call of queue 600.
fn lab_with_call(mode: &str) -> (AsteriskLab, TempDir, impl Drop) {
    let conf = conf();
    let lab = AsteriskLab::start_linked_on(conf.path(), &format!("supervisions = \"{mode}\""));
    assert!(lab.is_answered("1001", "*13600"));
    wait_for_link(&lab);
    let customer = lab.customer_reaches("600", "1001");
    (lab, conf, customer)
}

/// The names and unique ids of the channels of this kind.
fn channel(lab: &AsteriskLab, prefix: &str) -> Option<(String, String)> {
    let channels = lab.channels();
    let line = channels.lines().find(|line| line.starts_with(prefix))?;
    Some((line.split('!').next()?.to_owned(), line.split('!').next_back()?.to_owned()))
}

/// Waits until the channel of this kind is bridged. Returns its name.
pub fn wait_for_bridge(lab: &AsteriskLab, prefix: &str) -> String {
    let bridged =
        |line: &&str| line.starts_with(prefix) && line.split('!').nth(BRIDGE_FIELD).is_some_and(|it| !it.is_empty());
    wait_until("the call between two phones", || lab.channels().lines().any(|line| bridged(&line)));
    lab.channels().lines().find(bridged).and_then(|line| line.split('!').next()).unwrap().to_owned()
}

/// Presses a key on the phone of a channel.
pub fn press(lab: &AsteriskLab, channel: &str, keys: &str) {
    let mut ami = lab.admin();
    for key in keys.chars() {
        let key = key.to_string();
        let headers = [("Channel", channel), ("Digit", &*key), ("Receive", "true"), ("Duration", "100")];
        assert!(act(&mut ami, "PlayDTMF", &headers).contains("Success"));
    }
}

/// The same on a channel that may have ended.
fn press_if_there(lab: &AsteriskLab, channel: &str, key: &str) {
    let _answer = act(&mut lab.admin(), "PlayDTMF", &[("Channel", channel), ("Digit", key), ("Receive", "true")]);
}

/// Lets an ARI application listen to a channel, on a snoop channel.
fn snoop(lab: &AsteriskLab, unique_id: &str) -> TcpStream {
    let mut events = connect(lab.http());
    write!(
        events,
        "GET /ari/events?app=listener&api_key=listener:s3cret HTTP/1.1\r\nHost: asterisk\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\
         Sec-WebSocket-Protocol: ari\r\n\r\n"
    )
    .unwrap();
    let answer = read_until(&mut events, "\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    let mut http = connect(lab.http());
    let path = format!("/ari/channels/{unique_id}/snoop?spy=both&app=listener&api_key=listener:s3cret");
    write!(http, "POST {path} HTTP/1.1\r\nHost: asterisk\r\nContent-Length: 0\r\n\r\n").unwrap();
    let answer = read_until(&mut http, "\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    events
}

/// Carries the ways out one after the other. `is_seen` waits for what the mode does with the violation of this number,
/// by the channel that begins with this name.
fn each_way(lab: &AsteriskLab, mut is_seen: impl FnMut(&str, &str)) {
    let mut next = |way: &str, channel: &str| is_seen(way, channel);
    for (way, code) in [("ChanSpy of another context", "5551001"), ("ExtenSpy", "556600"), ("ChanSpy of any", "557")] {
        let phone = Phone::new(lab, "1002", 0);
        let call = phone.call(code);
        next(way, "PJSIP/1002-");
        call.hang_up();
    }
    let originate =
        [("Channel", "Local/hold@stay/n"), ("Application", "ChanSpy"), ("Data", "PJSIP/1001,q"), ("Async", "true")];
    assert!(act(&mut lab.admin(), "Originate", &originate).contains("Success"));
    next("Originate", "Local/");

    lab.set_global("DYNAMIC_FEATURES", "spy");
    let feature = lab.call("1002", "10011", Duration::from_secs(25));
    press(lab, &wait_for_bridge(lab, "PJSIP/1002-"), "#8");
    next("a code of features.conf", "PJSIP/1002-");
    drop(feature);

    let (_, agent) = channel(lab, "PJSIP/1001-").unwrap();
    let application = snoop(lab, &agent);
    next("a snoop channel", "Snoop/");
    drop(application);
}

/// TRUTH 2, `enforce`: whoever listens without being allowed is counted and hung up at once.
#[test]
fn enforcing_hangs_up_every_listener_that_nobody_allowed() {
    let (lab, _conf, customer) = lab_with_call("enforce");
    // A listener may have gone on to another channel before it was hung up, which counts as well.
    let (mut counted, mut ended) = (0.0, 0.0);
    each_way(&lab, |way, channel| {
        wait_until(&format!("{way}: the violation"), || violations(&lab) > counted);
        wait_until(&format!("{way}: the hang-up"), || {
            let spies = |line: &str| line.starts_with(channel) && line.contains("Spy");
            hang_ups(&lab) > ended && !lab.channels().lines().any(spies)
        });
        (counted, ended) = (violations(&lab), hang_ups(&lab));
    });
    drop(customer);
}

/// TRUTH 2, `observe`: the same ways are counted and listed, and left alone.
#[test]
fn observing_counts_every_listener_that_nobody_allowed() {
    let (lab, _conf, customer) = lab_with_call("observe");
    let mut ways = 0.0;
    each_way(&lab, |way, channel| {
        ways += 1.0;
        wait_until(&format!("{way}: the violation"), || violations(&lab) >= ways);
        assert!(lab.channels().lines().any(|line| line.starts_with(channel)), "{way}: left alone");
    });
    assert!(hang_ups(&lab) < 1.0 && (violations(&lab) - ways).abs() < f64::EPSILON);
    drop(customer);
}

/// TRUTH 2: a key leads a listener, who may hear 1001, to the next channel, the customer's.
#[test]
fn a_supervision_of_one_user_is_none_of_another() {
    let (lab, _conf, customer) = lab_with_call("enforce");
    let asked = lab.sidecar().ask("do org=acme actor=2001 action=call.listen target=1001 queue=600");
    assert!(asked.starts_with("allow"), "{asked}");
    let spy = [
        ("Channel", "Local/hold@stay/n"),
        ("Application", "ChanSpy"),
        ("Data", "PJSIP/,q"),
        ("Account", "2001"),
        ("Async", "true"),
    ];
    assert!(act(&mut lab.admin(), "Originate", &spy).contains("Success"));
    let listener = || {
        lab.channels()
            .lines()
            .find(|line| line.contains("!ChanSpy!"))
            .map(|line| line.split('!').next().unwrap().to_owned())
    };
    wait_until("the listener", || listener().is_some() || hang_ups(&lab) > 0.0);
    // The first channel may be the customer's or the agent's.
    wait_until("the hang-up", || {
        if let Some(name) = listener() {
            press_if_there(&lab, &name, "*");
        }
        hang_ups(&lab) > 0.0 && listener().is_none()
    });
    assert!((violations(&lab) - 1.0).abs() < f64::EPSILON);
    drop(customer);
}

/// TRUTH 2, FIELD A1: an attended transfer hands a supervision to another phone, which is hung up before any recheck.
#[test]
fn a_supervision_that_is_handed_over_is_hung_up_at_once() {
    let lab = AsteriskLab::start_linked_with("supervisions = \"enforce\"");
    wait_for_link(&lab);
    let office = Office::open(&lab);
    lab.set_global("QW_RECHECK_SECONDS", "600");
    // Asterisk names the channel that listens from then on in two ways, depending on the call that is transferred.
    for (handed_over, way) in (1_u8..).zip(["refer", "refer back"]) {
        let supervisor = office.supervisor.call("*2211005");
        hears(&supervisor, &[AGENT, CUSTOMER]);
        let consultation = office.supervisor.call("2002");
        assert_eq!(consultation.status(), 200);
        let outsider = office.outsider.incoming();
        hears(&outsider, &[SUPERVISOR]);
        let (from, to) = if way == "refer" { (&supervisor, &consultation) } else { (&consultation, &supervisor) };
        assert_eq!(from.transfer_to(to), 202);
        let ended = outsider.ends_within(Duration::from_secs(5));
        assert!(ended.is_some(), "{way}: the next recheck is in 10 minutes: {}", show(&lab));
        let handed_over = f64::from(handed_over);
        assert!((violations(&lab) - handed_over).abs() < f64::EPSILON && hang_ups(&lab) >= handed_over, "{way}");
        wait_until("the end of the supervision", || lab.supervisions("listen") < 1.0);
    }
    hears(&office.customer, &[AGENT]);
}
