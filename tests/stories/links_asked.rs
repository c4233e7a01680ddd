//! Given a link, when a supervision is ended before its channel listens, or an operator asks what another mode would
//! do, then the channel is hung up all the same, and the operator sees every step, also those that are held back
//! (TRUTH 2 and 4).

use std::time::Duration;

use crate::support::model_asterisk::{ModelAsterisk, ModelMember};
use crate::support::model_freeswitch::ModelFreeswitch;
use crate::support::{Folder, Sidecar, run, wait_until};

const SERIES_POLLED: &str = "queuewarden_link_last_poll_timestamp_seconds{link=\"pbx-1\"}";

fn link(folder: &Folder, kind: &str, address: std::net::SocketAddr, keys: &str) {
    folder.write("link.secret", "s3cret\n");
    let username = if kind == "asterisk_ami" { "username = \"queuewarden\"\n" } else { "" };
    let table = format!(
        "[[connect.{kind}]]\nname = \"pbx-1\"\norganization = \"acme\"\naddress = \"{address}\"\n{username}\
         secret_file = \"link.secret\"\n{keys}\n"
    );
    folder.write("queuewarden.toml", &(folder.read("queuewarden.toml") + &table));
}

fn command(folder: &Folder, words: &[&str]) -> String {
    let (_, output) = run(&[&["--config", folder.path().to_str().unwrap()], words].concat());
    output
}

fn linked(asterisk: &ModelAsterisk, keys: &str) -> (Folder, Sidecar) {
    let folder = Folder::demo().durable();
    link(&folder, "asterisk_ami", asterisk.address, keys);
    let sidecar = Sidecar::start(&folder);
    wait_until("the first poll", || sidecar.metric(SERIES_POLLED) > 0.0);
    (folder, sidecar)
}

/// Dana may listen to alice, and Asterisk has not begun yet.
fn allow(sidecar: &Sidecar) {
    let login = "do org=acme actor=1001 via=phone action=queue.login queue=600";
    assert!(sidecar.ask(login).contains("allow "));
    let call = "do org=acme actor=1001 action=call.begin queue=600 call=c-1";
    assert!(sidecar.ask(call).contains("allow "));
    let listen = "do org=acme actor=2001 action=call.listen target=1001 queue=600 call=c-1";
    let answer = sidecar.ask(listen);
    assert!(answer.contains("allow "), "{answer}");
}

/// `ChanSpy` begins on the channel of this phone.
fn begin(asterisk: &ModelAsterisk, channel: &str, account_code: &str) {
    asterisk.state().listeners.insert(channel.to_owned(), account_code.to_owned());
    let event = format!(
        "Event: ChanSpyStart\r\nPrivilege: call,all\r\nSpyerChannel: PJSIP/{account_code}-1\r\n\
         SpyerAccountCode: {account_code}\r\nSpyerUniqueid: {channel}\r\nSpyeeChannel: PJSIP/1001-00000001\r\n\
         SpyeeUniqueid: 17.9\r\n\r\n"
    );
    asterisk.say(event.as_bytes());
}

fn is_hung_up(asterisk: &ModelAsterisk, channel: &str) -> bool {
    let is_its = |headers: &Vec<(String, String)>| headers.iter().any(|(_, value)| value == channel);
    asterisk.state().actions.iter().any(|headers| headers[0].1 == "Hangup" && is_its(headers))
}

/// TRUTH 2: what `supervisions end` or a reload takes away is hung up in `observe` too, also if it comes between the
/// allow and `ChanSpyStart`. It is no violation: it was allowed when the supervisor asked. The listener of nobody is
/// one, and stays.
#[test]
fn a_channel_that_begins_after_its_supervision_was_ended_is_hung_up() {
    for by_reload in [false, true] {
        let asterisk = ModelAsterisk::with_queues(&["600", "601"]);
        let (folder, sidecar) = linked(&asterisk, "");
        allow(&sidecar);
        if by_reload {
            for key in ["supervises", "edits"] {
                let (support, sales) = (format!("{key} = [\"support\"]"), format!("{key} = [\"sales\"]"));
                folder.replace("organizations/acme.toml", &support, &sales);
            }
            sidecar.reload();
        } else {
            let ended = command(&folder, &["supervisions", "end", "--org", "acme", "--user", "2001"]);
            assert!(ended.contains("1 supervision ended"), "{ended}");
        }
        begin(&asterisk, "17.3", "2002");
        begin(&asterisk, "17.4", "2001");
        wait_until("the hang-up", || is_hung_up(&asterisk, "17.4"));
        assert!(!is_hung_up(&asterisk, "17.3"), "it observes");
        let violations = sidecar.metric("queuewarden_link_violations_total{link=\"pbx-1\",kind=\"supervision\"}");
        assert!((violations - 1.0).abs() < 0.5, "{violations} violations");
        let shown = command(&folder, &["links", "show", "pbx-1"]);
        assert!(shown.contains("17.3") && !shown.contains("17.4"), "{shown}");
    }
}

