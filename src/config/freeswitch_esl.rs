//! `[[connect.freeswitch_esl]]`: the FreeSWITCH servers to connect to over the event socket, and how each names its
//! agents and queues.

use std::net::SocketAddr;
use std::path::Path;

use crate::config::link_names::{NamePattern, NameTable, read_name_table, read_pattern};
use crate::config::links::{self, LinkTerms, ReferencedOrganization, is_word, read_address};
use crate::config::problem::Problems;
use crate::config::reader::Section;
use crate::config::secret::Secret;
use crate::limits::LINK_NAME_BYTES_MAX;

/// One FreeSWITCH server to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EslSettings {
    /// What every link has.
    pub link: LinkTerms,
    /// The address of its event socket.
    pub address: SocketAddr,
    /// The directory user, `user@domain`, for `userauth`. `None`: `auth`, with the password of the event socket alone.
    pub username: Option<Box<str>>,
    /// The password.
    pub secret: Secret,
    /// The agent of mod_callcenter; `%` is replaced by the extension.
    pub agent: NamePattern,
    /// Its queue; `%` is replaced by the number.
    pub queue: NamePattern,
    /// The agents whose names follow no pattern, by extension.
    pub agents: NameTable,
    /// The queues whose names follow no pattern, by number.
    pub queues: NameTable,
}

impl EslSettings {
    /// Whether both describe the same link. The secret is not compared: a reload takes it up without a restart.
    #[must_use]
    pub fn is_same_link(&self, other: &Self) -> bool {
        let without_secret = |settings: &Self| Self { secret: Secret::new(String::new()), ..settings.clone() };
        without_secret(self) == without_secret(other)
    }
}

/// Reads the tables: the links, and the organizations that they name.
pub(super) fn read(
    sections: Vec<Section<'_>>,
    folder: &Path,
    warnings: &mut Problems,
    referenced: &mut Vec<ReferencedOrganization>,
) -> Vec<EslSettings> {
    links::read_tables(sections, "freeswitch_esl", "freeswitch", |section, default_name| {
        read_link(section, folder, warnings, referenced, default_name)
    })
}

fn read_link(
    mut section: Section<'_>,
    folder: &Path,
    warnings: &mut Problems,
    referenced: &mut Vec<ReferencedOrganization>,
    default_name: String,
) -> Option<EslSettings> {
    let organization = ReferencedOrganization::read(&mut section, referenced);
    let terms = links::read_terms(&mut section, organization.unwrap_or_default(), default_name);
    let address = read_address(&mut section, "127.0.0.1:8021", Some("the event socket"), warnings);
    let username = section.string("username");
    let is_user =
        |name: &str| is_word(name, LINK_NAME_BYTES_MAX) && name.split('@').filter(|part| !part.is_empty()).count() == 2;
    if let Some(name) = username.as_ref().filter(|name| !is_user(name.value) || name.value.contains(':')) {
        let message = format!("`{}` is not the name of a directory user", name.value);
        section.report_with_help(&name.span, message, "for example \"queuewarden@acme.example\"");
        return None;
    }
    let secret = links::read_secret(&mut section, folder);
    let agent = read_pattern(&mut section, "agent", "%");
    let queue = read_pattern(&mut section, "queue", "%");
    let agents = read_name_table(&mut section, "agents_file", "extension", folder);
    let queues = read_name_table(&mut section, "queues_file", "number", folder);
    section.finish();
    organization?;
    Some(EslSettings {
        link: terms,
        address: address?,
        username: username.map(|name| name.value.into()),
        secret: secret?,
        agent: agent?,
        queue: queue?,
        agents,
        queues,
    })
}
