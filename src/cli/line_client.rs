//! A peer of the line listener: what a PBX is, by hand.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use thiserror::Error;

use crate::cli::admin_client::Place;
use crate::config::process::Listen;
use crate::dialect::DialectLabel;
use crate::limits::{ADMIN_CLIENT_TIMEOUT, LINE_ANSWER_BYTES_MAX, LINE_BYTES_MAX};

/// Why there is no answer.
#[derive(Debug, Error)]
pub(super) enum PeerError {
    /// The configuration has no line listener, or one whose port only the sidecar knows.
    #[error(
        "queuewarden.toml names no line listener that can be dialed\n  help: set `line` or `line_unix` in `[listen]`; \
         a port of 0 cannot be dialed"
    )]
    Off,
    /// Nobody answers, at none of these places.
    #[error("the sidecar cannot be reached: {0}\n  help: is it running, and may you use the socket?")]
    Unreachable(String),
    /// The connection broke, or what came is no answer.
    #[error("the sidecar at {place} did not answer: {why}")]
    Broken {
        /// Where.
        place: Place,
        /// Why.
        why: String,
    },
    /// The question does not fit.
    #[error("the question is longer than the line dialect allows")]
    TooLong,
}

/// One answer: its first word, and its pairs in order.
#[derive(Debug)]
pub(super) struct Reply {
    /// `allow`, `deny` or `error`.
    pub(super) verdict: String,
    pairs: Vec<(String, String)>,
}

impl Reply {
    /// The value of a key.
    pub(super) fn value(&self, key: &str) -> Option<&str> {
        self.pairs.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    fn parse(line: &str, id: &str) -> Option<Self> {
        let (of, rest) = line.split_once(' ')?;
        let mut words = rest.split(' ');
        let verdict = words.next().filter(|word| ["allow", "deny", "error"].contains(word))?;
        let pairs = words.map(|pair| pair.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned())));
        // What could not be read is answered with `-`: it is ours all the same, there is nobody else here.
        [id, "-"].contains(&of).then_some(())?;
        Some(Self { verdict: verdict.to_owned(), pairs: pairs.collect::<Option<_>>()? })
    }
}

trait Stream: Read + Write {}
impl<S: Read + Write> Stream for S {}

/// A connection to the line listener.
pub(super) struct Peer {
    stream: BufReader<Box<dyn Stream>>,
    place: Place,
    asked: u32,
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Peer").field("place", &self.place).finish_non_exhaustive()
    }
}

impl Peer {
    /// Connects to the first of the listener's places where somebody answers.
    pub(super) fn dial(listen: &Listen) -> Result<Self, PeerError> {
        let address = listen.dialects.iter().find(|(label, ..)| *label == DialectLabel::Line);
        let by_address = address.and_then(|(_, _, address)| Place::reached_at((*address)?));
        let places = listen.line_unix.clone().map(Place::Socket).into_iter().chain(by_address);
        let mut failures = vec![];
        for place in places {
            match connect(&place) {
                Ok(stream) => return Ok(Self { stream: BufReader::new(stream), place, asked: 0 }),
                Err(error) => failures.push(format!("{place}: {error}")),
            }
        }
        Err(if failures.is_empty() { PeerError::Off } else { PeerError::Unreachable(failures.join("; ")) })
    }

    /// Asks one question, without an id, and hears its answer.
    pub(super) fn ask(&mut self, question: &str) -> Result<Reply, PeerError> {
        self.asked = self.asked.saturating_add(1);
        let id = format!("ask{}", self.asked);
        let line = format!("{id} {question}\n");
        if line.len() > LINE_BYTES_MAX {
            return Err(PeerError::TooLong);
        }
        let heard = self.exchange(&line).map_err(|error| self.broken(&error.to_string()))?;
        Reply::parse(&heard, &id).ok_or_else(|| self.broken("what came is no answer of the line dialect"))
    }

    fn exchange(&mut self, line: &str) -> io::Result<String> {
        self.stream.get_mut().write_all(line.as_bytes())?;
        let mut heard = String::new();
        (&mut self.stream).take(LINE_ANSWER_BYTES_MAX).read_line(&mut heard)?;
        let ended = || io::Error::new(io::ErrorKind::UnexpectedEof, "it ended the connection");
        heard.strip_suffix('\n').map(str::to_owned).ok_or_else(ended)
    }

    fn broken(&self, why: &str) -> PeerError {
        PeerError::Broken { place: self.place.clone(), why: why.to_owned() }
    }
}

fn connect(place: &Place) -> io::Result<Box<dyn Stream>> {
    match place {
        Place::Socket(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(ADMIN_CLIENT_TIMEOUT))?;
            stream.set_write_timeout(Some(ADMIN_CLIENT_TIMEOUT))?;
            Ok(Box::new(stream))
        }
        Place::Address(address) => {
            let stream = TcpStream::connect_timeout(address, ADMIN_CLIENT_TIMEOUT)?;
            stream.set_read_timeout(Some(ADMIN_CLIENT_TIMEOUT))?;
            stream.set_write_timeout(Some(ADMIN_CLIENT_TIMEOUT))?;
            Ok(Box::new(stream))
        }
    }
}
