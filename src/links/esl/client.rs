//! The client side of one connection to the event socket, without a socket: it logs in, then has one command under way
//! at a time.

use crate::config::process::Secret;
use crate::links::esl::protocol::{EslMessage, EslProtocolError, UnwritableCommand, message, write_command};
use crate::links::pbx_connection::words_of;

/// How the sidecar logs in.
#[derive(Clone, Copy, Debug)]
pub struct EslCredentials<'a> {
    /// The directory user, `user@domain`, for `userauth`. `None`: `auth`, with the password of the event socket alone.
    pub username: Option<&'a str>,
    /// The password.
    pub secret: &'a Secret,
}

/// What [`EslClient::read`] found in the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EslInput<'buf> {
    /// An intermediate step of the login: nothing to do but to write the output.
    Ignored,
    /// The login succeeded. The names of the API commands that the account may give, as FreeSWITCH lists them. `None`:
    /// all of them.
    LoggedIn(Option<&'buf [u8]>),
    /// FreeSWITCH refused the login and closes the connection.
    LoginRefused,
    /// FreeSWITCH refuses connections from this address.
    AddressRefused,
    /// FreeSWITCH ends the connection.
    Disconnected,
    /// An event, in the format `plain`: its lines, percent-encoded.
    Event(&'buf [u8]),
    /// The answer to the command that was sent last: the text of `Reply-Text`, or the body of an `api/response`.
    Answer(&'buf [u8]),
}

/// What the client waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EslState {
    /// `auth/request`.
    Greeting,
    /// The answer to `auth` or `userauth`.
    Login,
    /// Logged in; `command_sent`: an answer is due.
    Ready { command_sent: bool },
}

/// The state of one connection.
#[derive(Debug)]
pub struct EslClient {
    state: EslState,
    /// The words with which FreeSWITCH refused the login. Empty: FreeSWITCH did not refuse it.
    refusal: String,
}

impl Default for EslClient {
    fn default() -> Self {
        Self { state: EslState::Greeting, refusal: String::new() }
    }
}

impl EslClient {
    /// The words with which FreeSWITCH refused the login. Empty: FreeSWITCH did not refuse it, or gave no reason.
    #[must_use]
    pub fn refusal(&self) -> &str {
        &self.refusal
    }

    /// Reads the message at the start of `input` and appends to `output` what must be sent next. Returns the number of
    /// bytes read and what was read. `None`: the message is incomplete.
    ///
    /// # Errors
    ///
    /// When the peer does not speak the protocol; the connection must end.
    pub fn read<'buf>(
        &mut self,
        input: &'buf [u8],
        credentials: EslCredentials<'_>,
        output: &mut Vec<u8>,
    ) -> Result<Option<(usize, EslInput<'buf>)>, EslProtocolError> {
        let Some((message, taken)) = message(input)? else { return Ok(None) };
        let read = self.read_message(message, credentials, output)?;
        Ok(Some((taken, read)))
    }

    fn read_message<'buf>(
        &mut self,
        message: EslMessage<'buf>,
        credentials: EslCredentials<'_>,
        output: &mut Vec<u8>,
    ) -> Result<EslInput<'buf>, EslProtocolError> {
        let kind = message.headers.value("Content-Type")?.unwrap_or_default();
        let reply = || message.headers.value("Reply-Text").map(Option::unwrap_or_default);
        match (kind, self.state) {
            (b"text/rude-rejection", _) => {
                self.refusal = words_of(message.body);
                Ok(EslInput::AddressRefused)
            }
            (b"text/disconnect-notice", _) => Ok(EslInput::Disconnected),
            (b"auth/request", EslState::Greeting) => {
                log_in(credentials, output)?;
                self.state = EslState::Login;
                Ok(EslInput::Ignored)
            }
            (b"command/reply", EslState::Login) if reply()?.starts_with(b"+OK") => {
                self.state = EslState::Ready { command_sent: false };
                Ok(EslInput::LoggedIn(message.headers.value("Allowed-API")?))
            }
            (b"command/reply", EslState::Login) => {
                self.refusal = words_of(reply()?);
                Ok(EslInput::LoginRefused)
            }
            (b"text/event-plain", EslState::Ready { .. }) => Ok(EslInput::Event(message.body)),
            (b"command/reply", EslState::Ready { command_sent: true }) => {
                self.state = EslState::Ready { command_sent: false };
                Ok(EslInput::Answer(reply()?))
            }
            (b"api/response", EslState::Ready { command_sent: true }) => {
                self.state = EslState::Ready { command_sent: false };
                Ok(EslInput::Answer(message.body))
            }
            // Another format of events, and log lines, which were not asked for.
            (b"text/event-json" | b"text/event-xml" | b"log/data", EslState::Ready { .. }) => Ok(EslInput::Ignored),
            _ => Err(EslProtocolError::UnexpectedAnswer),
        }
    }

    /// Appends a command to `output`; [`EslClient::read`] returns its answer. No other command may be under way.
    ///
    /// # Errors
    ///
    /// When the command cannot be sent; nothing is appended then.
    pub fn send(&mut self, output: &mut Vec<u8>, parts: &[&str]) -> Result<(), UnwritableCommand> {
        write_command(output, parts)?;
        self.state = EslState::Ready { command_sent: true };
        Ok(())
    }
}

