//! The task of one link: connect, work until the connection breaks, and connect again after a growing pause.

use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::config::links::MembersMode;
use crate::limits::{AMI_LOGIN_TIMEOUT, AMI_RECONNECT_PAUSE_MAX, AMI_RECONNECT_PAUSE_MIN};
use crate::links::Link;
use crate::links::ami::client::Credentials;
use crate::links::ami::connection::{AmiConnection, AsteriskNames};
use crate::links::beliefs::{GateBeliefs, LinkHost};
use crate::links::command::LinkCommand;
use crate::links::connection::LinkError;
use crate::links::names::Names;
use crate::links::work::LinkWork;

/// One link, the sessions that it sees, and the commands that it receives.
pub(super) struct LinkTask {
    pub(super) link: Arc<Link>,
    pub(super) host: Arc<dyn LinkHost>,
    pub(super) commands: mpsc::Receiver<LinkCommand>,
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
        let mut backoff = Backoff::new(AMI_RECONNECT_PAUSE_MIN, AMI_RECONNECT_PAUSE_MAX);
        let mut logged_reason = String::new();
        loop {
            let began = Instant::now();
            let reason = self.run_connection().await.to_string();
            self.link.status.down(&reason, self.host.now().wall);
            if began.elapsed() > AMI_RECONNECT_PAUSE_MAX {
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
        let settings = &self.link.settings;
        let names = AsteriskNames {
            interfaces: Names::new(settings.interface.clone(), settings.agents.clone()),
            state_interfaces: Names::new(settings.state_interface.clone(), []),
            queues: Names::new(settings.queue.clone(), settings.queues.clone()),
        };
        let secret = self.link.secret.load_full();
        let events = self.link.terms().members != MembersMode::Off;
        let credentials = Credentials { username: &settings.username, secret: &secret, events };
        let opened = async {
            let stream = TcpStream::connect(settings.address).await?;
            stream.set_nodelay(true)?;
            AmiConnection::log_in(stream, &names, credentials).await
        };
        let connection = match timeout(AMI_LOGIN_TIMEOUT, opened).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return error,
            Err(_) => return LinkError::NoAnswer,
        };
        let _counted_as_up = self.link.ami.up();
        let terms = self.link.terms();
        self.link.status.up(self.host.now().wall);
        tracing::info!(link = &*terms.name, address = %settings.address, "linked to the PBX");
        let sightings = Arc::clone(&self.link.sightings);
        let Some(beliefs) = GateBeliefs::new(Arc::clone(&self.host), &terms.organization, &terms.name, sightings)
        else {
            return LinkError::Protocol(format!("there is no organization `{}`", terms.organization));
        };
        match LinkWork::new(connection, beliefs, terms, &self.link.status).run(&mut self.commands).await {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }
}
