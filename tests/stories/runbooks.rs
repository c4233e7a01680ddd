//! Given an alert, when an operator runs the commands of its runbook in config/prometheus/README.md, then every command
//! works, and the commands and the log name the cause (FIELD D4).

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use crate::support::model_asterisk::{ModelAsterisk, ModelMember};
use crate::support::{Folder, Sidecar, agi_environment, close_our_side, connect, project, read_to_end, wait_until};

/// The programs whose commands are executed; `journalctl` and the like need the machine of the operator.
const EXECUTED: [&str; 2] = ["queuewarden ", "curl "];

/// The commands in backquotes of the runbook of this alert that are executed.
fn commands(alert: &str) -> Vec<String> {
    let page = fs::read_to_string(project().join("config/prometheus/README.md")).unwrap();
    let runbook = page.split("\n### ").find_map(|part| part.strip_prefix(alert)?.strip_prefix('\n')).unwrap();
    let runbook = runbook.split("\n## ").next().unwrap();
    let quoted = runbook.split('`').skip(1).step_by(2).map(|code| code.replace('\n', " "));
    quoted.filter(|code| EXECUTED.iter().any(|program| code.starts_with(program))).collect()
}

/// An operator at a shell, in a folder whose `config` is the configuration of the sidecar.
struct Operator<'a> {
    sidecar: &'a Sidecar,
    folder: &'a Folder,
}

impl Operator<'_> {
    /// What a command of a runbook prints; the shipped address of the admin listener is the sidecar's.
    fn runs(&self, command: &str) -> String {
        let desk = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(self.folder.path(), desk.path().join("config")).unwrap();
        let binary = Path::new(env!("CARGO_BIN_EXE_queuewarden")).parent().unwrap();
        let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap());
        let admin = self.sidecar.address("admin").to_string();
        let command = command.replace("127.0.0.1:9471", &admin);
        let mut shell = Command::new("sh");
        shell.args(["-c", &command]).current_dir(desk.path()).env("PATH", path);
        let output = shell.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{command}: {}\n{text}", String::from_utf8_lossy(&output.stderr));
        text
    }

    /// The output of every command of a runbook, which must be some.
    fn follows(&self, alert: &str, at_least: usize) -> String {
        let commands = commands(alert);
        assert!(commands.len() >= at_least, "the runbook of {alert} has the commands {commands:?}");
        commands.iter().map(|command| format!("$ {command}\n{}", self.runs(command))).collect()
    }
}

fn start(limits: &str) -> (Folder, Sidecar) {
    let folder = Folder::demo().durable();
    folder.replace("queuewarden.toml", "[state]\n", &format!("{limits}[state]\n"));
    let sidecar = Sidecar::start(&folder);
    (folder, sidecar)
}

/// Given denials of one actor, when the runbook of QueuewardenDenialSpike is followed, then it ends at the actor, the
/// digits, the reason and the change that would allow the question.
#[test]
fn a_spike_of_denials_ends_at_an_actor_and_a_reason() {
    let (folder, sidecar) = start("");
    for _ in 0..5 {
        sidecar.ask("dial org=acme actor=1001 digits=*13602");
    }
    let operator = Operator { sidecar: &sidecar, folder: &folder };
    let output = operator.follows("QueuewardenDenialSpike", 5);
    let shown = output.lines().filter(|line| line.contains("1001") && line.contains("unassigned_barred"));
    assert!(shown.count() >= 5, "{output}");
    let json = operator.runs("queuewarden audit tail -n 20 --verdict deny --json");
    assert!(json.contains("\"peer\":\"127.0.0.1:") && json.contains("\"rules\":"), "{json}");
}

