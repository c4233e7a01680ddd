//! Connections from queuewarden to PBXs, which make login sessions and queue members the same (TRUTH 2).
//!
//! A PBX has no veto: any program with an account at the PBX can add a member that no login session has, and the PBX
//! may not have done what was allowed. A link sees what the PBX has and corrects it, as far as its mode goes.
//!
//! | File | What it does |
//! |---|---|
//! | `task` | keeps one link open: connects, lets the reconciler work until the connection breaks, and connects again |
//! | [`reconciler`] | the loop on one open connection: polls, hints, changes, commands, listeners |
//! | [`members`] | pure: the member of the PBX against the session, and the step that makes both the same |
//! | [`supervisions`] | pure: who listens against who may |
//! | [`gate_beliefs`] | the login sessions in the gate, as the reconciler sees and changes them |
//! | [`sightings`] | what each link of the organization has seen, for the other links |
//! | [`pbx_connection`] | what the reconciler needs of a connection, whatever its protocol: the trait, its hints, actions and errors |
//! | [`ami`], [`esl`] | the protocols of Asterisk and FreeSWITCH |
//! | `tls` | the encrypted connection to a PBX that proves who it is |
//! | [`names`] | extensions and queue numbers to names at the PBX, and back |
//! | [`status`], [`operator_rows`], [`command`] | what a link has seen and done; the rows that operators see; what operators ask |
//! | [`ending_outcomes`], [`recent_acts`] | what became of the members and listeners that a command ended |
//! | [`evapi`] | the state of a connection to Kamailio, which has no members |
//!
//! # The way of a difference
//!
//! ```text
//!   PBX ──── hint ────┐                                    ┌── change of a session ──── gate
//!    ▲                ▼                                    ▼                             ▲
//!    │            reconciler: look at one member, or poll every queue                    │
//!    │                │ truth                              │ belief                      │
//!    │                ▼                                    ▼                             │
//!    │         pbx_connection ───────► members::judge ◄── beliefs                        │
//!    │                                     │ state and step                              │
//!    │                                     ▼                                             │
//!    │                        members::bounds: now, later, or stopped                    │
//!    │                                     │                                             │
//!    └── change the member ────────────────┴───────────── change the session ────────────┘
//!                                          │
//!                                       status: counted, listed, logged
//! ```
//!
//! Before each step the link looks at both sides again, so it takes no step that is no longer right. A poll gives whole
//! queues to `members::pass`, which judges each member and leaves out the steps that exceed the share bound.
//!
//! A link reads the [`crate::gate`] and never decides; the sidecar starts it.

pub mod ami;
pub mod command;
pub mod ending_outcomes;
pub mod esl;
pub mod evapi;
pub mod gate_beliefs;
pub mod members;
pub mod names;
pub mod operator_rows;
pub mod pbx_connection;
pub mod recent_acts;
pub mod reconciler;
pub mod sightings;
pub mod status;
pub mod supervisions;
mod task;
mod tls;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::asterisk_ami::AmiSettings;
use crate::config::freeswitch_esl::EslSettings;
use crate::config::link_tls::TlsTerms;
use crate::config::links::LinkTerms;
use crate::config::process::{ProcessSettings, Secret, evapi_name};
use crate::gate::LinkNames;
use crate::limits::LINK_COMMANDS_WAITING_MAX;
use crate::links::command::{LinkCommand, PlannedStep, PollKind};
use crate::links::evapi::EvapiLink;
use crate::links::gate_beliefs::LinkHost;
use crate::links::reconciler::LinkMemory;
use crate::links::sightings::Sightings;
use crate::links::status::LinkStatus;
use crate::observe::ami::AmiMetrics;
use crate::observe::metrics::Metrics;

/// What is configured for one link.
#[derive(Clone, Debug)]
pub enum LinkSettings {
    /// A link to Asterisk.
    Asterisk(AmiSettings),
    /// A link to FreeSWITCH.
    FreeSwitch(EslSettings),
}

impl LinkSettings {
    const fn terms(&self) -> &LinkTerms {
        match self {
            Self::Asterisk(settings) => &settings.link,
            Self::FreeSwitch(settings) => &settings.link,
        }
    }

    const fn tls(&self) -> Option<&TlsTerms> {
        match self {
            Self::Asterisk(settings) => settings.tls.as_ref(),
            Self::FreeSwitch(_) => None,
        }
    }

    const fn secret(&self) -> &Secret {
        match self {
            Self::Asterisk(settings) => &settings.secret,
            Self::FreeSwitch(settings) => &settings.secret,
        }
    }

    fn is_same_link(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Asterisk(settings), Self::Asterisk(other)) => settings.is_same_link(other),
            (Self::FreeSwitch(settings), Self::FreeSwitch(other)) => settings.is_same_link(other),
            _ => false,
        }
    }

    /// All links of the configuration, in its order.
    fn all_of(settings: &ProcessSettings) -> Vec<Self> {
        let asterisks = settings.asterisk_ami.iter().cloned().map(Self::Asterisk);
        asterisks.chain(settings.freeswitch_esl.iter().cloned().map(Self::FreeSwitch)).collect()
    }
}

