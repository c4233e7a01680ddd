//! Fuzz target of the link to FreeSWITCH: the input is what FreeSWITCH sends on one connection.

use crate::config::link_names::NamePattern;
use crate::config::process::Secret;
use crate::fuzzing::pbx_stream::{HINTS_MAX, PbxStream, ask_everything, check_key, same_in_segments};
use crate::limits::{ESL_BODY_BYTES_MAX, ESL_HEAD_BYTES_MAX};
use crate::links::esl::client::EslCredentials;
use crate::links::esl::connection::{EslConnection, FreeswitchNames};
use crate::links::esl::protocol::message;
use crate::links::names::PbxNames;
use crate::links::pbx_connection::{Hint, LinkError, MemberAction, PbxConnection};

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
    let sent = same_in_segments(data, &async |stream, found| converse(stream, &names, found).await);
    check_sent(&sent);
}

/// Holds the conversation of a link.
async fn converse(stream: PbxStream<'_>, names: &FreeswitchNames, found: &mut Vec<String>) -> Result<(), LinkError> {
    let secret = Secret::new("s3cret".to_owned());
    let credentials = EslCredentials { username: Some("queuewarden@acme.example"), secret: &secret };
    let mut connection = EslConnection::log_in(stream, names, credentials).await?;
    let actions = [MemberAction::Add { penalty: 1, paused: true }, MemberAction::SetPause(false), MemberAction::Remove];
    ask_everything(&mut connection, actions, found).await?;
    // What is looked at again depends on the time that passed: hints are no part of the comparison.
    for _ in 0..HINTS_MAX {
        match connection.hint().await {
            Ok(Hint::CallBegan { key, .. } | Hint::Member(key)) => check_key(&key),
            Ok(_) => {}
            Err(_) => break,
        }
    }
    Ok(())
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
