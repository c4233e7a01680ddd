//! `[[connect.asterisk_ami]]`: the Asterisk servers to connect to over AMI, and how each names its members and queues.

use std::net::SocketAddr;
use std::path::Path;

use crate::config::link_names::{NamePattern, NameTable, read_name_table, read_pattern};
use crate::config::link_tls::{self, TlsTerms};
use crate::config::links::{self, LinkTerms, ReferencedOrganization, is_word, read_address};
use crate::config::problem::Problems;
use crate::config::reader::Section;
use crate::config::secret::Secret;
use crate::limits::AMI_USERNAME_BYTES_MAX;

/// The interface of a member in the shipped dialplan.
const INTERFACE_DEFAULT: &str = "PJSIP/%";
/// The name of a queue in the shipped dialplan: its number.
const QUEUE_DEFAULT: &str = "%";

/// One Asterisk server to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AmiSettings {
    /// What every link has.
    pub link: LinkTerms,
    /// The address of its AMI listener.
    pub address: SocketAddr,
    /// The name of the sidecar's section in its `manager.conf`.
    pub username: Box<str>,
    /// The secret of that section.
    pub secret: Secret,
    /// How the Asterisk proves over TLS who it is. `None`: the connection is not encrypted.
    pub tls: Option<TlsTerms>,
    /// The interface of a member; `%` is replaced by the extension.
    pub interface: NamePattern,
    /// The interface whose device state shows whether a member is busy; `%` is replaced by the extension.
    pub state_interface: NamePattern,
    /// The name of a queue; `%` is replaced by the number.
    pub queue: NamePattern,
    /// The interfaces of members that follow no pattern, by extension.
    pub agents: NameTable,
    /// The names of queues that follow no pattern, by number.
    pub queues: NameTable,
}

impl AmiSettings {
    /// Whether both describe the same link. Secret and authorities are not compared: a reload takes them up without a
    /// restart.
    #[must_use]
    pub fn is_same_link(&self, other: &Self) -> bool {
        let without_secret = |settings: &Self| {
            let tls = settings.tls.clone().map(|tls| TlsTerms { authorities: vec![], ..tls });
            Self { secret: Secret::new(String::new()), tls, ..settings.clone() }
        };
        without_secret(self) == without_secret(other)
    }
}

/// Reads the tables: the links, and the organizations that they name.
pub(super) fn read(
    sections: Vec<Section<'_>>,
    folder: &Path,
    warnings: &mut Problems,
    referenced: &mut Vec<ReferencedOrganization>,
) -> Vec<AmiSettings> {
    links::read_tables(sections, "asterisk_ami", "asterisk", |section, default_name| {
        read_link(section, folder, warnings, referenced, default_name)
    })
}

fn read_link(
    mut section: Section<'_>,
    folder: &Path,
    warnings: &mut Problems,
    referenced: &mut Vec<ReferencedOrganization>,
    default_name: String,
) -> Option<AmiSettings> {
    let organization = ReferencedOrganization::read(&mut section, referenced);
    let terms = links::read_terms(&mut section, organization.unwrap_or_default(), default_name);
    let is_encrypted = section.boolean("tls").unwrap_or(false);
    let address = read_address(&mut section, "127.0.0.1:5038", (!is_encrypted).then_some("AMI"), warnings);
    let tls = link_tls::read(&mut section, folder, is_encrypted, address);
    let username = section.required_string("username").filter(|name| {
        let admitted = is_word(name.value, AMI_USERNAME_BYTES_MAX);
        if !admitted {
            let help = format!("1 to {AMI_USERNAME_BYTES_MAX} printable ASCII characters without spaces");
            section.report_with_help(&name.span, "`username` cannot be an AMI user name", help);
        }
        admitted
    });
    let secret = links::read_secret(&mut section, folder);
    let interface = read_pattern(&mut section, "interface", INTERFACE_DEFAULT);
    let state_interface = read_pattern(&mut section, "state_interface", INTERFACE_DEFAULT);
    let queue = read_pattern(&mut section, "queue", QUEUE_DEFAULT);
    let agents = read_name_table(&mut section, "agents_file", "extension", folder);
    let queues = read_name_table(&mut section, "queues_file", "number", folder);
    section.finish();
    organization?;
    Some(AmiSettings {
        link: terms,
        address: address?,
        username: username?.value.into(),
        secret: secret?,
        tls: if is_encrypted { Some(tls?) } else { None },
        interface: interface?,
        state_interface: state_interface?,
        queue: queue?,
        agents,
        queues,
    })
}
