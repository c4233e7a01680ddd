//! Fuzz target of the link to FreeSWITCH: the input is what FreeSWITCH sends on one connection.

use crate::config::asterisk::NamePattern;
use crate::config::process::Secret;
use crate::fuzzing::pbx_stream::{PbxStream, RUNTIME, in_segments};
use crate::limits::{ESL_BODY_BYTES_MAX, ESL_HEAD_BYTES_MAX, LINK_HINTS_WAITING_MAX};
use crate::links::esl::client::EslCredentials;
use crate::links::esl::connection::{EslConnection, FreeswitchNames};
use crate::links::esl::protocol::message;
use crate::links::members::MemberKey;
use crate::links::names::PbxNames;
use crate::links::pbx_connection::{Hint, LinkError, MemberAction, PbxConnection};

/// Hints that are read at the end of a conversation.
const HINTS_MAX: usize = LINK_HINTS_WAITING_MAX + 8;

/// Checks that a link says and sends the same however the input is cut into segments, that it sends whole commands of
/// one line only, that every name it takes from FreeSWITCH is one of its organization, and that the parser keeps the
/// bounds of a message.
pub fn esl_stream(data: &[u8]) {
    if let Ok(Some((read, taken))) = message(data) {
        assert!(taken <= data.len() && read.body.len() <= ESL_BODY_BYTES_MAX.min(taken));
        assert!(data[..taken].ends_with(read.body), "the body is another part of the input");
        assert!(taken - read.body.len() <= ESL_HEAD_BYTES_MAX + 2, "the head is too long");
    }
    let pattern = |text| NamePattern::parse(text).expect("a pattern");
    let names = FreeswitchNames {
        agents: PbxNames::new(pattern("%@acme.example"), [("1004".into(), "7c0e".into())]),
        queues: PbxNames::new(pattern("%@acme.example"), []),
    };
    let [whole, by_byte, cut] = in_segments(data, |stream| RUNTIME.with(|run| run.block_on(converse(stream, &names))));
    assert_eq!(whole, by_byte, "segments change what a link does");
    assert_eq!(whole, cut, "segments change what a link does");
    check_sent(&whole.1);
}

/// Holds the conversation of a link. Returns what it found.
async fn converse(stream: PbxStream<'_>, names: &FreeswitchNames) -> String {
    let mut found = vec![];
    let ended = ask_all(stream, names, &mut found).await;
    found.push(format!("{:?}", ended.map_err(|error| error.to_string())));
    found.join("\n")
}

async fn ask_all(stream: PbxStream<'_>, names: &FreeswitchNames, found: &mut Vec<String>) -> Result<(), LinkError> {
    let secret = Secret::new("s3cret".to_owned());
    let credentials = EslCredentials { username: Some("queuewarden@acme.example"), secret: &secret };
    let mut connection = EslConnection::log_in(stream, names, credentials).await?;
    found.push(format!("{:?}", connection.start().await?));
    connection.begin_poll().await?;
    let polled = connection.queue("600").await?;
    for extension in polled.iter().flat_map(|polled| polled.members.keys()) {
        assert!(is_extension(extension), "{extension} is no extension");
    }
    found.push(format!("{polled:?}"));
    let key = MemberKey::new("600", "1001");
    found.push(format!("{:?}", connection.member(&key).await?));
    for action in [MemberAction::Add { penalty: 1, paused: true }, MemberAction::SetPause(false), MemberAction::Remove]
    {
        found.push(format!("{:?}", connection.change(&key, action).await?));
    }
    found.push(format!("{:?}", connection.listeners().await?));
    // What is looked at again depends on the time that passed: hints are no part of the comparison.
    for _ in 0..HINTS_MAX {
        match connection.hint().await {
            Ok(Hint::CallBegan { key, .. } | Hint::Member(key)) => {
                assert!(is_extension(&key.extension) && is_extension(&key.queue), "{key:?}");
            }
            Ok(_) => {}
            Err(_) => break,
        }
    }
    Ok(())
}

fn is_extension(text: &str) -> bool {
    (1..=16).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Checks that only whole commands are sent, and the secret only to log in.
fn check_sent(sent: &[u8]) {
    let text = std::str::from_utf8(sent).expect("commands are ASCII");
    assert!(text.is_empty() || text.ends_with("\n\n"), "{text:?}");
    for (number, command) in text.split_terminator("\n\n").enumerate() {
        assert!(!command.contains('\n') && !command.contains('\r'), "{command:?}");
        let is_login = command == "userauth queuewarden@acme.example:s3cret";
        let begins =
            ["api callcenter_config ", "api show channels", "api uuid_", "bgapi callcenter_config queue count"];
        let mut begins = begins.iter().chain(&["event plain ", "nixevent ", "filter "]);
        let is_known = begins.any(|begin| command.starts_with(begin));
        assert!(if number == 0 { is_login } else { is_known }, "{command:?}");
    }
}
