//! The client side of one AMI connection, without a socket: it logs in, then has one action under way at a time.
//!
//! The secret is never sent. Asterisk sends a challenge, and the client answers with the MD5 digest of challenge and
//! secret, the only digest that AMI knows. It hides the secret but does not protect the connection; therefore a link
//! should stay on loopback.

use md5::{Digest, Md5};

use crate::config::process::Secret;
use crate::limits::AMI_VALUE_BYTES_MAX;
use crate::links::ami::protocol::{AmiMessage, AmiProtocolError, UnwritableValue, banner, message, write_action};
use crate::links::pbx_connection::words_of;

/// The user of `manager.conf` as which queuewarden logs in.
#[derive(Clone, Copy, Debug)]
pub struct AmiCredentials<'a> {
    /// The name of its section in `manager.conf`.
    pub username: &'a str,
    /// The `secret` of that section.
    pub secret: &'a Secret,
    /// Whether Asterisk sends events.
    pub events: bool,
}

/// What [`AmiClient::read`] found in the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AmiInput<'buf> {
    /// An intermediate step of the login: nothing to do but to write the output.
    Ignored,
    /// The login succeeded.
    LoggedIn,
    /// Asterisk refused the login and closes the connection.
    LoginRefused,
    /// An event that belongs to no action.
    Event(AmiMessage<'buf>),
    /// An element of the list that the action that was sent last asked for.
    ListItem(AmiMessage<'buf>),
    /// The answer to the action that was sent last; of a list its end.
    Answer(AmiResult, AmiMessage<'buf>),
}

/// The result of an action on a queue member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AmiResult {
    /// Asterisk carried the action out.
    Done,
    /// Nothing to do: the member to remove is absent, or the member to add is present.
    Unchanged,
    /// Asterisk has no such queue.
    NoSuchQueue,
    /// Asterisk has no such channel.
    NoSuchChannel,
    /// The member is defined in `queues.conf`, so Asterisk neither adds nor removes it.
    StaticMember,
    /// The user lacks the class that the action needs.
    NotPermitted,
    /// Asterisk does not know the action: its module is not loaded yet.
    UnknownAction,
    /// Asterisk refused for another reason.
    Refused,
}

/// What the client waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClientState {
    /// The first line of Asterisk.
    Banner,
    /// The response to `Challenge`.
    Challenge,
    /// The response to `Login`.
    Login,
    /// Logged in; no action is under way.
    Ready,
    /// The response to an action. `list_end`: the event that ends the list behind it; `None`: no list follows.
    Response { list_end: Option<&'static str> },
    /// The rest of a list, up to this event. `items`: the elements that have come.
    List { list_end: &'static str, items: u64 },
}

/// The state of one AMI connection.
#[derive(Debug)]
pub struct AmiClient {
    state: ClientState,
    /// `ActionID` of the last action; 0 before the first one.
    last_id: u64,
    /// The words with which Asterisk refused the login. Empty: Asterisk did not refuse it.
    refusal: String,
}

impl Default for AmiClient {
    fn default() -> Self {
        Self { state: ClientState::Banner, last_id: 0, refusal: String::new() }
    }
}

impl AmiClient {
    /// The words with which Asterisk refused the login. Empty: Asterisk did not refuse it, or gave no reason.
    #[must_use]
    pub fn refusal(&self) -> &str {
        &self.refusal
    }

    /// Reads the banner or the message at the start of `input` and appends to `output` what must be sent next. Returns
    /// the number of bytes read and what was read. `None`: the message is incomplete.
    ///
    /// # Errors
    ///
    /// When the peer does not speak AMI; the connection must end.
    pub fn read<'buf>(
        &mut self,
        input: &'buf [u8],
        credentials: AmiCredentials<'_>,
        output: &mut Vec<u8>,
    ) -> Result<Option<(usize, AmiInput<'buf>)>, AmiProtocolError> {
        if self.state == ClientState::Banner {
            let Some(taken) = banner(input)? else { return Ok(None) };
            // The values are constants, so they can always be written.
            self.send(output, "Challenge", &[("AuthType", "MD5")]).map_err(|_| AmiProtocolError::UnexpectedResponse)?;
            self.state = ClientState::Challenge;
            return Ok(Some((taken, AmiInput::Ignored)));
        }
        let Some((message, taken)) = message(input)? else { return Ok(None) };
        // A dialplan can add any key to an event, but not in its first line.
        let read = match message.first_key() {
            b"Response" => self.read_response(message, credentials, output)?,
            b"Event" => self.read_event(message)?,
            _ => return Err(AmiProtocolError::Malformed),
        };
        Ok(Some((taken, read)))
    }

    /// Appends an action to `output`; [`AmiClient::read`] returns its answer. No other action may be under way.
    ///
    /// # Errors
    ///
    /// When a value cannot be sent; nothing is appended then.
    pub fn act(
        &mut self,
        output: &mut Vec<u8>,
        name: &'static str,
        headers: &[(&'static str, &str)],
    ) -> Result<(), UnwritableValue> {
        self.send(output, name, headers)?;
        self.state = ClientState::Response { list_end: None };
        Ok(())
    }

    /// The same for an action that is answered by a list, whose last element is the event `list_end`.
    ///
    /// # Errors
    ///
    /// As [`AmiClient::act`].
    pub fn act_for_list(
        &mut self,
        output: &mut Vec<u8>,
        name: &'static str,
        headers: &[(&'static str, &str)],
        list_end: &'static str,
    ) -> Result<(), UnwritableValue> {
        self.send(output, name, headers)?;
        self.state = ClientState::Response { list_end: Some(list_end) };
        Ok(())
    }

    fn send(
        &mut self,
        output: &mut Vec<u8>,
        name: &'static str,
        headers: &[(&'static str, &str)],
    ) -> Result<(), UnwritableValue> {
        let id = self.last_id.wrapping_add(1);
        write_action(output, name, id, headers)?;
        self.last_id = id;
        Ok(())
    }

    fn read_event<'buf>(&mut self, message: AmiMessage<'buf>) -> Result<AmiInput<'buf>, AmiProtocolError> {
        let ClientState::List { list_end, items } = self.state else { return Ok(AmiInput::Event(message)) };
        // An event of a dialplan may have the key twice: then it is no element of the list.
        if message.value("ActionID").ok().flatten() != Some(self.last_id.to_string().as_bytes()) {
            return Ok(AmiInput::Event(message));
        }
        if message.first_value() != list_end.as_bytes() {
            self.state = ClientState::List { list_end, items: items.saturating_add(1) };
            return Ok(AmiInput::ListItem(message));
        }
        let said = message.value("ListItems")?.and_then(|text| std::str::from_utf8(text).ok()?.parse::<u64>().ok());
        if said.is_some_and(|said| said > items) {
            return Err(AmiProtocolError::Incomplete);
        }
        self.state = ClientState::Ready;
        Ok(AmiInput::Answer(AmiResult::Done, message))
    }

    fn read_response<'buf>(
        &mut self,
        message: AmiMessage<'buf>,
        credentials: AmiCredentials<'_>,
        output: &mut Vec<u8>,
    ) -> Result<AmiInput<'buf>, AmiProtocolError> {
        if message.value("ActionID")? != Some(self.last_id.to_string().as_bytes()) {
            return Err(AmiProtocolError::UnexpectedResponse);
        }
        let is_success = message.value("Response")? == Some(b"Success");
        match self.state {
            ClientState::Challenge | ClientState::Login if !is_success => {
                self.refusal = words_of(message.value("Message")?.unwrap_or_default());
                Ok(AmiInput::LoginRefused)
            }
            ClientState::Challenge => {
                let challenge = message.value("Challenge")?.filter(|challenge| is_challenge(challenge));
                let key = key(challenge.ok_or(AmiProtocolError::UnexpectedResponse)?, credentials.secret);
                let events = if credentials.events { "on" } else { "off" };
                let headers =
                    [("AuthType", "MD5"), ("Username", credentials.username), ("Key", &key), ("Events", events)];
                // The configuration refuses a user name that cannot be sent.
                self.send(output, "Login", &headers).map_err(|_| AmiProtocolError::UnexpectedResponse)?;
                self.state = ClientState::Login;
                Ok(AmiInput::Ignored)
            }
            ClientState::Login => {
                self.state = ClientState::Ready;
                Ok(AmiInput::LoggedIn)
            }
            ClientState::Response { list_end: Some(list_end) } if is_success => {
                self.state = ClientState::List { list_end, items: 0 };
                Ok(AmiInput::Ignored)
            }
            ClientState::Response { .. } => {
                self.state = ClientState::Ready;
                let result = if is_success { AmiResult::Done } else { failure(message.value("Message")?) };
                Ok(AmiInput::Answer(result, message))
            }
            ClientState::Banner | ClientState::Ready | ClientState::List { .. } => {
                Err(AmiProtocolError::UnexpectedResponse)
            }
        }
    }
}

/// Tells from the sentence in `Message` why an action failed. AMI has no codes for failures; the sentences are the same
/// since Asterisk 1.8.
fn failure(sentence: Option<&[u8]>) -> AmiResult {
    let sentence = sentence.unwrap_or_default();
    let ends = |end: &str| sentence.ends_with(end.as_bytes());
    if ends(": Not there") || ends(": Already there") {
        AmiResult::Unchanged
    } else if ends(": No such queue") {
        AmiResult::NoSuchQueue
    } else if sentence == b"No such channel" {
        AmiResult::NoSuchChannel
    } else if ends("Member not dynamic") {
        AmiResult::StaticMember
    } else if sentence == b"Permission denied" {
        AmiResult::NotPermitted
    } else if sentence.starts_with(b"Invalid/unknown command") {
        AmiResult::UnknownAction
    } else {
        AmiResult::Refused
    }
}

fn is_challenge(challenge: &[u8]) -> bool {
    !challenge.is_empty() && challenge.len() <= AMI_VALUE_BYTES_MAX && challenge.iter().all(u8::is_ascii_graphic)
}

/// The answer to a challenge: the MD5 digest of challenge and secret, in hexadecimal.
fn key(challenge: &[u8], secret: &Secret) -> String {
    let digest = Md5::new().chain_update(challenge).chain_update(secret.reveal()).finalize();
    format!("{:032x}", u128::from_be_bytes(digest.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Asterisk 22 sends, up to the end of the login.
    const RECEIVED: &[u8] = b"Asterisk Call Manager/11.0.0\r\n\
        Response: Success\r\nActionID: 1\r\nChallenge: 141967229\r\n\r\n\
        Response: Success\r\nActionID: 2\r\nMessage: Authentication accepted\r\n\r\n\
        Event: FullyBooted\r\nPrivilege: system,all\r\nStatus: Fully Booted\r\n\r\n";

    /// The bytes that the client sends when it receives [`RECEIVED`]. The key is the output of
    /// `printf 141967229s3cret | md5sum`.
    const SENT: &[u8] = b"Action: Challenge\r\nActionID: 1\r\nAuthType: MD5\r\n\r\n\
        Action: Login\r\nActionID: 2\r\nAuthType: MD5\r\nUsername: queuewarden\r\n\
        Key: 54237bcfb0332a8d5c4d9fd0ac0f894b\r\nEvents: off\r\n\r\n";

    /// An input without the bytes that it borrows.
    #[derive(Debug, PartialEq, Eq)]
    enum Received {
        Ignored,
        LoggedIn,
        LoginRefused,
        Event,
        ListItem,
        Answer(AmiResult),
    }

    /// A client with the bytes that it received and sent.
    struct TestConnection {
        client: AmiClient,
        secret: Secret,
        input: Vec<u8>,
        output: Vec<u8>,
    }

    impl TestConnection {
        fn new() -> Self {
            let secret = Secret::new("s3cret".to_owned());
            Self { client: AmiClient::default(), secret, input: vec![], output: vec![] }
        }

        fn receive(&mut self, bytes: &[u8]) -> Result<Vec<Received>, AmiProtocolError> {
            self.input.extend_from_slice(bytes);
            let mut inputs = vec![];
            let credentials = AmiCredentials { username: "queuewarden", secret: &self.secret, events: false };
            while let Some((taken, input)) = self.client.read(&self.input, credentials, &mut self.output)? {
                inputs.push(match input {
                    AmiInput::Ignored => Received::Ignored,
                    AmiInput::LoggedIn => Received::LoggedIn,
                    AmiInput::LoginRefused => Received::LoginRefused,
                    AmiInput::Event(_) => Received::Event,
                    AmiInput::ListItem(_) => Received::ListItem,
                    AmiInput::Answer(result, _) => Received::Answer(result),
                });
                self.input.drain(..taken);
            }
            Ok(inputs)
        }

        fn ready() -> Self {
            let mut connection = Self::new();
            assert!(connection.receive(RECEIVED).unwrap().contains(&Received::LoggedIn));
            connection.output.clear();
            connection
        }

        fn act(&mut self) {
            self.client.act(&mut self.output, "QueueRemove", &[("Queue", "600"), ("Interface", "PJSIP/1001")]).unwrap();
        }
    }

    #[test]
    fn a_login_does_not_depend_on_how_its_bytes_are_segmented() {
        for split in 0..=RECEIVED.len() {
            let mut connection = TestConnection::new();
            let mut events = connection.receive(&RECEIVED[..split]).unwrap();
            events.extend(connection.receive(&RECEIVED[split..]).unwrap());
            assert_eq!(events, [Received::Ignored, Received::Ignored, Received::LoggedIn, Received::Event], "{split}");
            assert_eq!(String::from_utf8_lossy(&connection.output), String::from_utf8_lossy(SENT), "{split}");
        }
    }

    #[test]
    fn a_refused_login_is_not_a_protocol_error() {
        let mut connection = TestConnection::new();
        connection.receive(b"Asterisk Call Manager/5.0.4\r\n").unwrap();
        let refused = b"Response: Error\r\nActionID: 1\r\nMessage: Must specify AuthType\r\n\r\n";
        assert_eq!(connection.receive(refused), Ok(vec![Received::LoginRefused]));
        let mut connection = TestConnection::new();
        connection
            .receive(b"Asterisk Call Manager/5.0.4\r\nResponse: Success\r\nActionID: 1\r\nChallenge: 1\r\n\r\n")
            .unwrap();
        let refused = b"Response: Error\r\nActionID: 2\r\nMessage: Authentication failed\r\n\r\n";
        assert_eq!(connection.receive(refused), Ok(vec![Received::LoginRefused]));
        assert_eq!(connection.client.refusal(), "Authentication failed");
        for challenge in ["Challenge: \r\n", "Challenge: 1 2\r\n", "", "Challenge: 1\r\nChallenge: 1\r\n"] {
            let mut connection = TestConnection::new();
            connection.receive(b"Asterisk Call Manager/5.0.4\r\n").unwrap();
            let received = format!("Response: Success\r\nActionID: 1\r\n{challenge}\r\n");
            assert!(connection.receive(received.as_bytes()).is_err(), "{challenge:?}");
        }
    }

    #[test]
    fn the_result_of_an_action_is_read_from_the_sentence() {
        for (sentence, result) in [
            ("Success\r\nMessage: Removed interface from queue", AmiResult::Done),
            ("Error\r\nMessage: Unable to remove interface: Not there", AmiResult::Unchanged),
            ("Error\r\nMessage: Unable to add interface: Already there", AmiResult::Unchanged),
            ("Error\r\nMessage: Unable to remove interface from queue: No such queue", AmiResult::NoSuchQueue),
            ("Error\r\nMessage: Member not dynamic", AmiResult::StaticMember),
            ("Error\r\nMessage: Permission denied", AmiResult::NotPermitted),
            (
                "Error\r\nMessage: Invalid/unknown command: QueueStatus. Use Action: ListCommands",
                AmiResult::UnknownAction,
            ),
            ("Error\r\nMessage: ", AmiResult::Refused),
            ("Error", AmiResult::Refused),
        ] {
            let mut connection = TestConnection::ready();
            connection.act();
            let received = format!("Event: X\r\n\r\nResponse: {sentence}\r\nActionID: 3\r\n\r\n");
            assert_eq!(
                connection.receive(received.as_bytes()),
                Ok(vec![Received::Event, Received::Answer(result)]),
                "{sentence:?}"
            );
        }
    }

    #[test]
    fn a_response_without_an_action_is_a_protocol_error() {
        let mut connection = TestConnection::ready();
        assert_eq!(
            connection.receive(b"Response: Success\r\nActionID: 2\r\n\r\n"),
            Err(AmiProtocolError::UnexpectedResponse)
        );
        for wrong in ["ActionID: 2", "ActionID: 4", "Message: no id"] {
            let mut connection = TestConnection::ready();
            connection.act();
            let received = format!("Response: Success\r\n{wrong}\r\n\r\n");
            assert_eq!(connection.receive(received.as_bytes()), Err(AmiProtocolError::UnexpectedResponse), "{wrong}");
        }
        let mut connection = TestConnection::ready();
        assert_eq!(connection.receive(b"Neither: x\r\n\r\n"), Err(AmiProtocolError::Malformed));
    }

    #[test]
    fn a_list_is_read_to_its_end_whatever_stands_between() {
        let list = b"Response: Success\r\nActionID: 3\r\nEventList: start\r\n\r\n\
            Event: QueueMember\r\nActionID: 3\r\n\r\nEvent: ChanSpyStart\r\nSpyerChannel: x\r\n\r\n\
            Event: UserEvent\r\nActionID: 3\r\nEventList: Complete\r\nResponse: Success\r\n\r\n\
            Event: QueueStatusComplete\r\nActionID: 2\r\n\r\n\
            Event: QueueStatusComplete\r\nActionID: 3\r\nListItems: 1\r\n\r\n";
        for split in 0..=list.len() {
            let mut connection = TestConnection::ready();
            connection
                .client
                .act_for_list(&mut vec![], "QueueStatus", &[("Queue", "600")], "QueueStatusComplete")
                .unwrap();
            let mut inputs = connection.receive(&list[..split]).unwrap();
            inputs.extend(connection.receive(&list[split..]).unwrap());
            let expected = [
                Received::Ignored,
                Received::ListItem,
                Received::Event,
                Received::ListItem,
                Received::Event,
                Received::Answer(AmiResult::Done),
            ];
            assert_eq!(inputs, expected, "{split}");
        }
        let mut connection = TestConnection::ready();
        connection.client.act_for_list(&mut vec![], "Status", &[], "StatusComplete").unwrap();
        let refused = b"Response: Error\r\nActionID: 3\r\nMessage: Permission denied\r\n\r\n";
        assert_eq!(connection.receive(refused), Ok(vec![Received::Answer(AmiResult::NotPermitted)]));
    }
}
