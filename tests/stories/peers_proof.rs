//! Given a table of peers that contradicts itself, when it is checked, then it does not load, and the problem says what
//! to change. DOOR section 2, row E14.

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt;

use crate::stories::fixtures::ORGANIZATION;
use crate::support::certificates::{Authority, Validity};
use crate::support::{Folder, run};

/// What `check` says of these keys of `[listen]` and these entries.
fn check(listen: &str, entries: &str) -> (Option<i32>, String) {
    check_with(listen, entries, &|_| {})
}

fn check_with(listen: &str, entries: &str, prepare: &dyn Fn(&Folder)) -> (Option<i32>, String) {
    let folder = Folder::with("acme.toml", ORGANIZATION);
    for (file, token) in
        [("a.token", "0123456789abcdef"), ("b.token", "fedcba9876543210"), ("short", "0123456789abcde")]
    {
        folder.write(file, &format!("{token}\n"));
    }
    folder.replace("queuewarden.toml", "[listen]\n", &format!("[listen]\n{listen}"));
    folder.replace("queuewarden.toml", "[state]\n", &format!("{entries}[state]\n"));
    prepare(&folder);
    let (status, output) = run(&["check", "--config", folder.path().to_str().unwrap()]);
    (status.code(), output)
}

fn entry(keys: &str) -> String {
    format!("[[peers]]\nname = \"pbx-1\"\n{keys}\n")
}

fn assert_refused(listen: &str, entries: &str, expected: &[&str]) {
    let (code, output) = check(listen, entries);
    assert_eq!(code, Some(78), "{listen}{entries}\n{output}");
    for text in expected {
        assert!(output.contains(text), "{listen}{entries}\nlacks {text:?}: {output}");
    }
}

#[test]
fn an_entry_that_cannot_be_meant_does_not_load() {
    let address = "addresses = [\"10.0.0.5/32\"]\n";
    for (keys, expected) in [
        ("", "nothing proves that a connection is `pbx-1`"),
        ("listeners = [\"line\"]\n", "nothing proves that a connection is `pbx-1`"),
        ("addresses = []\n", "`addresses` is empty"),
        ("addresses = [\"10.0.0.5/33\"]\n", "must be an IP address and a prefix length"),
        ("addresses = [\"10.0.0.5/24\"]\n", "write 10.0.0.0/24"),
        ("addresses = [\"::ffff:10.0.0.5/128\"]\n", "must be written as IPv4"),
        ("addresses = [\"10.0.0.5/32\", \"10.0.0.5/32\"]\n", "twice"),
        ("users = [\"no-such-user-here\"]\n", "`no-such-user-here` is no user of this machine"),
        ("users = [\"root\"]\nlisteners = [\"line\"]\n", "`users` of `pbx-1` applies to none of its listeners"),
        ("addresses = [\"10.0.0.5/32\"]\nlisteners = [\"line_unix\"]\n", "`addresses` of `pbx-1` applies to none"),
        ("token_files = [\"a.token\"]\nlisteners = [\"fastagi\"]\n", "`token_files` of `pbx-1` applies to none"),
        ("token_files = [\"short\"]\n", "does not contain a valid secret"),
        ("token_files = [\"none\"]\n", "the token file"),
        ("token_files = [\"a.token\", \"a.token\"]\n", "the same token"),
        ("certificate = \"uri:queuewarden://pbx-1\"\n", "`certificate` of `pbx-1` applies to none"),
        ("certificate = \"dns:*.example.org\"\n", "no wildcard"),
        ("certificate = \"CN=pbx-1\"\n", "never the common name"),
    ] {
        assert_refused("", &entry(keys), &[expected]);
    }
    for (keys, expected) in [
        ("listeners = [\"lime\"]\n", "there is no listener `lime`"),
        ("listeners = [\"line\", \"line\"]\n", "twice"),
        ("organizations = [\"nowhere\"]\n", "there is no organization `nowhere`"),
        ("organizations = []\n", "`organizations` is empty"),
        ("rights = [\"everything\"]\n", "`everything` is no right"),
        ("listeners = [\"line\"]\nrights = [\"look\"]\n", "the right `look` of `pbx-1` means nothing"),
        ("share_max_percent = 0\n", "`share_max_percent` must be from 1 to 100"),
        ("colour = \"red\"\n", "unknown key `colour`"),
    ] {
        assert_refused("", &entry(&format!("{address}{keys}")), &[expected]);
    }
    assert_refused("", "[[peers]]\naddresses = [\"10.0.0.5/32\"]\n", &["the key `name` is missing"]);
    assert_refused("", &format!("[[peers]]\nname = \"anybody\"\n{address}"), &["cannot be the name of a peer"]);
    assert_refused("", &(entry(address) + &entry("addresses = [\"10.0.0.6/32\"]\n")), &["two peers have the name"]);
}

