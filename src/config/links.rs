//! The keys that every link to a PBX has (TRUTH 2): its name, organization, address and secret, how far it goes, and
//! its bounds.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use crate::config::problem::{Problem, Problems};
use crate::config::reader::Section;
use crate::config::secret::{Secret, SecretFile};
use crate::limits::{
    LINK_NAME_BYTES_MAX, LINK_POLL_SECONDS_MAX, LINK_SECRET_BYTES_MAX, LINKS_PER_KIND_MAX, UNDO_PER_MINUTE_LIMIT,
};
use crate::telephony::closed_list;

closed_list! {
    /// How far a link changes members and login sessions.
    MembersMode {
        /// The link neither polls nor judges; it carries out endings.
        Off = "off",
        /// The link counts and lists differences; it carries out endings.
        Observe = "observe",
        /// The link also adds and pauses members, and ends sessions whose members are gone.
        Repair = "repair",
        /// The link also removes members without a login session.
        Enforce = "enforce",
    }
}

closed_list! {
    /// How far a link goes with channels that listen to others.
    SupervisionsMode {
        /// The link does not look at channels.
        Off = "off",
        /// The link counts channels that listen without being allowed, and hangs up channels whose supervision was
        /// ended here.
        Observe = "observe",
        /// The link also hangs up channels that listen without being allowed.
        Enforce = "enforce",
    }
}

/// The bounds on what a link takes away that the sidecar did not end itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UndoBounds {
    /// Bounded steps in a minute; further ones wait.
    pub per_minute_max: u32,
    /// Bounded steps in one queue from one poll to the next, in percent of the larger of its members and sessions.
    pub percent_max: u32,
}

/// What is configured for one link, whatever its protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkTerms {
    /// The name of the link, unique among all links.
    pub name: Box<str>,
    /// The organization whose users are members of the queues of the PBX.
    pub organization: Box<str>,
    /// How far the link goes with members.
    pub members: MembersMode,
    /// How far the link goes with channels that listen to others.
    pub supervisions: SupervisionsMode,
    /// Whether foreign members become sessions if their users may log in.
    pub adopts: bool,
    /// The time between two polls.
    pub poll_interval: Duration,
    /// The bounds on what the link takes away.
    pub bounds: UndoBounds,
}

/// Reads the keys that every link has, but for the organization. `default_name` is the name of a link without one.
pub(super) fn read_terms(section: &mut Section<'_>, organization: &str, default_name: String) -> LinkTerms {
    let name = section.string("name").and_then(|name| {
        let is_admitted = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let admitted = (1..=LINK_NAME_BYTES_MAX).contains(&name.value.len()) && name.value.bytes().all(is_admitted);
        if !admitted {
            let help = format!("1 to {LINK_NAME_BYTES_MAX} of A-Z a-z 0-9 - _ .");
            section.report_with_help(&name.span, format!("`{}` cannot be the name of a link", name.value), help);
        }
        admitted.then(|| name.value.to_owned())
    });
    let members = read_mode(section, "members", MembersMode::ALL, MembersMode::name).unwrap_or(MembersMode::Observe);
    let supervisions = read_mode(section, "supervisions", SupervisionsMode::ALL, SupervisionsMode::name);
    LinkTerms {
        name: name.unwrap_or(default_name).into(),
        organization: organization.into(),
        members,
        supervisions: supervisions.unwrap_or(SupervisionsMode::Observe),
        adopts: section.boolean("adopt").unwrap_or(false),
        poll_interval: Duration::from_secs(
            section.integer("poll_interval_seconds", 1..=LINK_POLL_SECONDS_MAX).unwrap_or(60),
        ),
        bounds: UndoBounds {
            per_minute_max: section.integer("undo_max_per_minute", 1..=UNDO_PER_MINUTE_LIMIT).unwrap_or(30),
            percent_max: section.integer("undo_max_percent", 0..=100).unwrap_or(20),
        },
    }
}

/// Reads the tables of one kind of links. `kind`: the key of the tables. `prefix`: how a link without a name is called,
/// before its number.
pub(super) fn read_tables<'a, T>(
    sections: Vec<Section<'a>>,
    kind: &str,
    prefix: &str,
    mut read: impl FnMut(Section<'a>, String) -> Option<T>,
) -> Vec<T> {
    let mut links = vec![];
    for (position, section) in sections.into_iter().enumerate() {
        if position >= LINKS_PER_KIND_MAX {
            section.report(&section.span, format!("there are more than {LINKS_PER_KIND_MAX} `{kind}` tables"));
            break;
        }
        links.extend(read(section, format!("{prefix}-{}", position + 1)));
    }
    links
}

fn read_mode<M: Copy>(
    section: &mut Section<'_>,
    key: &'static str,
    all: &[M],
    name: impl Fn(M) -> &'static str,
) -> Option<M> {
    let names: Vec<&str> = all.iter().map(|&mode| name(mode)).collect();
    section.document_values(key, names.iter().copied());
    let text = section.string(key)?;
    let mode = all.iter().copied().find(|&mode| name(mode) == text.value);
    if mode.is_none() {
        section.report(&text.span, format!("`{key}` must be one of {}, not `{}`", names.join(", "), text.value));
    }
    mode
}

/// Reads the file that `secret_file` names. `None`: it is missing or wrong, which was reported.
pub(super) fn read_secret(section: &mut Section<'_>, folder: &Path) -> Option<Secret> {
    let path = section.required_string("secret_file")?;
    let help = format!("1 to {LINK_SECRET_BYTES_MAX} printable ASCII characters without spaces, and a newline");
    let admits = |text: &str| is_word(text, LINK_SECRET_BYTES_MAX);
    let expected = SecretFile { kind: "the secret file", bytes_max: LINK_SECRET_BYTES_MAX, help: &help };
    expected.read(section, &path, folder, admits)
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
