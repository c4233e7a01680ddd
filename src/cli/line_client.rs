//! A client of the line listener of a running sidecar: it asks questions as a PBX does.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use thiserror::Error;

use crate::cli::sidecar_address::SidecarAddress;
use crate::config::process::ListenSettings;
use crate::dialect::DialectLabel;
use crate::limits::{ADMIN_CLIENT_TIMEOUT, LINE_ANSWER_BYTES_MAX, LINE_BYTES_MAX};

/// Why a question has no answer.
#[derive(Debug, Error)]
pub(super) enum LineClientError {
    /// The configuration has no line listener, or its port is 0 and only the sidecar knows the port that it was given.
    #[error(
        "queuewarden.toml has no line listener to connect to\n  help: set `line` or `line_unix` in `[listen]`; a port \
         of 0 does not tell the real port"
    )]
    ListenerOff,
    /// No listener accepted a connection: each address with its error.
    #[error("the sidecar cannot be reached: {}\n  help: is it running, and may you use the socket?", listed(.0))]
    Unreachable(Vec<(SidecarAddress, io::Error)>),
    /// The connection broke, or the received line is not an answer.
    #[error("the sidecar at {address} did not answer: {source}")]
    Broken {
        /// The address of the listener.
        address: SidecarAddress,
        /// The reason.
        source: io::Error,
    },
    /// The question is longer than a line of the dialect.
    #[error("the question is longer than the line dialect allows")]
    TooLong,
}

fn listed(failures: &[(SidecarAddress, io::Error)]) -> String {
    failures.iter().map(|(address, error)| format!("{address}: {error}")).collect::<Vec<_>>().join("; ")
}

/// One answer of the sidecar: its verdict, and its pairs of key and value in order.
#[derive(Debug)]
pub(super) struct LineReply {
    /// `allow`, `deny` or `error`.
    pub(super) verdict: String,
    pairs: Vec<(String, String)>,
}

impl LineReply {
    /// The value of a key. `None`: the answer does not have the key.
    pub(super) fn value(&self, key: &str) -> Option<&str> {
        self.pairs.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    fn parse(line: &str, id: &str) -> Option<Self> {
        let (reply_id, rest) = line.split_once(' ')?;
        let mut words = rest.split(' ');
        let verdict = words.next().filter(|word| ["allow", "deny", "error"].contains(word))?;
        let pairs = words.map(|pair| pair.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned())));
        // A line that the sidecar cannot read is answered with the id `-`. One question waits at a time, so it is
        // meant.
        [id, "-"].contains(&reply_id).then_some(())?;
        Some(Self { verdict: verdict.to_owned(), pairs: pairs.collect::<Option<_>>()? })
    }
}

trait Stream: Read + Write {}
impl<S: Read + Write> Stream for S {}

/// A connection to the line listener.
pub(super) struct LineClient {
    stream: BufReader<Box<dyn Stream>>,
    address: SidecarAddress,
    questions: u32,
}

impl std::fmt::Debug for LineClient {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("LineClient").field("address", &self.address).finish_non_exhaustive()
    }
}

impl LineClient {
    /// Connects to the Unix socket or, if that fails, to the TCP address.
    pub(super) fn dial(listen: &ListenSettings) -> Result<Self, LineClientError> {
        let address = listen.dialects.iter().find(|(label, ..)| *label == DialectLabel::Line);
        let tcp = address.and_then(|(_, _, address)| SidecarAddress::of_listener((*address)?));
        let addresses = listen.line_unix.clone().map(SidecarAddress::Unix).into_iter().chain(tcp);
        let mut failures = vec![];
        for address in addresses {
            match connect(&address) {
                Ok(stream) => return Ok(Self { stream: BufReader::new(stream), address, questions: 0 }),
                Err(error) => failures.push((address, error)),
            }
        }
        Err(if failures.is_empty() { LineClientError::ListenerOff } else { LineClientError::Unreachable(failures) })
    }

    /// Asks one question, given without its id, and waits for the answer.
    pub(super) fn ask(&mut self, question: &str) -> Result<LineReply, LineClientError> {
        self.questions += 1;
        let id = format!("ask{}", self.questions);
        let line = format!("{id} {question}\n");
        if line.len() > LINE_BYTES_MAX {
            return Err(LineClientError::TooLong);
        }
        let reply = self.exchange(&line).map_err(|error| self.broken(error))?;
        let invalid = || io::Error::new(io::ErrorKind::InvalidData, "it sent a line that is not an answer");
        LineReply::parse(&reply, &id).ok_or_else(|| self.broken(invalid()))
    }

    fn exchange(&mut self, line: &str) -> io::Result<String> {
        self.stream.get_mut().write_all(line.as_bytes())?;
        let mut reply = String::new();
        (&mut self.stream).take(LINE_ANSWER_BYTES_MAX).read_line(&mut reply)?;
        let ended = || io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection");
        reply.strip_suffix('\n').map(str::to_owned).ok_or_else(ended)
    }

    fn broken(&self, source: io::Error) -> LineClientError {
        LineClientError::Broken { address: self.address.clone(), source }
    }
}

fn connect(address: &SidecarAddress) -> io::Result<Box<dyn Stream>> {
    match address {
        SidecarAddress::Unix(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(ADMIN_CLIENT_TIMEOUT))?;
            stream.set_write_timeout(Some(ADMIN_CLIENT_TIMEOUT))?;
            Ok(Box::new(stream))
        }
        SidecarAddress::Tcp(address) => {
            let stream = TcpStream::connect_timeout(address, ADMIN_CLIENT_TIMEOUT)?;
            stream.set_read_timeout(Some(ADMIN_CLIENT_TIMEOUT))?;
            stream.set_write_timeout(Some(ADMIN_CLIENT_TIMEOUT))?;
            Ok(Box::new(stream))
        }
    }
}
