//! Given organizations with SIP domains, when a PBX names the domain of an authenticated user, then the question is
//! about the organization of that domain and no other (FIELD A4). A domain that belongs to no organization, or to two,
//! is refused.

use crate::stories::fixtures::ORGANIZATION;
use crate::support::{Folder, FreeSwitchPeer, Sidecar, channel_block, run};

/// The usual organization under another name, with these domains.
fn organization(name: &str, domains: &str) -> String {
    format!("domains = {domains}\n{}", ORGANIZATION.replace("\"acme\"", &format!("\"{name}\"")))
}

fn two_tenants() -> Folder {
    let folder =
        Folder::with("acme.toml", &organization("acme", "[\"Acme.Example\", \"192.0.2.10\", \"2001:DB8::1\"]"));
    folder.write("organizations/other.toml", &organization("other", "[\"other.test\"]"));
    folder
}

/// Verdict, reason and queues of a question whose organization is in these variables.
fn ask(sidecar: &Sidecar, digits: &str, variables: &[(&str, &str)]) -> String {
    let mut all = vec![("user_name", "1001")];
    all.extend(variables);
    let set = FreeSwitchPeer::ring(sidecar).ask(&channel_block(digits, &all));
    format!("{} {} {}", set["qw_verdict"], set["qw_reason"], set["qw_queues"]).trim_end().to_owned()
}

#[test]
fn a_domain_is_the_organization_of_its_users() {
    let sidecar = Sidecar::start(&two_tenants());
    let acme = [("qw_domain", "acme.example")];
    assert_eq!(ask(&sidecar, "*13600", &acme), "allow assigned 600");
    // The same extension of another tenant has a login session of its own, and ends no other.
    assert_eq!(ask(&sidecar, "*14600", &[("qw_domain", "other.test")]), "deny not_logged_in 600");
    for name in ["ACME.example", "192.0.2.10", "2001:db8::1", "2001:Db8::1"] {
        assert_eq!(ask(&sidecar, "*13600", &[("qw_domain", name)]), "allow already_logged_in 600", "{name}");
    }
    assert_eq!(ask(&sidecar, "*13600", &[("qw_org", "acme")]), "allow already_logged_in 600");
    let log = sidecar.log_at_end();
    let denied = log.iter().find(|line| line.contains("not_logged_in")).expect("a denial is logged");
    assert!(denied.contains("other") && !denied.contains("other.test"), "the log names the organization: {denied}");
}

#[test]
fn a_domain_of_no_organization_is_refused() {
    let sidecar = Sidecar::start(&two_tenants());
    let longest = "d".repeat(128);
    for (domain, reason) in [
        ("nobody.test", "deny unknown_organization"),
        // A domain with a dot at its end is another one, in which no user of the organization is authenticated.
        ("acme.example.", "deny unknown_organization"),
        ("2001:db8::2", "deny unknown_organization"),
        ("xacme.example", "deny unknown_organization"),
        ("sub.acme.example", "deny unknown_organization"),
        (".", "deny unknown_organization"),
        // The name of an organization is no domain, and a domain is no name.
        ("acme", "deny unknown_organization"),
        (&longest, "deny unknown_organization"),
        ("_undef_", "deny malformed"),
        ("", "deny malformed"),
        ("acme.example%00", "deny malformed"),
        ("acme.example%0Aother.test", "deny malformed"),
        ("acme.example%20", "deny malformed"),
        ("[2001:db8::1]", "deny malformed"),
        ("%C4cme.example", "deny malformed"),
        (&format!("{longest}d"), "deny malformed"),
    ] {
        assert_eq!(ask(&sidecar, "*13600", &[("qw_domain", domain)]), reason, "{domain}");
    }
    for (variables, reason) in [
        (&[("qw_org", "acme.example")][..], "deny unknown_organization"),
        (&[("qw_org", "acme"), ("qw_domain", "acme.example")], "deny duplicate_key"),
        (&[("qw_domain", "other.test"), ("qw_org", "acme")], "deny duplicate_key"),
        (&[("qw_domain", "acme.example"), ("qw_domain", "acme.example")], "deny duplicate_key"),
        (&[("QW_domain", "acme.example")], "deny unknown_key"),
        (&[("qw_Domain", "acme.example")], "deny unknown_key"),
        // Never from what a caller writes.
        (&[("sip_h_X-qw_domain", "acme.example"), ("domain_name", "acme.example")], "deny missing_key"),
    ] {
        assert_eq!(ask(&sidecar, "*13600", variables), reason, "{variables:?}");
    }
    let nobody = sidecar.ask("may org=acme actor=1001 action=queue.logout queue=600");
    assert!(nobody.contains("not_logged_in"), "nobody was logged in: {nobody}");
}

#[test]
fn a_domain_that_cannot_be_or_is_taken_is_a_problem_at_its_line() {
    for (domains, message) in [
        ("[\"other.test\"]", "the domain `other.test` belongs to the organization `acme` already"),
        ("[\"OTHER.test\"]", "the domain `other.test` belongs to the organization `acme` already"),
        ("[\"a.test\", \"A.test\"]", "`domains` has `A.test` twice"),
        ("[\"\"]", "`` cannot be a domain"),
        ("[\"a test\"]", "`a test` cannot be a domain"),
        ("[\"1001@a.test\"]", "`1001@a.test` cannot be a domain"),
        ("[\"*\"]", "`*` cannot be a domain"),
        // A second spelling of a name of another organization.
        ("[\"other.test.\"]", "`other.test.` cannot be a domain"),
        ("[\"a..b\"]", "`a..b` cannot be a domain"),
        ("[\"-a.b\"]", "`-a.b` cannot be a domain"),
        ("[\"1.2.3.400\"]", "`1.2.3.400` cannot be a domain"),
        ("[\".\"]", "`.` cannot be a domain"),
        ("[\"2001:db8:0::1\"]", "`2001:db8:0::1` cannot be a domain"),
        ("[1]", "`domains` must be a list of strings"),
    ] {
        let folder = Folder::with("acme.toml", &organization("acme", "[\"other.test\"]"));
        folder.write("organizations/second.toml", &organization("second", domains));
        let (status, text) = run(&["check", "--config", folder.path().to_str().unwrap()]);
        assert_eq!(status.code(), Some(78), "{domains}: {text}");
        let line = text.lines().find(|line| line.contains(message)).unwrap_or_else(|| panic!("{domains}: {text}"));
        assert!(line.contains("organizations/second.toml:1:"), "{line}");
    }
    let many: Vec<String> = (0..257).map(|n| format!("\"d{n}.test\"")).collect();
    let folder = Folder::with("acme.toml", &organization("acme", &format!("[{}]", many.join(", "))));
    let (status, text) = run(&["check", "--config", folder.path().to_str().unwrap()]);
    assert_eq!(status.code(), Some(78), "{text}");
    assert!(text.contains("there are more than 256 domains"), "{text}");
}

/// A reload moves a domain to another organization as a whole.
#[test]
fn a_reload_moves_a_domain() {
    let folder = two_tenants();
    let sidecar = Sidecar::start(&folder);
    assert_eq!(ask(&sidecar, "*13601", &[("qw_domain", "other.test")]), "deny unassigned_barred 601");
    folder.replace("organizations/other.toml", "[\"other.test\"]", "[]");
    sidecar.reload();
    assert_eq!(ask(&sidecar, "*13601", &[("qw_domain", "other.test")]), "deny unknown_organization");
}
