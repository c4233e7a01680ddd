//! Our side of a conversation with AMI, without a socket: greet, prove who we are, then one question at a time.
//!
//! The secret itself never goes over the wire: Asterisk sends a challenge, and the digest of both goes back. MD5 is
//! what AMI knows; it keeps the secret from whoever listens, not the connection, so the link belongs on loopback.

use md5::{Digest, Md5};

use crate::config::process::Secret;
use crate::limits::AMI_VALUE_BYTES_MAX;
use crate::links::ami::wire::{Message, Unwritable, WireError, banner, message, write_action};

/// Who we are to Asterisk.
#[derive(Clone, Copy, Debug)]
pub struct Credentials<'a> {
    /// The section of `manager.conf`.
    pub username: &'a str,
    /// Its secret.
    pub secret: &'a Secret,
}

/// What one step of the conversation came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// An event, or a step of the login.
    Nothing,
    /// We are logged in from here on.
    LoggedIn,
    /// The login was refused; Asterisk closes.
    LoginRefused,
    /// The answer to the question that was asked.
    Answered(Answer),
}

/// How Asterisk answered an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is done.
    Done,
    /// It was so already: no such member to remove, or one there to add.
    AlreadySo,
    /// Asterisk has no such queue.
    NoSuchQueue,
    /// The member stands in `queues.conf`; only a pause works on it.
    Static,
    /// Anything else.
    Refused,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Banner,
    Challenge,
    Login,
    Ready { asked: bool },
}

/// The state of one conversation.
#[derive(Debug)]
pub struct Client {
    stage: Stage,
    /// The id of the last action that was sent; the next has the next.
    last_id: u64,
}

impl Default for Client {
    fn default() -> Self {
        Self { stage: Stage::Banner, last_id: 0 }
    }
}

impl Client {
    /// Takes one step: reads what begins `input`, and writes to `output` what is to be sent next. Gives how many bytes
    /// were read, or `None` when more are needed.
    ///
    /// # Errors
    ///
    /// When what was heard is not AMI: the conversation is over.
    pub fn hear(
        &mut self,
        input: &[u8],
        credentials: Credentials<'_>,
        output: &mut Vec<u8>,
    ) -> Result<Option<(usize, Heard)>, WireError> {
        if self.stage == Stage::Banner {
            let Some(taken) = banner(input)? else { return Ok(None) };
            // Nothing of these headers comes from outside, so they can be written.
            self.send(output, "Challenge", &[("AuthType", "MD5")]).map_err(|_| WireError::Astray)?;
            self.stage = Stage::Challenge;
            return Ok(Some((taken, Heard::Nothing)));
        }
        let Some((message, taken)) = message(input)? else { return Ok(None) };
        let heard = match message.value("Response")? {
            Some(response) => self.answered(message, response == b"Success", credentials, output)?,
            // Events were not asked for; what is neither is no message.
            None if message.value("Event")?.is_some() => Heard::Nothing,
            None => return Err(WireError::Malformed),
        };
        Ok(Some((taken, heard)))
    }

