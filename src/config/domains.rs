//! `domains`: the SIP domains of an organization, each a host name (RFC 1123) or an IP address.
//!
//! A domain has one spelling, beside the case of its letters. A name that no PBX can have would load and never match. A
//! second spelling of a name would let two organizations believe that they own it.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::config::reader::{Section, SpannedStr};
use crate::limits::{DOMAIN_LABEL_BYTES_MAX, DOMAINS_PER_ORGANIZATION_MAX, VALUE_BYTES_MAX};

/// What the schema says of a domain. It leaves out what a pattern cannot say: that a name does not end with a number,
/// and which addresses exist.
const PATTERN: &str = concat!(
    r"^([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*$",
    r"|^[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*$",
);

/// Reads the SIP domains of the organization: each at most once, whatever its case.
pub(super) fn read<'a>(root: &mut Section<'a>) -> Vec<SpannedStr<'a>> {
    root.document_pattern("domains", PATTERN);
    let mut domains: Vec<SpannedStr<'a>> = vec![];
    for domain in root.strings("domains") {
        if let Some(help) = fault(domain.value) {
            root.report_with_help(&domain.span, format!("`{}` cannot be a domain", domain.value), help);
        } else if domains.iter().any(|other| other.value.eq_ignore_ascii_case(domain.value)) {
            root.report(&domain.span, format!("`domains` has `{}` twice", domain.value));
        } else {
            domains.push(domain);
        }
    }
    if let Some(excess) = domains.get(DOMAINS_PER_ORGANIZATION_MAX) {
        root.report(&excess.span, format!("there are more than {DOMAINS_PER_ORGANIZATION_MAX} domains"));
    }
    domains
}

/// What to write instead. `None`: it is a domain.
fn fault(domain: &str) -> Option<String> {
    // RFC 1123 admits 253 bytes, but no question can name as many.
    if domain.len() > VALUE_BYTES_MAX {
        return Some(format!("a question names at most {VALUE_BYTES_MAX} bytes, and this domain has {}", domain.len()));
    }
    if domain.contains(':') {
        let address = domain.parse::<Ipv6Addr>().ok().map(|address| address.to_string());
        return match address {
            Some(canonical) if canonical.eq_ignore_ascii_case(domain) => None,
            Some(canonical) => Some(format!("write the address as `{canonical}`")),
            None => Some("an IPv6 address is written without brackets and without a port, as `2001:db8::1`".to_owned()),
        };
    }
    if domain.len() > 1 && domain.strip_suffix('.').is_some_and(|name| fault(name).is_none()) {
        return Some("write the domain without the dot at its end, here and in the PBX".to_owned());
    }
    let is_named = domain.split('.').all(is_label);
    let ends_with_number = domain.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    if is_named && ends_with_number && domain.parse::<Ipv4Addr>().is_err() {
        let help =
            "a name that ends with a number is an IPv4 address: four numbers from 0 to 255 without leading zeros";
        return Some(help.to_owned());
    }
    (!is_named).then(|| {
        format!(
            "a domain is an IP address or a host name: parts of 1 to {DOMAIN_LABEL_BYTES_MAX} of A-Z a-z 0-9 - between \
             dots, each without - at its begin and end"
        )
    })
}

fn is_label(label: &str) -> bool {
    (1..=DOMAIN_LABEL_BYTES_MAX).contains(&label.len())
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FIELD A4.
    #[test]
    fn a_domain_is_a_host_name_or_an_address_in_its_one_spelling() {
        let (longest, too_long) = ("a".repeat(63), "a".repeat(64));
        let (full, excess) = (["a"; 64].join("."), format!("{}.bcd", ["a"; 63].join(".")));
        for domain in [
            "acme.example",
            "ACME.Example",
            "pbx",
            "1st-floor.acme",
            "xn--mnchen-3ya.example",
            "7.acme",
            "192.0.2.10",
            "0.0.0.0",
            "2001:db8::1",
            "2001:DB8::1",
            "::1",
            &longest,
            &format!("{longest}.{longest}"),
            &full,
        ] {
            assert_eq!(fault(domain), None, "{domain}");
        }
        for domain in [
            "",
            ".",
            "..",
            "acme.example.",
            "acme.example..",
            ".acme.example",
            "a..b",
            "-a.b",
            "a-.b",
            "a.-b",
            "a.b-",
            "-",
            "a_b.test",
            "a b",
            "a@b",
            "*",
            "*.test",
            "a/b",
            "münchen.example",
            "1.2.3.400",
            "1.2.3",
            "1.2.3.4.5",
            "01.2.3.4",
            "1.2.3.04",
            "1.2.3.4.",
            "600",
            "acme.7",
            "[2001:db8::1]",
            "2001:db8:0::1",
            "2001:db8::1:5060x",
            "192.0.2.10:5060",
            "::1.",
            ":",
            "acme:5060",
            "a\n.b",
            "a\0",
            &too_long,
            &format!("{too_long}.test"),
            &excess,
        ] {
            assert!(fault(domain).is_some(), "{domain}");
        }
        assert!(fault("acme.example.").unwrap().contains("without the dot"));
        assert!(fault("2001:db8:0::1").unwrap().contains("`2001:db8::1`"));
    }
}