/// Appends the command that logs in. The configuration refuses names and secrets that cannot be sent.
fn log_in(credentials: EslCredentials<'_>, output: &mut Vec<u8>) -> Result<(), EslProtocolError> {
    let secret = std::str::from_utf8(credentials.secret.reveal()).map_err(|_| EslProtocolError::UnexpectedAnswer)?;
    let written = match credentials.username {
        Some(username) => write_command(output, &["userauth ", username, ":", secret]),
        None => write_command(output, &["auth ", secret]),
    };
    written.map_err(|_| EslProtocolError::UnexpectedAnswer)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What FreeSWITCH 1.11 sends up to the end of the login.
    const LOGIN: &[u8] = b"Content-Type: auth/request\n\nContent-Type: command/reply\nReply-Text: +OK accepted\n\
        Allowed-API: callcenter_config,uuid_kill\n\n";

    /// An input without the bytes that it borrows.
    #[derive(Debug, PartialEq, Eq)]
    enum Owned {
        Plain(&'static str),
        Event(Vec<u8>),
        Answer(Vec<u8>),
    }

    fn receive(
        client: &mut EslClient,
        bytes: &[u8],
        username: Option<&str>,
    ) -> Result<(Vec<Owned>, Vec<u8>), EslProtocolError> {
        let secret = Secret::new("pw".to_owned());
        let (mut rest, mut output, mut inputs) = (bytes, vec![], vec![]);
        while let Some((taken, input)) = client.read(rest, EslCredentials { username, secret: &secret }, &mut output)? {
            inputs.push(match input {
                EslInput::Event(event) => Owned::Event(event.to_vec()),
                EslInput::Answer(answer) => Owned::Answer(answer.to_vec()),
                EslInput::Ignored => Owned::Plain("ignored"),
                EslInput::LoggedIn(_) => Owned::Plain("logged in"),
                EslInput::LoginRefused => Owned::Plain("login refused"),
                EslInput::AddressRefused => Owned::Plain("address refused"),
                EslInput::Disconnected => Owned::Plain("disconnected"),
            });
            rest = &rest[taken..];
        }
        Ok((inputs, output))
    }

    #[test]
    fn the_client_logs_in_with_an_account_or_with_the_password_alone() {
        for (username, sent) in [(Some("qw@acme.example"), "userauth qw@acme.example:pw\n\n"), (None, "auth pw\n\n")] {
            let mut client = EslClient::default();
            let (inputs, output) = receive(&mut client, LOGIN, username).unwrap();
            assert_eq!(inputs, [Owned::Plain("ignored"), Owned::Plain("logged in")]);
            assert_eq!(String::from_utf8_lossy(&output), sent);
        }
    }

    #[test]
    fn a_refusal_of_account_or_address_is_no_protocol_error() {
        let refused = b"Content-Type: auth/request\n\nContent-Type: command/reply\nReply-Text: -ERR invalid\n\n\
            Content-Type: text/disconnect-notice\nContent-Length: 4\n\nBye\n";
        let mut client = EslClient::default();
        let (inputs, _) = receive(&mut client, refused, None).unwrap();
        assert_eq!(inputs[1..], [Owned::Plain("login refused"), Owned::Plain("disconnected")]);
        assert_eq!(client.refusal(), "-ERR invalid");
        let rude = b"Content-Type: text/rude-rejection\nContent-Length: 24\n\nAccess Denied, go away.\n";
        assert_eq!(receive(&mut EslClient::default(), rude, None).unwrap().0, [Owned::Plain("address refused")]);
    }

    #[test]
    fn events_between_command_and_answer_are_told_apart() {
        let mut client = EslClient::default();
        let _login = receive(&mut client, LOGIN, None).unwrap();
        client.send(&mut vec![], &["api callcenter_config tier list"]).unwrap();
        let bytes =
            b"Content-Length: 13\nContent-Type: text/event-plain\n\nEvent-Name: X\nContent-Type: api/response\n\
            Content-Length: 4\n\n+OK\n";
        let (inputs, _) = receive(&mut client, bytes, None).unwrap();
        assert_eq!(inputs, [Owned::Event(b"Event-Name: X".to_vec()), Owned::Answer(b"+OK\n".to_vec())]);
        let again = b"Content-Type: api/response\nContent-Length: 4\n\n+OK\n";
        assert_eq!(receive(&mut client, again, None), Err(EslProtocolError::UnexpectedAnswer));
    }
}