/// One link: what is configured, and what other tasks share with its task.
#[derive(Debug)]
pub struct Link {
    settings: LinkSettings,
    /// What the link has seen and done.
    pub status: LinkStatus,
    /// The secret; a reload may replace it, and the next login uses the new one.
    secret: ArcSwap<Secret>,
    /// How the PBX proves over TLS who it is; a reload may replace it, and the next connection uses the new one.
    /// `None`: the connection is not encrypted.
    tls: ArcSwapOption<TlsTerms>,
    /// What all links of the organization have seen.
    sightings: Arc<Sightings>,
    /// Sends the commands of operators to the task.
    commands: mpsc::Sender<LinkCommand>,
    /// The other end of `commands`. `None`: the task has it.
    received: Mutex<Option<mpsc::Receiver<LinkCommand>>>,
    /// The metrics of all links to Asterisk. `None`: the link is to another PBX.
    ami: Option<AmiMetrics>,
}

impl Link {
    /// The keys of the configuration that every link has.
    #[must_use]
    pub const fn terms(&self) -> &LinkTerms {
        self.settings.terms()
    }

    /// The kind of the PBX and its address.
    #[must_use]
    pub fn peer(&self) -> (&'static str, String) {
        match &self.settings {
            LinkSettings::Asterisk(settings) => ("asterisk", settings.address.to_string()),
            LinkSettings::FreeSwitch(settings) => ("freeswitch", settings.address.to_string()),
        }
    }

    /// Lets the link poll now. Returns the steps that the poll found. `None`: the link is down, or
    /// [`LINK_COMMANDS_WAITING_MAX`] commands wait for it already.
    pub async fn command(&self, kind: PollKind) -> Option<Vec<PlannedStep>> {
        if !self.status.times().is_up {
            return None;
        }
        let (reply, answer) = oneshot::channel();
        self.commands.try_send(LinkCommand { kind, reply }).ok()?;
        answer.await.ok()
    }
}

/// All links of the process.
#[derive(Debug)]
pub struct Links {
    links: Vec<Arc<Link>>,
    evapi: Vec<Arc<EvapiLink>>,
}

impl Links {
    /// Prepares one link per entry of the configuration; [`Links::serve`] opens them.
    #[must_use]
    pub fn new(settings: &ProcessSettings, metrics: &Metrics) -> Self {
        metrics.ami().configured(settings.asterisk_ami.len());
        let configured = LinkSettings::all_of(settings);
        let mut by_organization: BTreeMap<&str, Vec<Box<str>>> = BTreeMap::new();
        for terms in configured.iter().map(LinkSettings::terms) {
            by_organization.entry(&terms.organization).or_default().push(terms.name.clone());
        }
        let sightings: BTreeMap<&str, Arc<Sightings>> =
            by_organization.into_iter().map(|(name, links)| (name, Arc::new(Sightings::new(links)))).collect();
        let link = |settings: &LinkSettings| {
            let terms = settings.terms();
            let ami = matches!(settings, LinkSettings::Asterisk(_)).then(|| metrics.ami().clone());
            let (commands, received) = mpsc::channel(LINK_COMMANDS_WAITING_MAX);
            Arc::new(Link {
                settings: settings.clone(),
                status: LinkStatus::new(&terms.name, metrics.link(&terms.name), ami.clone()),
                secret: ArcSwap::from_pointee(settings.secret().clone()),
                tls: ArcSwapOption::from_pointee(settings.tls().cloned()),
                sightings: sightings
                    .get(&*terms.organization)
                    .map_or_else(|| Arc::new(Sightings::new(vec![])), Arc::clone),
                commands,
                received: Mutex::new(Some(received)),
                ami,
            })
        };
        let evapi = |(position, &address): (usize, &SocketAddr)| {
            let name = evapi_name(position);
            let up = metrics.link_up(&name);
            Arc::new(EvapiLink::new(&name, address, up))
        };
        let evapi = settings.evapi.iter().enumerate().map(evapi).collect();
        Self { links: configured.iter().map(link).collect(), evapi }
    }

    /// The names of the links, by organization.
    #[must_use]
    pub fn names(&self) -> LinkNames {
        let mut names = LinkNames::new();
        for link in &self.links {
            names.entry(link.terms().organization.clone()).or_default().push(link.terms().name.clone());
        }
        names
    }

    /// All links, in the order of the configuration.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Link>> {
        self.links.iter()
    }

    /// The connections to Kamailio's evapi, in the order of the configuration.
    pub fn evapi(&self) -> impl Iterator<Item = &Arc<EvapiLink>> {
        self.evapi.iter()
    }

    /// The connection to Kamailio's evapi with this name.
    #[must_use]
    pub fn evapi_named(&self, name: &str) -> Option<&Arc<EvapiLink>> {
        self.evapi.iter().find(|link| *link.name == *name)
    }

    /// The link with this name, whose PBX has queue members.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Arc<Link>> {
        self.links.iter().find(|link| *link.terms().name == *name)
    }

    /// Starts a task for every link, which keeps its connection open until `stop`.
    pub fn serve(&self, host: &Arc<dyn LinkHost>, tasks: &TaskTracker, stop: &CancellationToken) {
        for link in &self.links {
            let received = link.received.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(received) = received {
                let (link, host) = (Arc::clone(link), Arc::clone(host));
                let task = task::LinkTask { link, host, commands: received, memory: LinkMemory::default() };
                tasks.spawn(task.serve(stop.clone()));
            }
        }
    }

    /// Takes over the secrets and authorities of a reloaded configuration. Each applies from the next connection on.
    pub fn set_secrets(&self, settings: &ProcessSettings) {
        let configured = LinkSettings::all_of(settings);
        for link in &self.links {
            if let Some(new) = configured.iter().find(|new| new.is_same_link(&link.settings)) {
                link.secret.store(Arc::new(new.secret().clone()));
                link.tls.store(new.tls().cloned().map(Arc::new));
            }
        }
    }
}
