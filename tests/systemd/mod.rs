//! `systemd-analyze` accepts the units in `config/systemd`, and the units fit the limits in the code.
//!
//! `tests/run` provides `systemd-analyze` and sets `QUEUEWARDEN_SYSTEMD_ANALYZE`. With this variable a missing program
//! fails the tests. Without it the tests search `PATH`; if the program is not there, they print a message and pass.

mod install;

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::support::{Folder, project, run};
use queuewarden::limits;

/// Greatest exposure of the service, in the points of `systemd-analyze security`.
const EXPOSURE_MAX: f64 = 2.0;

fn unit(name: &str) -> String {
    fs::read_to_string(project().join("config/systemd").join(name)).unwrap()
}

/// The values of a key of a unit, in the order of the unit.
fn values<'u>(unit: &'u str, key: &str) -> Vec<&'u str> {
    unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect()
}

/// The value of a key that occurs once.
fn value<'u>(unit: &'u str, key: &str) -> &'u str {
    let values = values(unit, key);
    assert_eq!(values.len(), 1, "{key}: {values:?}");
    values[0]
}

/// The path of `systemd-analyze`: from the environment variable or in `PATH`. `None`: it is not installed.
fn analyzer() -> Option<PathBuf> {
    if let Some(named) = env::var_os("QUEUEWARDEN_SYSTEMD_ANALYZE") {
        return Some(PathBuf::from(named));
    }
    let found = Command::new("systemd-analyze").arg("--version").output().is_ok_and(|output| output.status.success());
    if !found {
        eprintln!("systemd-analyze is not installed: nothing was checked (tests/run fetches it)");
    }
    found.then(|| PathBuf::from("systemd-analyze"))
}

/// Runs `systemd-analyze` on the units as they would be installed. Returns whether it succeeded, and its output.
fn analyze(analyzer: &PathBuf, arguments: &[&str], service: &str) -> (bool, String) {
    let folder = tempfile::tempdir().unwrap();
    let service = service.replace("/usr/local/bin/queuewarden", env!("CARGO_BIN_EXE_queuewarden"));
    let paths =
        [("queuewarden.service", service), ("queuewarden.socket", unit("queuewarden.socket"))].map(|(name, text)| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            path
        });
    let paths = if arguments[0] == "security" { &paths[..1] } else { &paths[..] };
    let output = Command::new(analyzer).args(arguments).args(paths).env("SYSTEMD_COLORS", "0").output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

fn exposure(analyzer: &PathBuf, service: &str) -> f64 {
    let (passed, output) = analyze(analyzer, &["security", "--offline=true", "--no-pager"], service);
    assert!(passed, "{output}");
    let overall = output.lines().find_map(|line| line.split("Overall exposure level for queuewarden.service:").nth(1));
    overall.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or_else(|| panic!("{output}"))
}

#[test]
fn systemd_accepts_the_units() {
    let Some(analyzer) = analyzer() else { return };
    let (passed, output) = analyze(&analyzer, &["verify", "--man=no"], &unit("queuewarden.service"));
    // The output may also have lines about other units of the machine.
    let ours: Vec<&str> = output.lines().filter(|line| line.contains("queuewarden")).collect();
    assert!(passed && ours.is_empty(), "{output}");
    let broken = unit("queuewarden.service").replace("WatchdogSec=", "WatchDogSec=");
    let (_, output) = analyze(&analyzer, &["verify", "--man=no"], &broken);
    assert!(output.contains("WatchDogSec"), "a misspelled key is reported: {output}");
}

#[test]
fn the_service_stays_below_the_exposure_limit() {
    let Some(analyzer) = analyzer() else { return };
    let service = unit("queuewarden.service");
    let exposed = exposure(&analyzer, &service);
    assert!(exposed <= EXPOSURE_MAX, "{exposed}");
    let readme = fs::read_to_string(project().join("config/systemd/README.md")).unwrap();
    let rating = format!("`systemd-analyze security` rates it {exposed:.1}");
    assert!(readme.contains(&rating), "{rating:?} is not in config/systemd/README.md");
    let bare: String =
        service.lines().filter(|line| !line.contains("Protect")).map(|line| format!("{line}\n")).collect();
    assert!(exposure(&analyzer, &bare) > exposed, "without the `Protect` keys the exposure rises");
}

/// The configuration that config/systemd/README.md installs.
fn installed() -> Folder {
    let folder = Folder::demo();
    let readme = fs::read_to_string(project().join("config/systemd/README.md")).unwrap();
    let script = readme
        .lines()
        .find_map(|line| line.strip_prefix("sed -i ")?.strip_suffix(" /etc/queuewarden/queuewarden.toml"));
    fs::copy(project().join("config/queuewarden.toml"), folder.path().join("queuewarden.toml")).unwrap();
    let command = format!(
        "sed -i {} {}",
        script.expect("README edits the file"),
        folder.path().join("queuewarden.toml").display()
    );
    assert!(Command::new("sh").args(["-c", &command]).status().unwrap().success(), "{command}");
    folder
}

#[test]
fn the_sockets_of_the_unit_are_those_of_the_configuration_that_the_page_installs() {
    let settings = queuewarden::config::load_process(installed().path()).unwrap();
    let listen = &settings.listen;
    let addresses = listen.dialects.iter().filter_map(|(_, _, address)| *address).chain(listen.admin);
    let paths = [&listen.line_unix, &listen.admin_unix].into_iter().flatten().map(|path| path.display().to_string());
    let configured: BTreeSet<String> = addresses.map(|address| address.to_string()).chain(paths).collect();
    let socket = unit("queuewarden.socket");
    let listened: BTreeSet<String> = values(&socket, "ListenStream").into_iter().map(str::to_owned).collect();
    assert_eq!(listened, configured);
    for port in [4574, 4575] {
        assert!(socket.contains(&format!("\n#ListenStream=127.0.0.1:{port}\n")), "{port}");
    }
    assert_eq!(value(&socket, "Backlog"), limits::LISTEN_BACKLOG.to_string());
    let service = unit("queuewarden.service");
    let state = format!("/var/lib/{}", value(&service, "StateDirectory"));
    assert_eq!(settings.state.folder, PathBuf::from(&state));
    assert_eq!(settings.audit.unwrap().log.folder, PathBuf::from(state).join("audit"));
    let (status, output) = run(&["--config", installed().path().to_str().unwrap(), "check"]);
    assert!(status.success(), "{output}");
}

#[test]
fn the_timeouts_and_limits_of_the_unit_exceed_those_of_the_code() {
    let service = unit("queuewarden.service");
    let seconds = |key: &str| Duration::from_secs(value(&service, key).parse().unwrap());
    // The drain delay, the connections, the admin listener, and the last commit.
    let longest =
        Duration::from_secs(limits::DRAIN_DELAY_SECONDS_MAX) + 2 * limits::DRAIN_TIMEOUT + limits::COMMIT_TIMEOUT;
    assert!(seconds("TimeoutStopSec") > longest, "systemd waits for the whole drain");
    assert!(
        seconds("WatchdogSec") > limits::SELF_TEST_AGE_MAX && seconds("WatchdogSec") > 4 * limits::SELF_TEST_INTERVAL
    );
    let descriptors: usize = value(&service, "LimitNOFILE").parse().unwrap();
    assert!(descriptors > limits::CONNECTIONS_MAX + 128);
    assert_eq!(value(&service, "RestartPreventExitStatus"), "2 78");
    assert_eq!(value(&service, "ExecReload"), "/bin/kill -HUP $MAINPID");
    assert_eq!(value(&service, "Type"), "notify");
}
