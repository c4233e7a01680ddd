//! Fuzz target of the link to Asterisk: the input is what Asterisk sends on one connection.

use memchr::memmem::find;

use crate::config::link_names::NamePattern;
use crate::config::process::Secret;
use crate::fuzzing::pbx_stream::{HINTS_MAX, PbxStream, ask_everything, check_key, same_in_segments};
use crate::limits::{AMI_LINE_BYTES_MAX, AMI_MESSAGE_BYTES_MAX};
use crate::links::ami::client::AmiCredentials;
use crate::links::ami::connection::{AmiConnection, AsteriskNames};
use crate::links::ami::protocol::{AmiProtocolError, message};
use crate::links::names::PbxNames;
use crate::links::pbx_connection::{Hint, LinkError, MemberAction, PbxConnection};

/// Checks that a link says and sends the same however the input is cut into segments, that it sends whole actions only,
/// that every name it takes from Asterisk is one of its organization, and that the parser agrees with a naive one.
pub fn ami_stream(data: &[u8]) {
    check_message(data);
    let pattern = |text| NamePattern::parse(text).expect("a pattern");
    let names = AsteriskNames {
        interfaces: PbxNames::new(pattern("PJSIP/%"), [("1004".into(), "Local/x@y".into())]),
        state_interfaces: PbxNames::new(pattern("PJSIP/%"), []),
        queues: PbxNames::new(pattern("%"), []),
    };
    let sent = same_in_segments(data, &async |stream, found| converse(stream, &names, found).await);
    check_sent(&sent);
}

/// Holds the conversation of a link.
async fn converse(stream: PbxStream<'_>, names: &AsteriskNames, found: &mut Vec<String>) -> Result<(), LinkError> {
    let secret = Secret::new("s3cret".to_owned());
    let credentials = AmiCredentials { username: "queuewarden", secret: &secret, events: true };
    let mut connection = AmiConnection::log_in(stream, names, credentials).await?;
    let actions = [MemberAction::Remove, MemberAction::Add { penalty: 1, paused: true }, MemberAction::PauseFixed];
    ask_everything(&mut connection, actions, found).await?;
    for _ in 0..HINTS_MAX {
        let hint = connection.hint().await?;
        if let Hint::Member(key) = &hint {
            check_key(key);
        }
        found.push(format!("{hint:?}"));
    }
    Ok(())
}

/// Checks that only whole actions are sent, each with its number, and no secret.
fn check_sent(sent: &[u8]) {
    let text = std::str::from_utf8(sent).expect("actions are ASCII");
    assert!(text.is_empty() || text.ends_with("\r\n\r\n"), "{text:?}");
    assert!(!text.contains("s3cret"), "the secret is sent");
    for (number, action) in text.split_terminator("\r\n\r\n").enumerate() {
        let mut lines = action.split("\r\n");
        assert!(lines.next().is_some_and(|line| line.starts_with("Action: ")), "{action:?}");
        assert_eq!(lines.next(), Some(&*format!("ActionID: {}", number + 1)));
        assert!(lines.all(|line| line.split_once(": ").is_some_and(|(_, value)| !value.is_empty())), "{action:?}");
    }
}

/// Compares the parser of messages with a naive one.
fn check_message(data: &[u8]) {
    let naive = find(data, b"\r\n\r\n").map(|end| &data[..end + 4]);
    match message(data) {
        Ok(Some((read, taken))) => {
            assert_eq!(Some(&data[..taken]), naive, "another end");
            let text: Vec<&[u8]> = data[..taken - 4].split(|&byte| byte == b'\n').collect();
            let first = text[0].strip_suffix(b"\r").unwrap_or(text[0]);
            assert!(first.starts_with(&[read.first_key(), b":"].concat()) && first.ends_with(read.first_value()));
            assert!(taken <= AMI_MESSAGE_BYTES_MAX && text.iter().all(|line| line.len() <= AMI_LINE_BYTES_MAX + 1));
        }
        Ok(None) => assert_eq!(naive, None, "a whole message is not read"),
        Err(AmiProtocolError::TooLong) => assert!(data.len() > AMI_LINE_BYTES_MAX),
        Err(_) => {}
    }
}