    /// Writes an action; its answer is the next that [`Client::hear`] gives.
    ///
    /// # Errors
    ///
    /// When a value cannot be written; nothing is written then.
    pub fn ask(
        &mut self,
        output: &mut Vec<u8>,
        name: &'static str,
        headers: &[(&'static str, &str)],
    ) -> Result<(), Unwritable> {
        self.send(output, name, headers)?;
        self.stage = Stage::Ready { asked: true };
        Ok(())
    }

    fn send(
        &mut self,
        output: &mut Vec<u8>,
        name: &'static str,
        headers: &[(&'static str, &str)],
    ) -> Result<(), Unwritable> {
        let id = self.last_id.wrapping_add(1);
        write_action(output, name, id, headers)?;
        self.last_id = id;
        Ok(())
    }

    fn answered(
        &mut self,
        message: Message<'_>,
        success: bool,
        credentials: Credentials<'_>,
        output: &mut Vec<u8>,
    ) -> Result<Heard, WireError> {
        if message.value("ActionID")? != Some(self.last_id.to_string().as_bytes()) {
            return Err(WireError::Astray);
        }
        match self.stage {
            Stage::Challenge | Stage::Login if !success => Ok(Heard::LoginRefused),
            Stage::Challenge => {
                let challenge = message.value("Challenge")?.filter(|challenge| is_challenge(challenge));
                let key = key(challenge.ok_or(WireError::Astray)?, credentials.secret);
                let headers =
                    [("AuthType", "MD5"), ("Username", credentials.username), ("Key", &key), ("Events", "off")];
                // The configuration admits no user name that cannot be written.
                self.send(output, "Login", &headers).map_err(|_| WireError::Astray)?;
                self.stage = Stage::Login;
                Ok(Heard::Nothing)
            }
            Stage::Login => {
                self.stage = Stage::Ready { asked: false };
                Ok(Heard::LoggedIn)
            }
            Stage::Ready { asked: true } => {
                self.stage = Stage::Ready { asked: false };
                Ok(Heard::Answered(if success { Answer::Done } else { complaint(message.value("Message")?) }))
            }
            Stage::Banner | Stage::Ready { asked: false } => Err(WireError::Astray),
        }
    }
}

/// Why an action failed: Asterisk has no codes for it, only sentences, the same since version 1.8.
fn complaint(sentence: Option<&[u8]>) -> Answer {
    let sentence = sentence.unwrap_or_default();
    let ends = |with: &str| sentence.ends_with(with.as_bytes());
    if ends(": Not there") || ends(": Already there") {
        Answer::AlreadySo
    } else if ends(": No such queue") {
        Answer::NoSuchQueue
    } else if ends("Member not dynamic") {
        Answer::Static
    } else {
        Answer::Refused
    }
}

fn is_challenge(challenge: &[u8]) -> bool {
    !challenge.is_empty() && challenge.len() <= AMI_VALUE_BYTES_MAX && challenge.iter().all(u8::is_ascii_graphic)
}

/// What answers a challenge: the MD5 of it and the secret, in hexadecimal.
fn key(challenge: &[u8], secret: &Secret) -> String {
    let digest = Md5::new().chain_update(challenge).chain_update(secret.reveal()).finalize();
    format!("{:032x}", u128::from_be_bytes(digest.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Asterisk 22 says, up to the login.
    const SAID: &[u8] = b"Asterisk Call Manager/11.0.0\r\n\
        Response: Success\r\nActionID: 1\r\nChallenge: 141967229\r\n\r\n\
        Response: Success\r\nActionID: 2\r\nMessage: Authentication accepted\r\n\r\n\
        Event: FullyBooted\r\nPrivilege: system,all\r\nStatus: Fully Booted\r\n\r\n";

    /// The other side of [`SAID`]; the key is what `printf 141967229s3cret | md5sum` prints.
    const SENT: &[u8] = b"Action: Challenge\r\nActionID: 1\r\nAuthType: MD5\r\n\r\n\
        Action: Login\r\nActionID: 2\r\nAuthType: MD5\r\nUsername: queuewarden\r\n\
        Key: 54237bcfb0332a8d5c4d9fd0ac0f894b\r\nEvents: off\r\n\r\n";

    struct Talk {
        client: Client,
        secret: Secret,
        input: Vec<u8>,
        output: Vec<u8>,
    }

    impl Talk {
        fn new() -> Self {
            let secret = Secret::new("s3cret".to_owned());
            Self { client: Client::default(), secret, input: vec![], output: vec![] }
        }

        fn hear(&mut self, bytes: &[u8]) -> Result<Vec<Heard>, WireError> {
            self.input.extend_from_slice(bytes);
            let mut all = vec![];
            let credentials = Credentials { username: "queuewarden", secret: &self.secret };
            while let Some((taken, heard)) = self.client.hear(&self.input, credentials, &mut self.output)? {
                self.input.drain(..taken);
                all.push(heard);
            }
            Ok(all)
        }

        fn ready() -> Self {
            let mut talk = Self::new();
            assert!(talk.hear(SAID).unwrap().contains(&Heard::LoggedIn));
            talk.output.clear();
            talk
        }

        fn ask(&mut self) {
            self.client.ask(&mut self.output, "QueueRemove", &[("Queue", "600"), ("Interface", "PJSIP/1001")]).unwrap();
        }
    }

    #[test]
    fn a_login_goes_the_same_way_however_its_bytes_arrive() {
        for split in 0..=SAID.len() {
            let mut talk = Talk::new();
            let mut heard = talk.hear(&SAID[..split]).unwrap();
            heard.extend(talk.hear(&SAID[split..]).unwrap());
            assert_eq!(heard, [Heard::Nothing, Heard::Nothing, Heard::LoggedIn, Heard::Nothing], "{split}");
            assert_eq!(String::from_utf8_lossy(&talk.output), String::from_utf8_lossy(SENT), "{split}");
        }
    }

    #[test]
    fn a_refusal_is_told_from_what_is_not_ami() {
        let mut talk = Talk::new();
        drop(talk.hear(b"Asterisk Call Manager/5.0.4\r\n"));
        let refused = b"Response: Error\r\nActionID: 1\r\nMessage: Must specify AuthType\r\n\r\n";
        assert_eq!(talk.hear(refused), Ok(vec![Heard::LoginRefused]));
        let mut talk = Talk::new();
        drop(talk.hear(b"Asterisk Call Manager/5.0.4\r\nResponse: Success\r\nActionID: 1\r\nChallenge: 1\r\n\r\n"));
        let refused = b"Response: Error\r\nActionID: 2\r\nMessage: Authentication failed\r\n\r\n";
        assert_eq!(talk.hear(refused), Ok(vec![Heard::LoginRefused]));
        for challenge in ["Challenge: \r\n", "Challenge: 1 2\r\n", "", "Challenge: 1\r\nChallenge: 1\r\n"] {
            let mut talk = Talk::new();
            drop(talk.hear(b"Asterisk Call Manager/5.0.4\r\n"));
            let said = format!("Response: Success\r\nActionID: 1\r\n{challenge}\r\n");
            assert!(talk.hear(said.as_bytes()).is_err(), "{challenge:?}");
        }
    }

    #[test]
    fn answers_mean_what_asterisk_says_with_them() {
        for (said, answer) in [
            ("Success\r\nMessage: Removed interface from queue", Answer::Done),
            ("Error\r\nMessage: Unable to remove interface: Not there", Answer::AlreadySo),
            ("Error\r\nMessage: Unable to add interface: Already there", Answer::AlreadySo),
            ("Error\r\nMessage: Unable to remove interface from queue: No such queue", Answer::NoSuchQueue),
            ("Error\r\nMessage: Member not dynamic", Answer::Static),
            ("Error\r\nMessage: Permission denied", Answer::Refused),
            ("Error\r\nMessage: ", Answer::Refused),
            ("Error", Answer::Refused),
        ] {
            let mut talk = Talk::ready();
            talk.ask();
            let said = format!("Event: X\r\n\r\nResponse: {said}\r\nActionID: 3\r\n\r\n");
            assert_eq!(talk.hear(said.as_bytes()), Ok(vec![Heard::Nothing, Heard::Answered(answer)]), "{said:?}");
        }
    }

    #[test]
    fn an_answer_to_what_was_not_asked_ends_the_conversation() {
        let mut talk = Talk::ready();
        assert_eq!(talk.hear(b"Response: Success\r\nActionID: 2\r\n\r\n"), Err(WireError::Astray));
        for astray in ["ActionID: 2", "ActionID: 4", "Message: no id"] {
            let mut talk = Talk::ready();
            talk.ask();
            let said = format!("Response: Success\r\n{astray}\r\n\r\n");
            assert_eq!(talk.hear(said.as_bytes()), Err(WireError::Astray), "{astray}");
        }
        let mut talk = Talk::ready();
        assert_eq!(talk.hear(b"Neither: x\r\n\r\n"), Err(WireError::Malformed));
    }
}
