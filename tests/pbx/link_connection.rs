//! Given a real Asterisk, when a link asks for its members and changes one, then it sees what Asterisk has (TRUTH 2).

use std::time::Duration;

use queuewarden::config::link_names::NamePattern;
use queuewarden::config::process::Secret;
use queuewarden::links::ami::client::AmiCredentials;
use queuewarden::links::ami::connection::{AmiConnection, AsteriskNames};
use queuewarden::links::members::{MemberKey, Membership};
use queuewarden::links::names::PbxNames;
use queuewarden::links::pbx_connection::{ActionOutcome, Hint, LinkError, MemberAction, PbxConnection};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::pbx::asterisk_lab::AsteriskLab;
use crate::support::PATIENCE;

fn names() -> AsteriskNames {
    let names = |pattern: &str| PbxNames::new(NamePattern::parse(pattern).unwrap(), []);
    let support_line = [("604".into(), "support-line".into())];
    AsteriskNames {
        interfaces: names("PJSIP/%"),
        state_interfaces: names("PJSIP/%"),
        queues: PbxNames::new(NamePattern::parse("%").unwrap(), support_line),
    }
}

fn key(queue: &str, extension: &str) -> MemberKey {
    MemberKey { queue: queue.into(), extension: extension.into() }
}

fn block_on<R>(work: impl Future<Output = R>) -> R {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { timeout(PATIENCE, work).await.expect("Asterisk answers") })
}

/// TRUTH 2: truth is polled, one queue or one member at a time, and each action shows in the next answer.
#[test]
fn a_link_sees_what_it_and_others_change() {
    let lab = AsteriskLab::start();
    let (names, secret) = (names(), Secret::new("admin".to_owned()));
    block_on(async {
        let stream = TcpStream::connect(lab.ami()).await.unwrap();
        let credentials = AmiCredentials { username: "admin", secret: &secret, events: true };
        let mut link = AmiConnection::log_in(stream, &names, credentials).await.unwrap();
        let start = link.start().await.unwrap();
        assert!(start.is_some(), "an account with class `reporting` sees when Asterisk started");
        assert_eq!(link.start().await.unwrap(), start);

        let empty = link.queue("600").await.unwrap().expect("the queue is there");
        assert!(empty.members.is_empty() && empty.unparsed.is_empty(), "{empty:?}");
        assert_eq!(link.queue("699").await.unwrap(), None, "a queue that Asterisk lacks");
        let fixed = link.queue("605").await.unwrap().unwrap();
        assert_eq!(fixed.members["1003"].membership, Membership::Fixed);

        let added = MemberAction::Add { penalty: 2, paused: true };
        assert_eq!(link.change(&key("604", "1001"), added).await.unwrap(), ActionOutcome::Done);
        assert_eq!(link.change(&key("604", "1001"), added).await.unwrap(), ActionOutcome::Unchanged);
        assert_eq!(link.change(&key("699", "1001"), added).await.unwrap(), ActionOutcome::NotThere);
        let member = link.member(&key("604", "1001")).await.unwrap().member().cloned().expect("it was added");
        assert_eq!((member.paused, member.penalty, member.membership), (true, 2, Membership::Dynamic));
        assert_eq!(
            link.member(&key("604", "100")).await.unwrap().member().cloned(),
            None,
            "not a member whose name begins alike"
        );
        assert!(lab.is_member("support-line", "1001"));
        assert_eq!(link.change(&key("604", "1001"), MemberAction::SetPause(false)).await.unwrap(), ActionOutcome::Done);
        assert!(!link.member(&key("604", "1001")).await.unwrap().member().cloned().unwrap().paused);

        assert_eq!(link.change(&key("605", "1003"), MemberAction::Remove).await.unwrap(), ActionOutcome::Refused);
        assert_eq!(link.change(&key("605", "1003"), MemberAction::PauseFixed).await.unwrap(), ActionOutcome::Done);
        assert!(link.member(&key("605", "1003")).await.unwrap().member().cloned().unwrap().paused_by_link);
        assert_eq!(link.change(&key("604", "1001"), MemberAction::Remove).await.unwrap(), ActionOutcome::Done);
        assert_eq!(link.change(&key("604", "1001"), MemberAction::Remove).await.unwrap(), ActionOutcome::Unchanged);

        assert_eq!(link.listeners().await.unwrap(), Some(vec![]));
        assert_eq!(link.hang_up("PJSIP/none-1").await.unwrap(), ActionOutcome::NotThere);
        lab.cli("queue add member PJSIP/1002 to 600");
        loop {
            if link.hint().await.unwrap() == Hint::Member(key("600", "1002")) {
                break;
            }
        }
        lab.cli("queue add member Local/7@nowhere to 600");
        let polled = link.queue("600").await.unwrap().unwrap();
        assert!(polled.members.contains_key("1002"));
        assert!(polled.unparsed.contains("Local/7@nowhere"), "{polled:?}");
    });
}

/// TRUTH 2: the account of each mode; what it lacks is an answer, not an end of the connection.
#[test]
fn an_account_with_few_rights_is_told_so() {
    let lab = AsteriskLab::start();
    let (names, secret, wrong) = (names(), Secret::new("s3cret".to_owned()), Secret::new("wrong".to_owned()));
    block_on(async {
        let stream = TcpStream::connect(lab.ami()).await.unwrap();
        let credentials = AmiCredentials { username: "queuewarden", secret: &secret, events: true };
        let mut link = AmiConnection::log_in(stream, &names, credentials).await.unwrap();
        assert_eq!(link.start().await.unwrap(), None, "class `reporting` is missing");
        assert_eq!(link.listeners().await.unwrap(), None, "class `reporting` is missing");
        assert_eq!(link.hang_up("PJSIP/none-1").await.unwrap(), ActionOutcome::NotPermitted);
        assert!(link.queue("600").await.unwrap().is_some(), "QueueStatus needs no class");
        link.ping().await.unwrap();
        assert!(timeout(Duration::from_millis(300), link.hint()).await.is_err(), "no event without class `agent`");

        let stream = TcpStream::connect(lab.ami()).await.unwrap();
        let credentials = AmiCredentials { username: "queuewarden", secret: &wrong, events: false };
        let refused = AmiConnection::log_in(stream, &names, credentials).await;
        assert!(matches!(refused, Err(LinkError::LoginRefused(_))), "{refused:?}");
    });
}