/// A listener that goes on over a break of the connection is one violation: the link remembers who listens.
#[test]
fn a_link_remembers_who_listens_over_a_break() {
    let asterisk = ModelAsterisk::with_queues(&["600", "601"]);
    let (folder, sidecar) = linked(&asterisk, "poll_interval_seconds = 1");
    begin(&asterisk, "17.3", "2002");
    let violations = || sidecar.metric("queuewarden_link_violations_total{link=\"pbx-1\",kind=\"supervision\"}");
    wait_until("the violation", || violations() > 0.0);
    let logins = asterisk.count("Login");
    asterisk.hang_up();
    wait_until("the next connection", || asterisk.count("Login") > logins);
    let before = sidecar.metric(SERIES_POLLED);
    wait_until("its polls", || sidecar.metric(SERIES_POLLED) > before + 1.0);
    assert!(violations() < 2.0, "{}", command(&folder, &["links", "show", "pbx-1"]));
}

/// TRUTH 2, "never": nothing but an ending is carried out before the first complete poll, whatever an event says.
#[test]
fn an_event_during_the_first_poll_waits_for_its_end() {
    let asterisk = ModelAsterisk::with_queues(&["600", "601"]);
    asterisk.misbehave(|misbehavior| misbehavior.delay = Duration::from_millis(150));
    let folder = Folder::demo().durable();
    link(&folder, "asterisk_ami", asterisk.address, "members = \"enforce\"");
    let _sidecar = Sidecar::start(&folder);
    wait_until("the first poll to begin", || asterisk.count("QueueStatus") > 0);
    asterisk.add("600", "PJSIP/1002", ModelMember::dynamic(), true);
    wait_until("the foreign member to be removed", || asterisk.members("600").is_empty());
    let state = asterisk.state();
    let place = |action: &str, queue: &str| {
        let is_it = |headers: &Vec<(String, String)>| {
            headers[0].1 == action
                && headers.iter().any(|(name, value)| name == "Queue" && value == queue)
                && !headers.iter().any(|(name, _)| name == "Member")
        };
        state.actions.iter().position(is_it)
    };
    assert!(place("QueueRemove", "600") > place("QueueStatus", "602"), "{:?}", state.actions);
    assert!(place("QueueStatus", "602").is_some(), "the last queue of the organization");
}

/// Asterisk says that it hung a channel up, and the channel listens all the same (a `Local` channel without audio, on
/// 22.10): the link tries again after longer and longer pauses, and an operator sees it.
#[test]
fn a_channel_that_survives_its_hang_up_is_named() {
    let asterisk = ModelAsterisk::with_queues(&["600", "601"]);
    let (folder, _sidecar) = linked(&asterisk, "supervisions = \"enforce\"");
    begin(&asterisk, "17.3", "2002");
    let said = "refused: hang up: channel 17.3 listens after several hang-ups";
    wait_until("the word", || command(&folder, &["links", "show", "pbx-1"]).contains(said));
    let hang_ups = asterisk.count("Hangup");
    assert!((3..=4).contains(&hang_ups), "{hang_ups} hang-ups in 1.5 s");
}

