//! The task of one link: connect, log in, remove queued members, and reconnect when the connection breaks.

use std::io;
use std::sync::Arc;

use bytes::{Buf, BytesMut};
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::config::asterisk::AmiSettings;
use crate::limits::{
    AMI_ANSWER_TIMEOUT, AMI_ATTEMPT_PAUSE, AMI_ATTEMPTS_MAX, AMI_LOGIN_TIMEOUT, AMI_PING_INTERVAL,
    AMI_RECONNECT_PAUSE_MAX, AMI_RECONNECT_PAUSE_MIN,
};
use crate::links::ami::client::{ActionResult, AmiClient, AmiInput, Credentials};
use crate::links::ami::protocol::{AmiProtocolError, UnwritableValue};
use crate::links::ami::removals::{NextRemoval, Removal};
use crate::links::ami::{LinkInput, LoginLookup, QueueMember};
use crate::observe::ami::{AmiMetrics, RemovalOutcome};

/// Why a connection to Asterisk failed or ended.
#[derive(Debug, Error)]
enum LinkError {
    /// The connection could not be opened, or broke.
    #[error("{0}")]
    Connection(#[from] io::Error),
    /// Asterisk closed the connection.
    #[error("it closed the connection")]
    Closed,
    /// Asterisk refused the login.
    #[error("it refused the login: check `username`, the secret, and class `agent` in manager.conf")]
    LoginRefused,
    /// Asterisk did not answer within [`AMI_LOGIN_TIMEOUT`] or [`AMI_ANSWER_TIMEOUT`].
    #[error("it does not answer")]
    NoAnswer,
    /// The peer does not speak AMI.
    #[error(transparent)]
    Protocol(#[from] AmiProtocolError),
    /// A name of the configuration cannot be sent.
    #[error(transparent)]
    Unwritable(#[from] UnwritableValue),
}

/// What a link without events reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClientEvent {
    Ignored,
    LoggedIn,
    LoginRefused,
    ActionDone(ActionResult),
}

/// Where the removal of one member got to.
enum RemovalProgress {
    /// The removal is finished, with this outcome.
    Finished(RemovalOutcome),
    /// Asterisk refused for a reason that may pass: try again later.
    RetryLater,
}

/// One link: its settings and everything that its task shares with others.
pub(super) struct AmiLink {
    settings: AmiSettings,
    input: Arc<LinkInput>,
    logins: Arc<dyn LoginLookup>,
    metrics: AmiMetrics,
}

impl AmiLink {
    pub(super) fn new(
        settings: AmiSettings,
        input: Arc<LinkInput>,
        logins: Arc<dyn LoginLookup>,
        metrics: AmiMetrics,
    ) -> Self {
        Self { settings, input, logins, metrics }
    }

    /// Keeps the link open until `stop`.
    pub(super) async fn serve(self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.reconnect_forever() => {}
        }
    }

    async fn reconnect_forever(&self) {
        let mut backoff = Backoff::new(AMI_RECONNECT_PAUSE_MIN, AMI_RECONNECT_PAUSE_MAX);
        let mut logged_reason = String::new();
        loop {
            let began = Instant::now();
            let error = self.run_connection().await;
            if began.elapsed() > AMI_RECONNECT_PAUSE_MAX {
                backoff.reset();
                logged_reason.clear();
            }
            // Warn once per reason: an Asterisk that is down for hours must not fill the log.
            let reason = error.to_string();
            if reason == logged_reason {
                tracing::debug!(asterisk = %self.settings.address, reason, "no link to Asterisk");
            } else {
                tracing::warn!(asterisk = %self.settings.address, reason, "no link to Asterisk");
                logged_reason = reason;
            }
            sleep(backoff.next()).await;
        }
    }

    /// Opens one connection and works on it until it breaks; returns why it broke.
    async fn run_connection(&self) -> LinkError {
        let mut connection = match timeout(AMI_LOGIN_TIMEOUT, self.log_in()).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return error,
            Err(_) => return LinkError::NoAnswer,
        };
        let _counted_as_up = self.metrics.up();
        tracing::info!(asterisk = %self.settings.address, "linked to Asterisk");
        match self.work(&mut connection).await {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    async fn log_in(&self) -> Result<Connection, LinkError> {
        let stream = TcpStream::connect(self.settings.address).await?;
        stream.set_nodelay(true)?;
        let client = AmiClient::default();
        let mut connection = Connection { stream, client, input: BytesMut::new(), output: vec![] };
        loop {
            match self.read_event(&mut connection).await? {
                ClientEvent::Ignored => connection.flush().await?,
                ClientEvent::LoggedIn => return Ok(connection),
                ClientEvent::LoginRefused => return Err(LinkError::LoginRefused),
                ClientEvent::ActionDone(_) => return Err(AmiProtocolError::UnexpectedResponse.into()),
            }
        }
    }

    /// Carries out removals as they become due, and sends a ping every [`AMI_PING_INTERVAL`].
    async fn work(&self, connection: &mut Connection) -> Result<std::convert::Infallible, LinkError> {
        let mut ping_at = Instant::now() + AMI_PING_INTERVAL;
        loop {
            let wake_at = match self.input.removals.next(Instant::now()) {
                NextRemoval::Due(removal) => {
                    self.carry_out(connection, removal).await?;
                    continue;
                }
                NextRemoval::NotBefore(at) => at.min(ping_at),
                NextRemoval::Empty => ping_at,
            };
            tokio::select! {
                () = self.input.removals.changed() => {}
                // Reading notices an event, which is ignored, and the end of the connection.
                event = self.read_event(connection) => { event?; }
                () = sleep_until(wake_at) => {}
            }
            if Instant::now() >= ping_at {
                self.act(connection, "Ping", &[]).await?;
                ping_at = Instant::now() + AMI_PING_INTERVAL;
            }
        }
    }

    /// Carries out one removal and counts its outcome, or queues it for another attempt.
    async fn carry_out(&self, connection: &mut Connection, mut removal: Removal) -> Result<(), LinkError> {
        let (outcome, connected) = match self.reconcile(connection, &mut removal).await {
            Ok(RemovalProgress::Finished(outcome)) => (Some(outcome), Ok(())),
            Ok(RemovalProgress::RetryLater) => (None, Ok(())),
            Err(LinkError::Unwritable(_)) => (Some(RemovalOutcome::Refused), Ok(())),
            Err(error) => (None, Err(error)),
        };
        let given_up = (removal.attempts >= AMI_ATTEMPTS_MAX).then_some(RemovalOutcome::Refused);
        if let Some(outcome) = outcome.or(given_up) {
            self.count(&removal.member, outcome);
        } else {
            if connected.is_ok() {
                removal.not_before = Instant::now() + AMI_ATTEMPT_PAUSE;
            }
            if let Some(oldest) = self.input.removals.push(removal) {
                self.count(&oldest.member, RemovalOutcome::Overflowed);
            }
        }
        connected
    }

    /// Counts and logs the outcome of one removal. Outcomes that an operator must look at are warnings.
    fn count(&self, member: &QueueMember, outcome: RemovalOutcome) {
        use RemovalOutcome::{LoggedInAgain, NotThere, Outdated, Overflowed, Refused, Removed, Restored};
        self.metrics.count(outcome);
        let asterisk = self.settings.address;
        let QueueMember { organization, extension, queue } = member;
        let outcome_name = outcome.name();
        match outcome {
            LoggedInAgain | NotThere | Removed => {
                tracing::debug!(%asterisk, %organization, %extension, %queue, outcome = outcome_name, "queue member");
            }
            Outdated | Overflowed | Refused | Restored => {
                tracing::warn!(%asterisk, %organization, %extension, %queue, outcome = outcome_name, "queue member");
            }
        }
    }

    /// Adds or removes the member until Asterisk agrees with the login sessions: see "The race" in the module's doc.
    async fn reconcile(
        &self,
        connection: &mut Connection,
        removal: &mut Removal,
    ) -> Result<RemovalProgress, LinkError> {
        while removal.attempts < AMI_ATTEMPTS_MAX {
            let logged_in = self.logins.is_logged_in(&removal.member);
            // After the first action, a user who is logged in now may have lost the member to that action.
            let may_have_removed = removal.attempts > 0;
            if logged_in && !may_have_removed {
                return Ok(RemovalProgress::Finished(RemovalOutcome::LoggedInAgain));
            }
            if !logged_in && removal.is_outdated(Instant::now()) {
                return Ok(RemovalProgress::Finished(RemovalOutcome::Outdated));
            }
            removal.attempts += 1;
            let result = if logged_in {
                self.add(connection, &removal.member).await?
            } else {
                self.remove(connection, &removal.member).await?
            };
            if self.logins.is_logged_in(&removal.member) != logged_in {
                continue;
            }
            return Ok(match (result, logged_in) {
                (ActionResult::Done, false) => RemovalProgress::Finished(RemovalOutcome::Removed),
                (ActionResult::Done, true) => RemovalProgress::Finished(RemovalOutcome::Restored),
                (ActionResult::Unchanged | ActionResult::NoSuchQueue, false) => {
                    RemovalProgress::Finished(RemovalOutcome::NotThere)
                }
                (ActionResult::Unchanged, true) => RemovalProgress::Finished(RemovalOutcome::LoggedInAgain),
                (ActionResult::StaticMember, _) | (ActionResult::NoSuchQueue, true) => {
                    RemovalProgress::Finished(RemovalOutcome::Refused)
                }
                (ActionResult::Refused | ActionResult::NotPermitted | ActionResult::UnknownAction, _) => {
                    RemovalProgress::RetryLater
                }
            });
        }
        Ok(RemovalProgress::RetryLater)
    }

    async fn remove(&self, connection: &mut Connection, member: &QueueMember) -> Result<ActionResult, LinkError> {
        let queue = self.settings.queue.of(&member.queue);
        let interface = self.settings.interface.of(&member.extension);
        self.act(connection, "QueueRemove", &[("Queue", &queue), ("Interface", &interface)]).await
    }

    /// Adds the member with the same values as the shipped dialplan.
    async fn add(&self, connection: &mut Connection, member: &QueueMember) -> Result<ActionResult, LinkError> {
        let queue = self.settings.queue.of(&member.queue);
        let interface = self.settings.interface.of(&member.extension);
        let state_interface = self.settings.state_interface.of(&member.extension);
        let headers = [
            ("Queue", &*queue),
            ("Interface", &*interface),
            ("MemberName", &*member.extension),
            ("StateInterface", &*state_interface),
            ("Penalty", "0"),
        ];
        self.act(connection, "QueueAdd", &headers).await
    }

    /// Sends one action and waits for its result, at most [`AMI_ANSWER_TIMEOUT`].
    async fn act(
        &self,
        connection: &mut Connection,
        name: &'static str,
        headers: &[(&'static str, &str)],
    ) -> Result<ActionResult, LinkError> {
        connection.client.act(&mut connection.output, name, headers)?;
        let result = async {
            connection.flush().await?;
            loop {
                match self.read_event(connection).await? {
                    ClientEvent::ActionDone(result) => return Ok(result),
                    ClientEvent::Ignored => {}
                    ClientEvent::LoggedIn | ClientEvent::LoginRefused => {
                        return Err(AmiProtocolError::UnexpectedResponse.into());
                    }
                }
            }
        };
        timeout(AMI_ANSWER_TIMEOUT, result).await.unwrap_or(Err(LinkError::NoAnswer))
    }

    /// Reads until the next event of the client. Cancel-safe: bytes already read stay in the connection's buffer.
    async fn read_event(&self, connection: &mut Connection) -> Result<ClientEvent, LinkError> {
        let secret = self.input.secret.load_full();
        let credentials = Credentials { username: &self.settings.username, secret: &secret, events: false };
        let Connection { stream, client, input, output } = connection;
        loop {
            if let Some((taken, read)) = client.read(input, credentials, output)? {
                let event = match read {
                    AmiInput::Ignored | AmiInput::Event(_) | AmiInput::ListItem(_) => ClientEvent::Ignored,
                    AmiInput::LoggedIn => ClientEvent::LoggedIn,
                    AmiInput::LoginRefused => ClientEvent::LoginRefused,
                    AmiInput::Answer(result, _) => ClientEvent::ActionDone(result),
                };
                input.advance(taken);
                return Ok(event);
            }
            if stream.read_buf(input).await? == 0 {
                return Err(LinkError::Closed);
            }
        }
    }
}

/// One connection to Asterisk with its buffers.
struct Connection {
    stream: TcpStream,
    client: AmiClient,
    /// Bytes received and not yet read.
    input: BytesMut,
    /// Bytes to send.
    output: Vec<u8>,
}

impl Connection {
    async fn flush(&mut self) -> Result<(), LinkError> {
        self.stream.write_all(&self.output).await?;
        self.output.clear();
        Ok(())
    }
}