/// Given a client that does not close its connections, when the runbooks of QueuewardenConnectionsNearLimit and
/// QueuewardenOverloaded are followed, then they end at that client.
#[test]
fn too_many_connections_end_at_the_peer_that_holds_them() {
    let (folder, sidecar) = start("[limits]\nconnections_max = 5\n");
    let mut leaking: Vec<_> = (0..5).map(|_| sidecar.line()).collect();
    for client in &mut leaking {
        assert_eq!(client.ask("ping"), "pong");
    }
    let operator = Operator { sidecar: &sidecar, folder: &folder };
    let held = "{\"connections\":5,\"dialect\":\"line\",\"peer\":\"127.0.0.1\"}";
    let output = operator.follows("QueuewardenConnectionsNearLimit", 2);
    assert!(output.contains(held), "{output}");
    read_to_end(&mut connect(sidecar.address("line")));
    let output = operator.follows("QueuewardenOverloaded", 2);
    assert!(output.contains(held), "{output}");
    let log = sidecar.log_until("a connection was refused: connections_max are open");
    let line = log.iter().find(|line| line.contains("a connection was refused")).unwrap();
    for part in ["\"most_connections\":5", "\"most_peer\":\"127.0.0.1\"", "\"most_dialect\":\"line\"", "\"limit\":5"] {
        assert!(line.contains(part), "{part}: {line}");
    }
}

/// Given a dialplan that sends no action, when the runbook of QueuewardenPeerMisspeaks is followed, then the log names
/// dialect, peer and reason, and `help` explains the reason.
#[test]
fn a_peer_that_misspeaks_is_named_with_the_reason() {
    let (folder, sidecar) = start("");
    let mut peer = connect(sidecar.address("fastagi"));
    peer.write_all(agi_environment("1001", "acme", &[]).as_bytes()).unwrap();
    close_our_side(&peer);
    read_to_end(&mut peer);
    let log = sidecar.log_until("a peer erred");
    let line = log.iter().find(|line| line.contains("a peer erred")).unwrap();
    for part in ["\"dialect\":\"fastagi\"", "\"peer\":\"127.0.0.1:", "\"reason\":\"malformed\""] {
        assert!(line.contains(part), "{part}: {line}");
    }
    let output = Operator { sidecar: &sidecar, folder: &folder }.follows("QueuewardenPeerMisspeaks", 1);
    assert!(output.contains("not in the grammar"), "{output}");
}

/// Every command of every runbook works against a running sidecar, and `queuewarden help ALERT` prints every runbook.
#[test]
fn every_command_of_every_runbook_works() {
    // The link that the runbooks name, to an Asterisk that keeps a member nobody allowed.
    let (folder, asterisk) = (Folder::demo().durable(), ModelAsterisk::with_queues(&["600", "601"]));
    asterisk.add("600", "PJSIP/1002", ModelMember::dynamic(), false);
    folder.link_to_asterisk("pbx-1", asterisk.address, "");
    let sidecar = Sidecar::start(&folder);
    let is_polled = || sidecar.metric("queuewarden_link_last_poll_timestamp_seconds{link=\"pbx-1\"}") > 0.0;
    wait_until("the link", is_polled);
    sidecar.ask("dial org=acme actor=1001 digits=*13602");
    let operator = Operator { sidecar: &sidecar, folder: &folder };
    let rules = |name: &str| fs::read_to_string(project().join("config/prometheus").join(name)).unwrap();
    let rules = rules("alerts.rules.yml") + &rules("nobody-asks.rules.yml");
    let alerts: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() >= 19, "{alerts:?}");
    let mut executed = 0;
    for alert in alerts {
        let help = operator.runs(&format!("queuewarden help {alert}"));
        assert!(help.contains("Look") && help.contains("Do"), "{help}");
        // `sessions end` without a user is no whole command: it names what ends sessions.
        for command in commands(alert).iter().filter(|command| *command != "queuewarden sessions end") {
            operator.runs(command);
            executed += 1;
        }
    }
    assert!(executed >= 30, "{executed} commands were executed");
    let shown = operator.follows("QueuewardenForeignMember", 4);
    assert!(shown.contains("600    1002    foreign"), "{shown}");
}
