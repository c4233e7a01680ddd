//! `[[connect.asterisk_ami]]`: the Asterisk servers to connect to over AMI, and how each names its members and queues.

use std::net::SocketAddr;
use std::path::Path;

use crate::config::link_tls::{self, TlsTerms};
use crate::config::links::{self, LinkTerms, NameTable, read_pattern};
use crate::config::problem::{Problem, Problems};
use crate::config::reader::Section;
use crate::config::secret::{Secret, SecretFile};
use crate::limits::{
    AMI_LINKS_MAX, AMI_PATTERN_BYTES_MAX, AMI_SECRET_BYTES_MAX, AMI_USERNAME_BYTES_MAX, NUMBER_DIGITS_MAX,
};

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
    /// Whom the link takes for this Asterisk. `None`: the connection is not encrypted.
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

/// A text with one `%`, which is replaced by an extension or a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamePattern {
    before: Box<str>,
    after: Box<str>,
}

impl NamePattern {
    /// Parses a text of printable ASCII without spaces. `None`: it does not have exactly one `%`, or is too long.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (before, after) = text.split_once('%')?;
        let admitted = is_word(text, AMI_PATTERN_BYTES_MAX) && !after.contains('%');
        admitted.then(|| Self { before: before.into(), after: after.into() })
    }

    /// The number in the place of the `%`. `None`: the text does not follow the pattern.
    #[must_use]
    pub fn number_in<'t>(&self, text: &'t str) -> Option<&'t str> {
        let number = text.strip_prefix(&*self.before)?.strip_suffix(&*self.after)?;
        let is_number =
            (1..=NUMBER_DIGITS_MAX).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then_some(number)
    }

    /// The text with `name` in place of the `%`.
    #[must_use]
    pub fn of(&self, name: &str) -> String {
        [&*self.before, name, &*self.after].concat()
    }
}

/// An organization that `queuewarden.toml` names. Whether it exists is known after all organizations are read.
pub(super) struct ReferencedOrganization {
    pub(super) organization: Box<str>,
    /// The problem to report if no organization has this name.
    pub(super) problem_if_unknown: Problem,
}

impl ReferencedOrganization {
    /// Reads the required key `organization` of a link.
    pub(super) fn read<'a>(section: &mut Section<'a>, referenced: &mut Vec<Self>) -> Option<&'a str> {
        let name = section.required_string("organization")?;
        let message = format!("there is no organization `{}`", name.value);
        let problem_if_unknown = section.source.problem(name.span.clone(), message);
        referenced.push(Self { organization: name.value.into(), problem_if_unknown });
        Some(name.value)
    }
}

/// Reads the tables: the links, and the organizations that they name.
pub(super) fn read(
    sections: Vec<Section<'_>>,
    folder: &Path,
    warnings: &mut Problems,
) -> (Vec<AmiSettings>, Vec<ReferencedOrganization>) {
    let (mut links, mut referenced) = (vec![], vec![]);
    for (position, section) in sections.into_iter().enumerate() {
        if position >= AMI_LINKS_MAX {
            section.report(&section.span, format!("there are more than {AMI_LINKS_MAX} `asterisk_ami` tables"));
            break;
        }
        links.extend(read_link(section, folder, warnings, &mut referenced, format!("asterisk-{}", position + 1)));
    }
    (links, referenced)
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
    let secret = section.required_string("secret_file").and_then(|path| {
        let help = format!("1 to {AMI_SECRET_BYTES_MAX} printable ASCII characters without spaces, and a newline");
        let admits = |text: &str| is_word(text, AMI_SECRET_BYTES_MAX);
        let expected = SecretFile { kind: "the secret file", bytes_max: AMI_SECRET_BYTES_MAX, help: &help };
        expected.read(&section, &path, folder, admits)
    });
    let interface = read_pattern(&mut section, "interface", INTERFACE_DEFAULT);
    let state_interface = read_pattern(&mut section, "state_interface", INTERFACE_DEFAULT);
    let queue = read_pattern(&mut section, "queue", QUEUE_DEFAULT);
    let agents = links::read_name_table(&mut section, "agents_file", "extension", folder);
    let queues = links::read_name_table(&mut section, "queues_file", "number", folder);
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

/// Reads the address of a PBX. `protocol`: what is spoken there, for the warning about other machines; `None`: it is
/// encrypted.
pub(super) fn read_address(
    section: &mut Section<'_>,
    example: &str,
    protocol: Option<&str>,
    warnings: &mut Problems,
) -> Option<SocketAddr> {
    let text = section.required_string("address")?;
    let Ok(address) = text.value.parse::<SocketAddr>() else {
        let message = "`address` must be an address and a port";
        section.report_with_help(&text.span, message, format!("for example \"{example}\""));
        return None;
    };
    if let Some(protocol) = protocol.filter(|_| !address.ip().is_loopback()) {
        let message = format!("`address` is {address}, on another machine, and {protocol} is not encrypted");
        let help =
            "anyone on the network between can read the session and send commands; use a tunnel or a separate network";
        warnings.add(section.source.problem(text.span, message).help(help));
    }
    Some(address)
}

/// Whether the text is 1 to `bytes_max` printable ASCII characters without spaces.
pub(super) fn is_word(text: &str, bytes_max: usize) -> bool {
    !text.is_empty() && text.len() <= bytes_max && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_has_one_place_for_the_name() {
        assert_eq!(NamePattern::parse("PJSIP/%").unwrap().of("1001"), "PJSIP/1001");
        assert_eq!(NamePattern::parse("Local/%@agents/n").unwrap().of("1001"), "Local/1001@agents/n");
        assert_eq!(NamePattern::parse("%").unwrap().of("600"), "600");
        let too_long = format!("%{}", "x".repeat(AMI_PATTERN_BYTES_MAX));
        for text in ["", "PJSIP/", "%%", "PJSIP/ %", "PJSIP/%\r\nAction: X", "PJSÍP/%", &too_long] {
            assert_eq!(NamePattern::parse(text), None, "{text:?}");
        }
    }
}
