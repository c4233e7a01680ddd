//! `[[connect.asterisk_ami]]`: the Asterisks to dial, each with what its members and queues are called there.

use std::net::SocketAddr;
use std::path::Path;

use crate::config::problem::{Problem, Problems};
use crate::config::process::{Secret, read_secret};
use crate::config::reader::Section;
use crate::limits::{AMI_LINKS_MAX, AMI_PATTERN_BYTES_MAX, AMI_SECRET_BYTES_MAX, AMI_USERNAME_BYTES_MAX};

/// What the shipped dialplan calls a member.
const INTERFACE_DEFAULT: &str = "PJSIP/%";
/// What the shipped dialplan calls a queue: its number.
const QUEUE_DEFAULT: &str = "%";

/// One Asterisk to dial.
#[derive(Clone, Debug)]
pub struct AmiSettings {
    /// The organization whose members are in its queues.
    pub organization: Box<str>,
    /// Where its AMI listens.
    pub address: SocketAddr,
    /// Our section in its `manager.conf`.
    pub username: Box<str>,
    /// The secret of that section.
    pub secret: Secret,
    /// A member's interface, by extension.
    pub interface: Pattern,
    /// The interface whose device state says that a member is busy, by extension.
    pub state_interface: Pattern,
    /// A queue's name, by number.
    pub queue: Pattern,
}

impl AmiSettings {
    /// Whether both ask for the same link, with whatever secret.
    #[must_use]
    pub fn is_same_link(&self, other: &Self) -> bool {
        let but_the_secret = |it: &Self| {
            let patterns = (it.interface.clone(), it.state_interface.clone(), it.queue.clone());
            (it.organization.clone(), it.address, it.username.clone(), patterns)
        };
        but_the_secret(self) == but_the_secret(other)
    }
}

/// A text with one `%` in it that stands for a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    before: Box<str>,
    after: Box<str>,
}

impl Pattern {
    /// Admits a text of printable ASCII without spaces, with one `%` in it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (before, after) = text.split_once('%')?;
        let admitted = is_word(text, AMI_PATTERN_BYTES_MAX) && !after.contains('%');
        admitted.then(|| Self { before: before.into(), after: after.into() })
    }

    /// The text for this name.
    #[must_use]
    pub fn of(&self, name: &str) -> String {
        [&*self.before, name, &*self.after].concat()
    }
}

/// An organization that a link names, and what to say if there is none.
pub(super) struct Named {
    pub(super) organization: Box<str>,
    pub(super) unknown: Problem,
}

/// Reads the tables; each link comes with the organization that has to be there.
pub(super) fn read(
    sections: Vec<Section<'_>>,
    folder: &Path,
    warnings: &mut Problems,
) -> (Vec<AmiSettings>, Vec<Named>) {
    let (mut links, mut named) = (vec![], vec![]);
    for (position, section) in sections.into_iter().enumerate() {
        if position >= AMI_LINKS_MAX {
            section.report(&section.span, format!("is one Asterisk more than {AMI_LINKS_MAX}"));
            break;
        }
        links.extend(read_link(section, folder, warnings, &mut named));
    }
    (links, named)
}

fn read_link(
    mut section: Section<'_>,
    folder: &Path,
    warnings: &mut Problems,
    named: &mut Vec<Named>,
) -> Option<AmiSettings> {
    let organization = section.required_string("organization");
    if let Some(name) = &organization {
        let message = format!("there is no organization `{}`", name.value);
        let unknown = section.source.problem(name.span.clone(), message);
        named.push(Named { organization: name.value.into(), unknown });
    }
    let address = read_address(&mut section, warnings);
    let username = section.required_string("username").filter(|name| {
        let admitted = is_word(name.value, AMI_USERNAME_BYTES_MAX);
        if !admitted {
            let help = format!("1 to {AMI_USERNAME_BYTES_MAX} printable ASCII characters without spaces");
            section.report_with_help(&name.span, "`username` cannot be sent to Asterisk", help);
        }
        admitted
    });
    let secret = section.required_string("secret_file").and_then(|path| {
        let help = format!("1 to {AMI_SECRET_BYTES_MAX} printable ASCII characters without spaces, and a newline");
        let admits = |text: &str| is_word(text, AMI_SECRET_BYTES_MAX);
        read_secret(&section, &path, folder, AMI_SECRET_BYTES_MAX, admits, ("the secret file", &help))
    });
    let interface = read_pattern(&mut section, "interface", INTERFACE_DEFAULT);
    let state_interface = read_pattern(&mut section, "state_interface", INTERFACE_DEFAULT);
    let queue = read_pattern(&mut section, "queue", QUEUE_DEFAULT);
    section.finish();
    Some(AmiSettings {
        organization: organization?.value.into(),
        address: address?,
        username: username?.value.into(),
        secret: secret?,
        interface: interface?,
        state_interface: state_interface?,
        queue: queue?,
    })
}

fn read_address(section: &mut Section<'_>, warnings: &mut Problems) -> Option<SocketAddr> {
    let text = section.required_string("address")?;
    let Ok(address) = text.value.parse::<SocketAddr>() else {
        let message = "`address` must be an address and a port";
        section.report_with_help(&text.span, message, "for example \"127.0.0.1:5038\"");
        return None;
    };
    if !address.ip().is_loopback() {
        let message = format!("`address` is {address}, and AMI is not encrypted");
        let help = "who is on the way can remove queue members; use a tunnel, or a network of its own";
        warnings.add(section.source.problem(text.span, message).help(help));
    }
    Some(address)
}

fn read_pattern(section: &mut Section<'_>, key: &'static str, default: &str) -> Option<Pattern> {
    let Some(text) = section.string(key) else { return Pattern::parse(default) };
    let pattern = Pattern::parse(text.value);
    if pattern.is_none() {
        let help =
            format!("1 to {AMI_PATTERN_BYTES_MAX} printable ASCII characters without spaces, like \"{default}\"");
        section.report_with_help(&text.span, format!("`{key}` must hold one `%`"), help);
    }
    pattern
}

/// Whether the text is 1 to `bytes_max` printable ASCII characters without spaces.
fn is_word(text: &str, bytes_max: usize) -> bool {
    !text.is_empty() && text.len() <= bytes_max && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_has_one_place_for_the_name() {
        assert_eq!(Pattern::parse("PJSIP/%").unwrap().of("1001"), "PJSIP/1001");
        assert_eq!(Pattern::parse("Local/%@agents/n").unwrap().of("1001"), "Local/1001@agents/n");
        assert_eq!(Pattern::parse("%").unwrap().of("600"), "600");
        let too_long = format!("%{}", "x".repeat(AMI_PATTERN_BYTES_MAX));
        for text in ["", "PJSIP/", "%%", "PJSIP/ %", "PJSIP/%\r\nAction: X", "PJSÍP/%", &too_long] {
            assert_eq!(Pattern::parse(text), None, "{text:?}");
        }
    }
}
