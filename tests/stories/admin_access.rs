//! Given the admin listener, when a request exceeds the rights of its origin or names a foreign host, then the request
//! is refused, and no response contains a secret.

use crate::stories::fixtures::ORGANIZATION;
use crate::support::{Folder, Sidecar, connect, connect_unix, http, run, wait_until};

const TOKEN: &str = "s3cr3t-of-the-operators";
const LOCAL: &str = "Host: localhost\r\n";

/// A configuration folder whose `admin` listener has this address, with or without an admin token.
fn folder(admin: &str, token: bool) -> Folder {
    let folder = Folder::with("acme.toml", ORGANIZATION);
    folder.write("admin.token", &format!("{TOKEN}\n"));
    let key = if token { "admin_token_file = \"admin.token\"\n" } else { "" };
    folder.replace("queuewarden.toml", "admin = \"127.0.0.1:0\"\n", &format!("admin = \"{admin}\"\n{key}"));
    folder
}

fn bearer(token: &str) -> String {
    format!("{LOCAL}Authorization: Bearer {token}\r\n")
}

/// DOOR 2: a bind beyond loopback needs an entry that says who may connect, and no token crosses a network in plain
/// text.
#[test]
fn on_an_address_that_others_reach_a_start_needs_an_entry_and_no_token() {
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:9471"] {
        let check = |folder: &Folder| run(&["check", "--config", folder.path().to_str().unwrap()]);
        let (status, output) = check(&folder(address, false));
        assert_eq!(status.code(), Some(78), "{output}");
        assert!(output.contains("`admin` listens on") && output.contains("[[peers]]"), "{output}");
        let (status, output) = check(&folder(address, true));
        assert_eq!(status.code(), Some(78), "{output}");
        assert!(output.contains("`admin_token_file` would cross the network in plain text"), "{output}");
        let guarded = folder(address, false);
        let entry = "[[peers]]\nname = \"scraper\"\nlisteners = [\"admin\"]\naddresses = [\"192.0.2.7/32\"]\nrights = [\"look\"]\n";
        guarded.replace("queuewarden.toml", "[state]\n", &format!("{entry}[state]\n"));
        let (status, output) = check(&guarded);
        assert_eq!(status.code(), Some(0), "{output}");
    }
}

#[test]
fn with_a_token_every_route_but_health_needs_it_where_loopback_is_closed() {
    let folder = folder("127.0.0.1:0", false);
    let entry = "[[peers]]\nname = \"operator\"\nlisteners = [\"admin\"]\ntoken_files = [\"admin.token\"]\n\
                 rights = [\"look\"]\n";
    folder.replace("queuewarden.toml", "[state]\n", &format!("{entry}[state]\n"));
    let sidecar = Sidecar::start(&folder);
    let port = sidecar.address("admin").port();
    let ask =
        |method: &str, path: &str, headers: &str| http(connect(([127, 0, 0, 1], port).into()), method, path, headers).0;
    for path in ["/livez", "/readyz"] {
        assert_eq!(ask("GET", path, LOCAL), 200, "{path}");
    }
    for path in ["/metrics", "/status", "/sessions", "/log"] {
        assert_eq!(ask("GET", path, LOCAL), 401, "{path}");
        assert_eq!(ask("GET", path, &bearer(TOKEN)), 200, "{path}");
    }
    for wrong in ["", &TOKEN[1..], &format!("{TOKEN}x"), &TOKEN.to_uppercase()] {
        assert_eq!(ask("GET", "/status", &bearer(wrong)), 401, "{wrong:?}");
    }
    let twice = format!("{}Authorization: Bearer {TOKEN}\r\n", bearer(TOKEN));
    assert_eq!(ask("GET", "/status", &twice), 401, "two tokens are refused");
    assert_eq!(ask("PUT", "/log?filter=debug", &bearer(TOKEN)), 403, "the right `change` is lacking");
    // A changed token is accepted from the next reload on; the old token is refused from then on.
    folder.write("admin.token", "another-of-16-bytes\n");
    sidecar.signal("HUP");
    wait_until("the new token", || ask("GET", "/status", &bearer("another-of-16-bytes")) == 200);
    assert_eq!(ask("GET", "/status", &bearer(TOKEN)), 401);
}

