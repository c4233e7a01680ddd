//! Given links and peers that work, break and err, when an operator looks, then each is named with its state and its
//! last fault: `queuewarden links`, `queuewarden peers`, `/readyz?verbose` (TRUTH 4).

use std::net::{SocketAddr, TcpListener};

use serde_json::Value;

use crate::support::model_asterisk::{ModelAsterisk, ModelMember};
use crate::support::{Folder, NOBODY, Sidecar, run, wait_until};

fn command(folder: &Folder, words: &str) -> String {
    let words: Vec<&str> = words.split(' ').collect();
    run(&[&["--config", folder.path().to_str().unwrap()], &words[..]].concat()).1
}

fn rows(folder: &Folder, words: &str) -> Vec<Value> {
    command(folder, &format!("{words} --json")).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn the_row(folder: &Folder, words: &str, is_wanted: impl Fn(&Value) -> bool) -> Value {
    let rows = rows(folder, words);
    let mut wanted = rows.iter().filter(|row| is_wanted(row));
    let row = wanted.next().unwrap_or_else(|| panic!("{rows:#?}")).clone();
    assert!(wanted.next().is_none(), "{rows:#?}");
    row
}

/// Adds evapi links to these addresses. The links to other PBXs follow in the file.
fn with_evapi(folder: &Folder, addresses: &[SocketAddr]) {
    let addresses: Vec<String> = addresses.iter().map(|address| format!("\"{address}\"")).collect();
    let keys = format!("[connect]\nevapi = [{}]\n", addresses.join(", "));
    folder.write("queuewarden.toml", &(folder.read("queuewarden.toml") + &keys));
}

#[test]
fn links_are_listed_with_their_last_error() {
    let (asterisk, kamailio) = (ModelAsterisk::with_queues(&["600", "601"]), TcpListener::bind("127.0.0.1:0").unwrap());
    asterisk.add("600", "PJSIP/1002", ModelMember::dynamic(), false);
    asterisk.add("600", "SIP/else\u{1b}[2Jwhere", ModelMember::dynamic(), false);
    let folder = Folder::demo();
    with_evapi(&folder, &[NOBODY, kamailio.local_addr().unwrap()]);
    folder.link_to_asterisk("pbx-1", asterisk.address, "");
    folder.link_to_asterisk("pbx-2", NOBODY, "members = \"enforce\"");
    let refusing = ModelAsterisk::with_queues(&[]);
    refusing.misbehave(|misbehavior| misbehavior.refuses_login = true);
    folder.link_to_asterisk("pbx-3", refusing.address, "");
    let sidecar = Sidecar::start(&folder);
    let (stream, _) = kamailio.accept().unwrap();
    let series = "queuewarden_link_last_poll_timestamp_seconds{link=\"pbx-1\"}";
    wait_until("the first poll", || sidecar.metric(series) > 0.0);

    let link = |name: &str| the_row(&folder, "links", |row| row["link"] == name);
    let is_down = |name: &str| link(name)["last_error"].is_string();
    wait_until("the refusals", || is_down("pbx-2") && is_down("evapi-1"));
    for (name, kind, members) in [("pbx-2", "asterisk", "enforce".into()), ("evapi-1", "kamailio", Value::Null)] {
        let row = link(name);
        assert_eq!((&row["up"], &row["kind"], &row["members"]), (&false.into(), &kind.into(), &members), "{row}");
        assert!(row["last_error"].as_str().unwrap().contains("onnection refused"), "{row}");
        assert!(row["since_unix_seconds"].as_u64() <= row["last_error_unix_seconds"].as_u64(), "{row}");
        assert!(row["last_poll_unix_seconds"].is_null(), "{row}");
    }
    // In the words of the PBX, and what to do about it.
    let words = "the PBX refused the login: Authentication failed; check `username`";
    wait_until("the refusal", || link("pbx-3")["last_error"].as_str().is_some_and(|error| error.starts_with(words)));
    for name in ["pbx-1", "evapi-2"] {
        let row = link(name);
        assert!(row["up"] == true && row["last_error"].is_null() && row["since_unix_seconds"].is_u64(), "{row}");
    }
    assert_eq!((&link("pbx-1")["counts"]["foreign"], &link("pbx-1")["counts"]["unparsed"]), (&1.into(), &1.into()));

    let table = command(&folder, "links");
    assert!(table.starts_with("link     kind      organization  members  state  since"), "{table}");
    assert!(table.contains("pbx-1    asterisk  acme          observe  up "), "{table}");
    assert!(table.ends_with("5 links\n"), "{table}");
    let shown = command(&folder, "links show pbx-1");
    assert!(shown.contains("600    1002               foreign\n"), "{shown}");
    assert!(shown.contains("600    SIP/else?[2Jwhere  unparsed\n"), "a name writes nothing on a terminal: {shown}");
    // The model has no listeners to list, and its account may not see when it started.
    let checks = sidecar.get("/readyz?verbose");
    for name in ["pbx-2", "evapi-1"] {
        assert!(checks.contains(&format!("\n[!] link {name} is down for ")), "{checks}");
    }
    assert!(!checks.contains("pbx-1") && !checks.contains("evapi-2") && !checks.contains("links ok"), "{checks}");
    for (name, up) in [("pbx-1", 1.0), ("pbx-2", 0.0), ("evapi-1", 0.0), ("evapi-2", 1.0)] {
        assert_eq!(sidecar.metric(&format!("queuewarden_link_up{{link=\"{name}\"}}")).to_string(), up.to_string());
    }

    // Kamailio has no members: nothing of it can be compared.
    let (status, _) = run(&["--config", folder.path().to_str().unwrap(), "links", "reconcile", "evapi-2"]);
    assert_eq!(status.code(), Some(1));
    assert!(command(&folder, "links show evapi-2").contains("nothing to compare"));

    // A connection that broke leaves its error, also when the link is up again.
    drop(stream);
    wait_until("the end", || link("evapi-2")["last_error"] == "Kamailio closed the connection");
    drop(kamailio.accept().unwrap());
    asterisk.hang_up();
    wait_until("the link to be up again", || {
        let row = link("pbx-1");
        row["up"] == true && row["last_error"].is_string()
    });
}

/// A member that stands is one violation, however often it is polled; added again, it is another.
#[test]
fn a_foreign_member_is_counted_once_for_as_long_as_it_is_there() {
    let asterisk = ModelAsterisk::with_queues(&["600", "601"]);
    let folder = Folder::demo();
    folder.link_to_asterisk("pbx-1", asterisk.address, "");
    let sidecar = Sidecar::start(&folder);
    let violations = || sidecar.metric("queuewarden_link_violations_total{link=\"pbx-1\",kind=\"member\"}").to_string();
    let polled = || {
        for _ in 0..2 {
            let series = "queuewarden_link_last_poll_timestamp_seconds{link=\"pbx-1\"}";
            let before = sidecar.metric(series);
            wait_until("the next poll", || sidecar.metric(series) > before);
        }
    };
    polled();
    assert_eq!(violations(), "0");
    for count in ["1", "2"] {
        asterisk.add("600", "PJSIP/1002", ModelMember::dynamic(), true);
        wait_until("the violation", || violations() == count);
        polled();
        assert_eq!(violations(), count);
        asterisk.remove("600", "PJSIP/1002");
        polled();
    }
    assert!(sidecar.log_at_end().iter().any(|line| line.contains("a queue member has no login session")));
}

#[test]
fn peers_are_listed_with_their_questions_and_their_last_fault() {
    let folder = Folder::demo();
    with_evapi(&folder, &[NOBODY]);
    let sidecar = Sidecar::start(&folder);
    let mut line = sidecar.line();
    for _ in 0..3 {
        assert!(line.ask("may org=acme actor=1001 action=queue.login queue=600").starts_with("allow "));
    }
    let open = || the_row(&folder, "peers", |row| row["dialect"] == "line" && row["state"] == "open");
    assert!(open()["questions"] == 3 && open()["last_fault"].is_null(), "{}", open());
    assert!(line.ask("may org=acme actor=1001 action=queue.login qeue=600").starts_with("error "));
    let fault = &open()["last_fault"];
    assert_eq!(
        (&fault["reason"], &fault["key"], &fault["actor"]),
        (&"unknown_key".into(), &"qeue".into(), &"1001".into())
    );
    let peer = open()["peer"].as_str().unwrap().parse::<SocketAddr>();
    assert!(peer.is_ok_and(|address| address.ip().is_loopback()), "{}", open());

    // FastAGI: every question is a connection, and the machine is listed although none is open.
    sidecar.agi("1001", "acme/dial", &["digits=*13600"]);
    sidecar.agi("1001", "acme/dial", &["digits=*14600"]);
    let fastagi = || the_row(&folder, "peers", |row| row["dialect"] == "fastagi" && row["state"] == "closed");
    let ended = |connections: u64| {
        wait_until("the end of the connections", || {
            rows(&folder, "peers")
                .iter()
                .any(|row| row["dialect"] == "fastagi" && row["state"] == "closed" && row["connections"] == connections)
        });
    };
    ended(2);
    sidecar.agi("1001", "acme/dial", &["qeue=600"]);
    ended(3);
    let row = fastagi();
    assert!(row["peer"] == "127.0.0.1" && row["questions"] == 2, "{row}");
    let fault = &row["last_fault"];
    assert_eq!(
        (&fault["reason"], &fault["key"], &fault["actor"], &fault["channel"]),
        (&"unknown_key".into(), &"qeue".into(), &"1001".into(), &"PJSIP/1001-00000000".into())
    );

    // A link is wanted whether it is up or not.
    wait_until("the refusal", || {
        let link = the_row(&folder, "peers", |row| row["dialect"] == "evapi");
        link["state"] == "down"
            && link["last_fault"]["reason"].as_str().is_some_and(|reason| reason.contains("refused"))
    });
    drop(line);
    wait_until("the end of the line connection", || {
        rows(&folder, "peers")
            .iter()
            .any(|row| row["dialect"] == "line" && row["state"] == "closed" && row["questions"] == 3)
    });
    let table = command(&folder, "peers");
    assert!(table.starts_with("dialect  name"), "{table}");
    assert!(table.contains("unknown_key key=qeue actor=1001 channel=PJSIP/1001-00000000 at 20"), "{table}");
    assert!(table.ends_with("3 peers\n"), "{table}");
    assert_eq!(rows(&folder, "peers --limit 1").len(), 1);
    assert_eq!(rows(&folder, "peers --from 1").len(), 2);
}
