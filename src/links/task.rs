//! The task of one link: connects, lets a [`Reconciler`] work until the connection breaks, and connects again after a
//! growing pause.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::config::links::{LinkTerms, MembersMode, SupervisionsMode};
use crate::limits::{LINK_LOGIN_TIMEOUT, LINK_RECONNECT_PAUSE_MAX, LINK_RECONNECT_PAUSE_MIN};
use crate::links::ami::client::AmiCredentials;
use crate::links::ami::connection::{AmiConnection, AsteriskNames};
use crate::links::command::LinkCommand;
use crate::links::esl::client::EslCredentials;
use crate::links::esl::connection::{EslConnection, FreeswitchNames};
use crate::links::gate_beliefs::{GateBeliefs, LinkHost};
use crate::links::names::PbxNames;
use crate::links::pbx_connection::{LinkError, PbxConnection};
use crate::links::reconciler::{LinkMemory, Reconciler};
use crate::links::tls::secure;
use crate::links::{Link, LinkSettings};
use crate::observe::ami::AmiMetrics;

/// What the task of one link works with.
pub(super) struct LinkTask {
    /// The configuration and the status of the link.
    pub(super) link: Arc<Link>,
    /// The gate and the clock.
    pub(super) host: Arc<dyn LinkHost>,
    /// Receives the commands of operators.
    pub(super) commands: mpsc::Receiver<LinkCommand>,
    /// What the link remembers from one connection to the next.
    pub(super) memory: LinkMemory,
}

impl LinkTask {
    /// Keeps the link open until `stop`.
    pub(super) async fn serve(mut self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.reconnect_forever() => {}
        }
    }

    async fn reconnect_forever(&mut self) {
        let mut backoff = Backoff::new(LINK_RECONNECT_PAUSE_MIN, LINK_RECONNECT_PAUSE_MAX);
        let mut logged_reason = String::new();
        loop {
            let began = Instant::now();
            let reason = self.run_connection().await.to_string();
            self.link.status.down(&reason, self.host.now().wall);
            if began.elapsed() > LINK_RECONNECT_PAUSE_MAX {
                backoff.reset();
                logged_reason.clear();
            }
            // Warn once per reason: a PBX that is down for hours must not fill the log.
            let (link, address) = (&*self.link.terms().name, self.link.peer().1);
            if reason == logged_reason {
                tracing::debug!(link, address, reason, "no link to the PBX");
            } else {
                tracing::warn!(link, address, reason, "no link to the PBX");
                logged_reason = reason;
            }
            sleep(backoff.next()).await;
        }
    }

    /// Opens one connection and works on it until it breaks; returns why it broke.
    async fn run_connection(&mut self) -> LinkError {
        let (link, secret, tls) = (Arc::clone(&self.link), self.link.secret.load_full(), self.link.tls.load_full());
        match &link.settings {
            LinkSettings::Asterisk(settings) => {
                let names = AsteriskNames {
                    interfaces: PbxNames::new(settings.interface.clone(), settings.agents.clone()),
                    state_interfaces: PbxNames::new(settings.state_interface.clone(), []),
                    queues: PbxNames::new(settings.queue.clone(), settings.queues.clone()),
                };
                let LinkTerms { members, supervisions, .. } = link.terms();
                let events = *members != MembersMode::Off || *supervisions != SupervisionsMode::Off;
                let credentials = AmiCredentials { username: &settings.username, secret: &secret, events };
                let up = || link.ami.as_ref().map(AmiMetrics::up);
                let Some(tls) = tls else {
                    let log_in = |stream| AmiConnection::log_in(stream, &names, credentials);
                    let opened = open(settings.address, log_in).await;
                    let _counted_as_up = opened.is_ok().then(up);
                    return self.work(opened).await;
                };
                let log_in =
                    async |stream| AmiConnection::log_in(secure(stream, &tls).await?, &names, credentials).await;
                let opened = open(settings.address, log_in).await;
                let _counted_as_up = opened.is_ok().then(up);
                self.work(opened).await
            }
            LinkSettings::FreeSwitch(settings) => {
                let names = FreeswitchNames {
                    agents: PbxNames::new(settings.agent.clone(), settings.agents.clone()),
                    queues: PbxNames::new(settings.queue.clone(), settings.queues.clone()),
                };
                let credentials = EslCredentials { username: settings.username.as_deref(), secret: &secret };
                let opened = open(settings.address, |stream| EslConnection::log_in(stream, &names, credentials)).await;
                self.work(opened).await
            }
        }
    }

    async fn work<C: PbxConnection>(&mut self, opened: Result<C, LinkError>) -> LinkError {
        let connection = match opened {
            Ok(connection) => connection,
            Err(error) => return error,
        };
        let (terms, status) = (self.link.terms(), &self.link.status);
        status.up(self.host.now().wall);
        tracing::info!(link = &*terms.name, address = self.link.peer().1, "linked to the PBX");
        let sightings = Arc::clone(&self.link.sightings);
        let Some(beliefs) = GateBeliefs::new(Arc::clone(&self.host), &terms.organization, &terms.name, sightings)
        else {
            return LinkError::Protocol(format!("there is no organization `{}`", terms.organization));
        };
        let mut reconciler = Reconciler::new(connection, beliefs, terms, status, std::mem::take(&mut self.memory));
        let ended = reconciler.run(&mut self.commands).await;
        self.memory = reconciler.into_memory();
        match ended {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }
}

/// Connects and logs in, within [`LINK_LOGIN_TIMEOUT`].
async fn open<C, F>(address: SocketAddr, log_in: impl FnOnce(TcpStream) -> F) -> Result<C, LinkError>
where
    F: Future<Output = Result<C, LinkError>>,
{
    let opened = async {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        log_in(stream).await
    };
    timeout(LINK_LOGIN_TIMEOUT, opened).await.unwrap_or(Err(LinkError::NoAnswer))
}