#[test]
fn entries_that_nothing_tells_apart_do_not_load() {
    let other = |keys: &str| entry(keys).replace("pbx-1", "pbx-2");
    for (one, another, expected) in [
        ("addresses = [\"10.0.0.0/8\"]", "addresses = [\"10.0.0.0/8\"]", "the addresses 10.0.0.0/8"),
        ("addresses = [\"10.0.0.0/8\"]", "addresses = [\"10.0.0.0/16\", \"10.0.0.0/8\"]", "the addresses 10.0.0.0/8"),
        ("users = [\"root\"]", "users = [\"daemon\", \"0\"]", "the Unix user with the id 0"),
        ("token_files = [\"a.token\"]", "token_files = [\"b.token\", \"a.token\"]", "a token"),
    ] {
        assert_refused("", &(entry(one) + &other(another)), &["could be `pbx-1` or `pbx-2`", expected]);
    }
    for (one, another) in [
        ("addresses = [\"10.0.0.0/8\"]", "addresses = [\"10.0.0.0/16\"]"),
        (
            "addresses = [\"10.0.0.0/8\"]\nlisteners = [\"line\"]",
            "addresses = [\"10.0.0.0/8\"]\nlisteners = [\"fastagi\"]",
        ),
        ("users = [\"root\"]", "users = [\"daemon\"]"),
        ("token_files = [\"a.token\"]", "token_files = [\"b.token\"]"),
    ] {
        let (code, output) = check("", &(entry(one) + &other(another)));
        assert_eq!(code, Some(0), "{one} {another}: {output}");
    }
}

#[test]
fn a_listener_beyond_loopback_needs_an_entry_and_no_token_in_plain_text() {
    let exposed = "line = \"0.0.0.0:0\"\n";
    let reached = &["`line` listens on 0.0.0.0:0, which other machines can reach, and no entry of [[peers]]"];
    let check = |entries: &str| {
        check_with("", entries, &|folder| folder.replace("queuewarden.toml", "line = \"127.0.0.1:0\"\n", exposed))
    };
    for entries in
        ["", &entry("users = [\"root\"]"), &entry("addresses = [\"10.0.0.5/32\"]\nlisteners = [\"fastagi\"]")]
    {
        let (code, output) = check(entries);
        assert!(code == Some(78) && output.contains(reached[0]), "{entries}: {output}");
    }
    for entries in
        [entry("token_files = [\"a.token\"]"), entry("addresses = [\"10.0.0.5/32\"]\ntoken_files = [\"a.token\"]")]
    {
        let (code, output) = check(&entries);
        assert!(code == Some(78) && output.contains("would cross the network in plain text"), "{entries}: {output}");
    }
    let (code, output) = check(&entry("addresses = [\"10.0.0.5/32\"]"));
    assert_eq!(code, Some(0), "{output}");
    assert_refused(
        "",
        "[[listen.more]]\nname = \"t\"\ndialect = \"line\"\naddress = \"0.0.0.0:1\"\nproxy = true\n",
        &["takes the address of a peer from anybody"],
    );
    assert_refused(
        "",
        "[[listen.more]]\nname = \"line\"\ndialect = \"line\"\naddress = \"127.0.0.1:1\"\n",
        &["another listener has the name `line`"],
    );
    assert_refused(
        "",
        "[[listen.more]]\nname = \"t\"\ndialect = \"sip\"\naddress = \"127.0.0.1:1\"\n",
        &["there is no dialect `sip`"],
    );
    assert_refused(
        "",
        "[[listen.more]]\nname = \"t\"\ndialect = \"fastagi\"\naddress = \"127.0.0.1:1\"\ntls = true\n",
        &["no PBX speaks TLS in this dialect"],
    );
}