#[test]
fn a_change_needs_the_unix_socket_or_the_token() {
    let folders = [folder("127.0.0.1:0", false), folder("127.0.0.1:0", true)];
    let [plain, guarded] = folders.each_ref().map(Sidecar::start);
    let end = "/sessions?org=acme&user=1001";
    for (method, path) in
        [("DELETE", end), ("DELETE", "/supervisions?org=acme&user=2001"), ("PUT", "/log?filter=debug")]
    {
        let by_tcp = |sidecar: &Sidecar, headers: &str| http(connect(sidecar.address("admin")), method, path, headers);
        let (status, response) = by_tcp(&plain, LOCAL);
        assert!(status == 403 && response.contains("admin_unix"), "{response}");
        let (status, response) = by_tcp(&guarded, LOCAL);
        assert!(status == 401 && response.to_lowercase().contains("www-authenticate: bearer"), "{response}");
        assert_eq!(by_tcp(&plain, &bearer(TOKEN)).0, 401, "no token is configured");
        assert_eq!(by_tcp(&guarded, &bearer("guess")).0, 401);
        assert_eq!(by_tcp(&guarded, &bearer(TOKEN)).0, 200, "{method} {path}");
        assert_eq!(http(connect_unix(&plain.socket("admin_unix")), method, path, LOCAL).0, 200, "{method} {path}");
    }
    assert!(plain.get("/sessions").contains("\"rows\":[]"), "reading needs no token");
}

/// DNS rebinding: a web page whose host name resolves to 127.0.0.1 sends its own name in `Host`.
#[test]
fn a_foreign_host_name_is_refused() {
    let folder = folder("127.0.0.1:0", true);
    folder.replace("queuewarden.toml", "admin_unix = ", "admin_hosts = [\"warden.example.org\"]\nadmin_unix = ");
    let sidecar = Sidecar::start(&folder);
    let ask = |headers: &str| http(connect(sidecar.address("admin")), "GET", "/status", headers).0;
    for host in ["localhost", "LOCALHOST:9471", "127.0.0.1", "127.0.0.1:9471", "[::1]:1", "warden.example.org:80"] {
        assert_eq!(ask(&format!("Host: {host}\r\n")), 200, "{host}");
    }
    for host in
        ["evil.example.org", "localhost.evil.example.org", "127.0.0.1.example.org", "x", "evil.example.org:9471"]
    {
        assert_eq!(ask(&format!("Host: {host}\r\n")), 421, "{host}");
        let with_token = format!("Host: {host}\r\nAuthorization: Bearer {TOKEN}\r\n");
        assert_eq!(ask(&with_token), 421, "{host}: refused also with a token");
    }
    assert_eq!(ask(""), 400, "no host");
    assert_eq!(ask("Host: localhost\r\nHost: evil.example.org\r\n"), 400, "two hosts");
    let absolute = http(connect(sidecar.address("admin")), "GET", "http://host/status", LOCAL).0;
    assert_eq!(absolute, 421);
    let by_unix = http(connect_unix(&sidecar.socket("admin_unix")), "GET", "/status", "Host: anything\r\n").0;
    assert_eq!(by_unix, 200, "a web page cannot open a Unix socket");
}

#[test]
fn no_answer_and_no_line_of_the_log_holds_a_secret() {
    let folder = folder("127.0.0.1:0", true);
    folder.write("line.token", "line-s3cr3t-of-16\n");
    folder.write("ami.secret", "ami-s3cr3t\n");
    folder.replace("queuewarden.toml", "[listen]\n", "[listen]\nline_token_file = \"line.token\"\n");
    folder.replace(
        "queuewarden.toml",
        "[state]\n",
        "[[connect.asterisk_ami]]\norganization = \"acme\"\naddress = \"127.0.0.1:1\"\nusername = \"u\"\n\
         secret_file = \"ami.secret\"\n[state]\n",
    );
    let mut command = crate::support::binary();
    command.arg("--config").arg(folder.path()).env("QUEUEWARDEN_LOG", "trace");
    let sidecar = Sidecar::try_start_as(command).unwrap_or_else(|(_, output)| panic!("{output}"));
    let mut answers = vec![];
    for path in ["/status", "/metrics", "/readyz?verbose", "/log", "/sessions", "/supervisions"] {
        answers.push(http(connect(sidecar.address("admin")), "GET", path, &bearer(TOKEN)).1);
    }
    assert_eq!(sidecar.ask("auth token=line-s3cr3t-of-16"), "allow reason=authenticated");
    assert_eq!(sidecar.ask("auth token=line-s3cr3x-of-16"), "error reason=unauthenticated");
    assert!(sidecar.ask("dial org=acme actor=1001 digits=*13 token=line-s3cr3t-of-16").starts_with("error "));
    http(connect(sidecar.address("admin")), "GET", "/log", &bearer("admin-s3cr3x"));
    folder.write("line.token", "two s3cr3ts\n");
    folder.write("ami.secret", "two s3cr3ts\n");
    sidecar.reload();
    answers.push(sidecar.get("/status"));
    let log = sidecar.log_at_end();
    assert!(log.iter().any(|line| line.contains("token file")), "the broken secret files are logged: {log:#?}");
    for text in answers.iter().chain(&log) {
        assert!(!text.contains("s3cr3"), "{text}");
    }
}