/// TRUTH 4: `links reconcile --dry-run --as MODE` lists what another mode would do. The link does nothing, and is as it
/// was: neither stopped nor in that mode.
#[test]
fn a_dry_run_as_another_mode_lists_its_steps_and_does_none() {
    let asterisk = ModelAsterisk::with_queues(&["600", "601"]);
    asterisk.add("600", "PJSIP/1002", ModelMember::dynamic(), false);
    let (folder, sidecar) = linked(&asterisk, "poll_interval_seconds = 3600");
    let dry_run =
        |options: &[&str]| command(&folder, &[&["links", "reconcile", "pbx-1", "--dry-run"], options].concat());
    assert!(dry_run(&[]).contains("0 steps"), "{}", dry_run(&[]));
    assert!(dry_run(&["--as", "repair"]).contains("0 steps"), "nobody is removed");
    let planned = dry_run(&["--as", "enforce"]);
    assert!(planned.contains("600    1002       foreign  remove\n1 step\n"), "{planned}");
    // Ten of ten are too large a share. They are listed all the same.
    for number in 0..9 {
        asterisk.add("600", &format!("PJSIP/70{number:02}"), ModelMember::dynamic(), false);
    }
    let planned = dry_run(&["--as", "enforce"]);
    assert!(planned.contains("remove, held: too large a share") && planned.contains("10 steps"), "{planned}");
    assert_eq!((asterisk.members("600").len(), asterisk.count("QueueRemove")), (10, 0));
    let shown = command(&folder, &["links", "show", "pbx-1"]);
    assert!(shown.contains("last command: dry-run as enforce by operator:") && !shown.contains("stopped"), "{shown}");
    assert!(sidecar.metric("queuewarden_link_stopped{link=\"pbx-1\"}") < 1.0);
    wait_until("the audit log", || command(&folder, &["audit", "tail", "-n", "9"]).contains("dry-run as enforce"));
    for (wrong, what) in [("off", "invalid value 'off'"), ("enforced", "invalid value 'enforced'")] {
        let (status, output) = run(&[
            "--config",
            folder.path().to_str().unwrap(),
            "links",
            "reconcile",
            "pbx-1",
            "--dry-run",
            "--as",
            wrong,
        ]);
        assert_eq!(status.code(), Some(2), "{what}: {output}");
    }
}

/// A link that is off says so, and does not report that there is nothing to do. A dry run as another mode works.
#[test]
fn a_link_that_is_off_says_so() {
    let asterisk = ModelAsterisk::with_queues(&["600", "601"]);
    asterisk.add("600", "PJSIP/1002", ModelMember::dynamic(), false);
    let folder = Folder::demo().durable();
    link(&folder, "asterisk_ami", asterisk.address, "members = \"off\"\nsupervisions = \"off\"");
    let sidecar = Sidecar::start(&folder);
    wait_until("the link", || sidecar.metric("queuewarden_link_up{link=\"pbx-1\"}") > 0.0);
    for words in [&["adopt", "pbx-1"][..], &["resume", "pbx-1"], &["reconcile", "pbx-1"]] {
        let (status, said) = run(&[&["--config", folder.path().to_str().unwrap(), "links"], words].concat());
        assert!(!status.success() && said.contains("`members = \"off\"`"), "{words:?}: {said}");
    }
    let planned = command(&folder, &["links", "reconcile", "pbx-1", "--dry-run", "--as", "enforce"]);
    assert!(planned.contains("600    1002       foreign  remove\n1 step\n"), "{planned}");
    let polled = sidecar.metric(SERIES_POLLED);
    assert!(polled < 1.0, "it is as it was: {polled}");
    assert_eq!((asterisk.members("600").len(), asterisk.count("QueueRemove")), (1, 0));
}

/// The runbook of ReconcileStopped: a dry run lists the steps that the share bound stopped.
#[test]
fn a_dry_run_lists_what_the_share_bound_stopped() {
    let asterisk = ModelAsterisk::with_queues(&["600", "601"]);
    for number in 0..10 {
        asterisk.add("600", &format!("PJSIP/70{number:02}"), ModelMember::dynamic(), false);
    }
    let (folder, sidecar) = linked(&asterisk, "members = \"enforce\"");
    assert!(sidecar.metric("queuewarden_link_stopped{link=\"pbx-1\"}") > 0.0);
    let planned = command(&folder, &["links", "reconcile", "pbx-1", "--dry-run"]);
    assert!(planned.contains("foreign  remove, held: too large a share") && planned.contains("10 steps"), "{planned}");
    assert_eq!(asterisk.members("600").len(), 10);
}

/// A session that stays `missing` says why, until the PBX has the agent.
#[test]
fn a_member_that_the_pbx_cannot_have_is_named() {
    let folder = Folder::demo().durable();
    let freeswitch = ModelFreeswitch::new(&["600", "601"], &["1002"]);
    link(&folder, "freeswitch_esl", freeswitch.address, "members = \"repair\"\npoll_interval_seconds = 1");
    let sidecar = Sidecar::start(&folder);
    wait_until("the first poll", || sidecar.metric(SERIES_POLLED) > 0.0);
    let login = "do org=acme actor=2001 via=phone action=agent.login target=1001 queue=600";
    assert!(sidecar.ask(login).contains("allow "));
    let show = || command(&folder, &["links", "show", "pbx-1"]);
    wait_until("the reason", || show().contains("refused: add: member 1001 of queue 600: the PBX has no such agent"));
    freeswitch.state().agents.insert("1001".to_owned(), "Logged Out".to_owned());
    wait_until("the member", || freeswitch.members("600") == ["1001"]);
    wait_until("the reason to go", || !show().contains("refused"));
}