/// DOOR E14: a secret that every user of the machine can read is none.
#[test]
fn a_secret_that_others_can_read_is_refused_and_one_for_a_group_is_not() {
    for (mode, code) in [(0o600, 0), (0o640, 0), (0o400, 0), (0o644, 78), (0o604, 78), (0o666, 78), (0o602, 78)] {
        let set = |folder: &Folder| {
            set_permissions(folder.path().join("a.token"), Permissions::from_mode(mode)).unwrap();
        };
        let (found, output) = check_with("", &entry("token_files = [\"a.token\"]"), &set);
        assert_eq!(found, Some(code), "{mode:o}: {output}");
        assert_eq!(code == 78, output.contains("may be read by every user") && output.contains("chmod o="), "{output}");
    }
}

#[test]
fn broken_files_of_tls_are_problems_of_the_configuration() {
    let authority = Authority::new();
    authority.issue("server", "DNS:sidecar.example", "serverAuth", Validity::Now);
    authority.issue("other", "DNS:sidecar.example", "serverAuth", Validity::Now);
    let listen = "line_tls = \"127.0.0.1:0\"\ntls_certificate_file = \"server.pem\"\ntls_key_file = \"server.key\"\n\
                  tls_ca_file = \"ca.pem\"\n";
    let entries = entry("certificate = \"uri:queuewarden://pbx-1\"\nlisteners = [\"line_tls\"]");
    let check = |listen: &str, change: &dyn Fn(&Folder)| {
        check_with(listen, &entries, &|folder| {
            for file in ["server.pem", "server.key", "other.key", "ca.pem"] {
                authority.copy(file, &folder.path().join(file));
            }
            change(folder);
        })
    };
    let (code, output) = check(listen, &|_| {});
    assert_eq!(code, Some(0), "{output}");
    let half = |file: &'static str| {
        move |folder: &Folder| {
            let text = folder.read(file);
            folder.write(file, &text[..text.len() / 2]);
        }
    };
    type Change<'a> = &'a dyn Fn(&Folder);
    let cases: [(Change<'_>, &str); 6] = [
        (&half("server.pem"), "server.pem"),
        (&half("server.key"), "server.key"),
        (&half("ca.pem"), "ca.pem"),
        (&|folder| folder.write("server.key", &folder.read("other.key")), "do not belong together"),
        (&|folder| folder.write("ca.pem", ""), "ca.pem has nothing of that kind"),
        (
            &|folder| set_permissions(folder.path().join("server.key"), Permissions::from_mode(0o644)).unwrap(),
            "may be read by every user",
        ),
    ];
    for (change, expected) in cases {
        let (code, output) = check(listen, change);
        assert!(code == Some(78) && output.contains(expected), "{expected}: {output}");
    }
    for (from, expected) in [
        ("tls_certificate_file = \"server.pem\"\n", "there is no certificate"),
        ("tls_key_file = \"server.key\"\n", "there is no certificate"),
        ("tls_ca_file = \"ca.pem\"\n", "needs an authority"),
    ] {
        let (code, output) = check(&listen.replace(from, ""), &|_| {});
        assert!(code == Some(78) && output.contains(expected), "{from}: {output}");
    }
    // Nobody may use a listener with TLS by default, on loopback either.
    let (code, output) = check_with(listen, "", &|folder| {
        for file in ["server.pem", "server.key", "ca.pem"] {
            authority.copy(file, &folder.path().join(file));
        }
    });
    assert!(code == Some(78) && output.contains("no entry of [[peers]] may connect there"), "{output}");
}
