//! One link: connect, log in, remove whoever has to be removed, and start over when it breaks.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::config::asterisk::AmiSettings;
use crate::limits::{
    AMI_ANSWER_TIMEOUT, AMI_ATTEMPT_PAUSE, AMI_ATTEMPTS_MAX, AMI_LOGIN_TIMEOUT, AMI_PING_INTERVAL,
    AMI_RECONNECT_PAUSE_MAX, AMI_RECONNECT_PAUSE_MIN,
};
use crate::links::ami::client::{Answer, Client, Credentials, Heard};
use crate::links::ami::outbox::{Next, Removal};
use crate::links::ami::wire::{Unwritable, WireError};
use crate::links::ami::{Member, Sessions, Shared};
use crate::observe::ami::{AmiMetrics, RemovalOutcome};

/// Why a connection ended, or never was.
#[derive(Debug, Error)]
enum LinkError {
    /// It could not be had, or broke.
    #[error("{0}")]
    Connection(#[from] io::Error),
    /// Asterisk closed it.
    #[error("it ended the connection")]
    Ended,
    /// The login was refused.
    #[error("it refused the login: check `username`, the secret, and class `agent` in manager.conf")]
    LoginRefused,
    /// No answer came in time.
    #[error("it is silent")]
    Silent,
    /// What it said is not AMI.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// A name of the tables cannot be written.
    #[error(transparent)]
    Unwritable(#[from] Unwritable),
}

/// What became of one removal for now.
enum Settled {
    /// It is through.
    As(RemovalOutcome),
    /// Asterisk refused for a reason that may pass.
    Later,
}

/// One link.
pub(super) struct Link {
    settings: AmiSettings,
    shared: Arc<Shared>,
    sessions: Arc<dyn Sessions>,
    metrics: AmiMetrics,
}

impl Link {
    pub(super) fn new(
        settings: AmiSettings,
        shared: Arc<Shared>,
        sessions: Arc<dyn Sessions>,
        metrics: AmiMetrics,
    ) -> Self {
        Self { settings, shared, sessions, metrics }
    }

    /// Keeps the link open until `stop`.
    pub(super) async fn serve(self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.connect_again_and_again() => {}
        }
    }

    async fn connect_again_and_again(&self) {
        let mut pause = Pause::default();
        let mut said = String::new();
        loop {
            let began = Instant::now();
            let error = self.hold().await;
            if began.elapsed() > AMI_RECONNECT_PAUSE_MAX {
                pause = Pause::default();
                said.clear();
            }
            // An Asterisk that is away for a night says so once, not at every attempt.
            let reason = error.to_string();
            if reason == said {
                tracing::debug!(asterisk = %self.settings.address, reason, "no link to Asterisk");
            } else {
                tracing::warn!(asterisk = %self.settings.address, reason, "no link to Asterisk");
                said = reason;
            }
            sleep(pause.next()).await;
        }
    }

    /// Holds one connection for as long as it lasts.
    async fn hold(&self) -> LinkError {
        let mut connection = match timeout(AMI_LOGIN_TIMEOUT, self.log_in()).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return error,
            Err(_) => return LinkError::Silent,
        };
        let _up = self.metrics.up();
        tracing::info!(asterisk = %self.settings.address, "linked to Asterisk");
        match self.work(&mut connection).await {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    async fn log_in(&self) -> Result<Connection, LinkError> {
        let stream = TcpStream::connect(self.settings.address).await?;
        stream.set_nodelay(true)?;
        let mut connection = Connection { stream, client: Client::default(), input: BytesMut::new(), output: vec![] };
        loop {
            match self.hear(&mut connection).await? {
                Heard::Nothing => connection.flush().await?,
                Heard::LoggedIn => return Ok(connection),
                Heard::LoginRefused => return Err(LinkError::LoginRefused),
                Heard::Answered(_) => return Err(WireError::Astray.into()),
            }
        }
    }

    /// Removes whoever has to be, and sees in between that Asterisk is still there.
    async fn work(&self, connection: &mut Connection) -> Result<std::convert::Infallible, LinkError> {
        let mut ping_at = after(AMI_PING_INTERVAL);
        loop {
            let wake_at = match self.shared.outbox.next(Instant::now()) {
                Next::Now(removal) => {
                    self.settle(connection, removal).await?;
                    continue;
                }
                Next::At(at) => at.min(ping_at),
                Next::Nothing => ping_at,
            };
            tokio::select! {
                () = self.shared.outbox.changed() => {}
                // An event, or the end of the connection.
                heard = self.hear(connection) => drop(heard?),
                () = sleep_until(wake_at) => {}
            }
            if Instant::now() >= ping_at {
                self.ask(connection, "Ping", &[]).await?;
                ping_at = after(AMI_PING_INTERVAL);
            }
        }
    }

    /// Settles one removal, counts what became of it, or puts it back for another attempt.
    async fn settle(&self, connection: &mut Connection, mut removal: Removal) -> Result<(), LinkError> {
        let (outcome, connected) = match self.converge(connection, &mut removal).await {
            Ok(Settled::As(outcome)) => (Some(outcome), Ok(())),
            Ok(Settled::Later) => (None, Ok(())),
            Err(LinkError::Unwritable(_)) => (Some(RemovalOutcome::Refused), Ok(())),
            Err(error) => (None, Err(error)),
        };
        let given_up = (removal.attempts >= AMI_ATTEMPTS_MAX).then_some(RemovalOutcome::Refused);
        if let Some(outcome) = outcome.or(given_up) {
            self.settled(&removal.member, outcome);
        } else {
            if connected.is_ok() {
                removal.not_before = after(AMI_ATTEMPT_PAUSE);
            }
            if let Some(oldest) = self.shared.outbox.push(removal) {
                self.settled(&oldest.member, RemovalOutcome::Overflowed);
            }
        }
        connected
    }

    fn settled(&self, member: &Member, outcome: RemovalOutcome) {
        use RemovalOutcome::{LoggedInAgain, NotThere, Outdated, Overflowed, Refused, Removed, Restored};
        self.metrics.count(outcome);
        let asterisk = self.settings.address;
        let Member { organization, extension, queue } = member;
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

    /// Makes the queue agree with the sessions, and looks until both say the same: see the module's "race".
    async fn converge(&self, connection: &mut Connection, removal: &mut Removal) -> Result<Settled, LinkError> {
        while removal.attempts < AMI_ATTEMPTS_MAX {
            let logged_in = self.sessions.is_logged_in(&removal.member);
            // Once Asterisk was asked to remove, whoever has logged in since may have been removed by that.
            let may_have_removed = removal.attempts > 0;
            if logged_in && !may_have_removed {
                return Ok(Settled::As(RemovalOutcome::LoggedInAgain));
            }
            if !logged_in && removal.is_outdated(Instant::now()) {
                return Ok(Settled::As(RemovalOutcome::Outdated));
            }
            removal.attempts = removal.attempts.saturating_add(1);
            let answer = if logged_in {
                self.add(connection, &removal.member).await?
            } else {
                self.remove(connection, &removal.member).await?
            };
            if self.sessions.is_logged_in(&removal.member) != logged_in {
                continue;
            }
            return Ok(match (answer, logged_in) {
                (Answer::Done, false) => Settled::As(RemovalOutcome::Removed),
                (Answer::Done, true) => Settled::As(RemovalOutcome::Restored),
                (Answer::AlreadySo | Answer::NoSuchQueue, false) => Settled::As(RemovalOutcome::NotThere),
                (Answer::AlreadySo, true) => Settled::As(RemovalOutcome::LoggedInAgain),
                (Answer::Static, _) | (Answer::NoSuchQueue, true) => Settled::As(RemovalOutcome::Refused),
                (Answer::Refused, _) => Settled::Later,
            });
        }
        Ok(Settled::Later)
    }

    async fn remove(&self, connection: &mut Connection, member: &Member) -> Result<Answer, LinkError> {
        let queue = self.settings.queue.of(&member.queue);
        let interface = self.settings.interface.of(&member.extension);
        self.ask(connection, "QueueRemove", &[("Queue", &queue), ("Interface", &interface)]).await
    }

    /// Adds the member as the shipped dialplan does.
    async fn add(&self, connection: &mut Connection, member: &Member) -> Result<Answer, LinkError> {
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
        self.ask(connection, "QueueAdd", &headers).await
    }

    async fn ask(
        &self,
        connection: &mut Connection,
        name: &'static str,
        headers: &[(&'static str, &str)],
    ) -> Result<Answer, LinkError> {
        connection.client.ask(&mut connection.output, name, headers)?;
        let answer = async {
            connection.flush().await?;
            loop {
                match self.hear(connection).await? {
                    Heard::Answered(answer) => return Ok(answer),
                    Heard::Nothing => {}
                    Heard::LoggedIn | Heard::LoginRefused => return Err(WireError::Astray.into()),
                }
            }
        };
        timeout(AMI_ANSWER_TIMEOUT, answer).await.unwrap_or(Err(LinkError::Silent))
    }

    /// The next thing that Asterisk says. May be dropped at any time: what was read stays.
    async fn hear(&self, connection: &mut Connection) -> Result<Heard, LinkError> {
        let secret = self.shared.secret.load_full();
        let credentials = Credentials { username: &self.settings.username, secret: &secret };
        let Connection { stream, client, input, output } = connection;
        loop {
            if let Some((taken, heard)) = client.hear(input, credentials, output)? {
                input.advance(taken);
                return Ok(heard);
            }
            if stream.read_buf(input).await? == 0 {
                return Err(LinkError::Ended);
            }
        }
    }
}

/// A connection and what is under way on it.
struct Connection {
    stream: TcpStream,
    client: Client,
    input: BytesMut,
    output: Vec<u8>,
}

impl Connection {
    async fn flush(&mut self) -> Result<(), LinkError> {
        self.stream.write_all(&self.output).await?;
        self.output.clear();
        Ok(())
    }
}

fn after(pause: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(pause).unwrap_or(now)
}

/// The pauses between two attempts to connect: each twice the one before, up to a bound, and a part of it by chance, so
/// that many sidecars do not come back to one Asterisk in step.
struct Pause {
    longest: Duration,
    chance: RandomState,
}

impl Default for Pause {
    fn default() -> Self {
        Self { longest: AMI_RECONNECT_PAUSE_MIN, chance: RandomState::new() }
    }
}

impl Pause {
    /// Between half of the pause whose turn it is and all of it.
    fn next(&mut self) -> Duration {
        let longest = self.longest;
        self.longest = longest.saturating_mul(2).min(AMI_RECONNECT_PAUSE_MAX);
        let mut hasher = self.chance.build_hasher();
        hasher.write_u128(longest.as_nanos());
        // A chance of 24 bits is exact in any floating-point number.
        let chance = f64::from(u32::try_from(hasher.finish() >> 40).unwrap_or_default()) / f64::from(1_u32 << 24);
        longest.mul_f64(0.5 + chance / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_differ() {
        let pauses = || {
            let mut pause = Pause::default();
            (0..16).map(move |_| pause.next()).collect::<Vec<_>>()
        };
        let (one, other) = (pauses(), pauses());
        assert_ne!(one, other, "two links in step");
        let mut longest = AMI_RECONNECT_PAUSE_MIN;
        for pause in one {
            assert!(pause >= longest / 2 && pause <= longest, "{pause:?}");
            longest = (longest * 2).min(AMI_RECONNECT_PAUSE_MAX);
        }
        assert_eq!(longest, AMI_RECONNECT_PAUSE_MAX);
    }
}
