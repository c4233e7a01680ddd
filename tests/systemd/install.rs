//! The text of config/systemd/README.md installs a service that runs (FIELD C1).
//!
//! The commands of the page run as they are, with every absolute path moved into a temporary root. Then the test does
//! what systemd does with the shipped units: it binds the sockets of the socket unit, makes the `StateDirectory=`, and
//! runs `ExecStart=` with `Environment=` as an unprivileged user who can write nothing else.

use std::fs;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use super::{unit, value, values};
use crate::support::service_manager::{Manager, Sockets};
use crate::support::{Sidecar, project};

/// The user and group of the service, `nobody`: systemd's `DynamicUser=` has no name either.
const SERVICE_USER: u32 = 65_534;

/// Absolute paths of the page and the units that are moved into the temporary root.
const MOVED: [&str; 5] = ["/usr/local/", "/etc/", "/var/lib/", "/run/queuewarden", "/run/credentials"];

/// A root folder into which the page installed.
struct Installed {
    root: tempfile::TempDir,
    /// The sockets of the socket unit, which outlive the service.
    sockets: Sockets,
    manager: Manager,
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// The text with every absolute path below `root`.
fn moved(text: &str, root: &Path) -> String {
    MOVED.iter().fold(text.to_owned(), |text, path| text.replace(path, &format!("{}{path}", root.display())))
}

/// The scripts of the chapter "Install", in the order of the page.
fn scripts() -> Vec<String> {
    let page = fs::read_to_string(project().join("config/systemd/README.md")).unwrap();
    let chapter = page.split("\n## ").find_map(|chapter| chapter.strip_prefix("Install\n")).unwrap();
    let scripts: Vec<String> =
        chapter.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect();
    assert_eq!(scripts.len(), 2, "the service, then completion and manual pages");
    scripts
}

/// Runs a script of the page in the checkout, by a user with a strict umask. `systemctl` is a stand-in that writes down
/// its arguments.
fn run_script(script: &str, root: &Path) {
    let script = moved(script, root).replace("target/release/queuewarden", env!("CARGO_BIN_EXE_queuewarden"));
    let path =
        format!("{}/stand-in:{}/usr/local/bin:{}", root.display(), root.display(), std::env::var("PATH").unwrap());
    let mut shell = Command::new("sh");
    shell.args(["-e", "-c", &format!("umask 0077\n{script}")]).current_dir(project()).env("PATH", path);
    let output = shell.output().unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{script}\n{text}");
}

impl Installed {
    /// Runs the commands of the page, after `edited` changed them, then binds the sockets as systemd does.
    fn new(edited: impl Fn(&str) -> String) -> Self {
        let root = tempfile::tempdir().unwrap();
        let below = |path: &str| root.path().join(path);
        set_mode(root.path(), 0o755);
        for folder in ["usr/local/bin", "etc/systemd/system", "etc/bash_completion.d", "var/lib", "run", "stand-in"] {
            fs::create_dir_all(below(folder)).unwrap();
        }
        let stand_in = format!("#!/bin/sh\necho \"$*\" >> {}\n", below("systemctl.log").display());
        fs::write(below("stand-in/systemctl"), stand_in).unwrap();
        set_mode(&below("stand-in/systemctl"), 0o755);
        for script in scripts() {
            run_script(&edited(&script), root.path());
        }
        let called = fs::read_to_string(below("systemctl.log")).unwrap();
        assert_eq!(called, "daemon-reload\nenable --now queuewarden.socket queuewarden.service\n");
        for installed in ["queuewarden.service", "queuewarden.socket"] {
            assert_eq!(fs::read_to_string(below("etc/systemd/system").join(installed)).unwrap(), unit(installed));
        }
        for page in ["man1/queuewarden.1", "man1/queuewarden-check.1"] {
            assert!(below("usr/local/share/man").join(page).is_file(), "{page}");
        }
        assert!(fs::metadata(below("etc/bash_completion.d/queuewarden")).unwrap().len() > 1_000);
        let sockets = bind_sockets(root.path());
        let manager = Manager::at(&below("notify"));
        set_mode(&below("notify"), 0o777);
        make_read_only(root.path());
        Self { root, sockets, manager }
    }

    /// Runs the command line of the service unit as its user.
    fn start(&self) -> Result<Sidecar, String> {
        let service = unit("queuewarden.service");
        let line = moved(value(&service, "ExecStart"), self.root.path());
        let ids = [format!("--reuid={SERVICE_USER}"), format!("--regid={SERVICE_USER}")];
        let mut words = vec![];
        if rustix::process::getuid().is_root() {
            words.extend(["setpriv", &ids[0], &ids[1], "--clear-groups", "--no-new-privs", "--inh-caps=-all"]);
            words.push("--bounding-set=-all");
        }
        words.extend(line.split(' '));
        let mut command = self.sockets.command_of(&words);
        for pair in values(&service, "Environment").into_iter().flat_map(|pairs| pairs.split(' ')) {
            let (name, text) = pair.split_once('=').unwrap();
            command.env(name, text);
        }
        command.env("NOTIFY_SOCKET", self.root.path().join("notify")).env("WATCHDOG_USEC", "10000000");
        // systemd starts a service in `/`, so a relative path of the command line would not be found.
        command.current_dir("/");
        Sidecar::try_start_as(command).map_err(|(status, output)| format!("{status}: {output}"))
    }
}

/// Binds every socket of the socket unit. Ports are free ones, which the configuration gets as well.
fn bind_sockets(root: &Path) -> Sockets {
    let socket = unit("queuewarden.socket");
    let configuration = root.join("etc/queuewarden/queuewarden.toml");
    let mut text = fs::read_to_string(&configuration).unwrap();
    let folder = root.join("run/queuewarden");
    fs::create_dir(&folder).unwrap();
    set_mode(&folder, u32::from_str_radix(value(&socket, "DirectoryMode"), 8).unwrap());
    let mut bound: Vec<(&str, OwnedFd)> = vec![];
    for address in values(&socket, "ListenStream") {
        let fd = if address.starts_with('/') {
            let path = moved(address, root);
            assert!(text.contains(&format!("\"{path}\"")), "{path} is not in {text}");
            let listener = UnixListener::bind(&path).unwrap();
            set_mode(Path::new(&path), u32::from_str_radix(value(&socket, "SocketMode"), 8).unwrap());
            listener.into()
        } else {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let quoted = format!("\"{address}\"");
            assert!(text.contains(&quoted), "{address} is not in {text}");
            text = text.replace(&quoted, &format!("\"{}\"", listener.local_addr().unwrap()));
            listener.into()
        };
        bound.push(("queuewarden.socket", fd));
    }
    fs::write(configuration, text).unwrap();
    Sockets::new(bound)
}

/// Makes the state directory of the service, and lets its user write nothing else: `ProtectSystem=strict`.
fn make_read_only(root: &Path) {
    let service = unit("queuewarden.service");
    let state = root.join("var/lib").join(value(&service, "StateDirectory"));
    fs::create_dir(&state).unwrap();
    set_mode(&state, u32::from_str_radix(value(&service, "StateDirectoryMode"), 8).unwrap());
    if rustix::process::getuid().is_root() {
        chown(&state, Some(SERVICE_USER), Some(SERVICE_USER)).unwrap();
    }
    // For a test that is not run by root, and so owns these folders. The modes of the files are the page's.
    for folder in ["etc/queuewarden", "etc/queuewarden/organizations", "etc/queuewarden/models", "var/lib", "run"] {
        let path = root.join(folder);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        set_mode(&path, mode & !0o222);
    }
}

impl Drop for Installed {
    /// Makes the folders writable, so that they can be removed.
    fn drop(&mut self) {
        for folder in ["etc/queuewarden", "etc/queuewarden/organizations", "etc/queuewarden/models", "var/lib", "run"] {
            set_mode(&self.root.path().join(folder), 0o755);
        }
    }
}

/// FIELD C1. Given the commands of the page, when the service starts, is reloaded and is restarted as its user, then it
/// answers on the sockets of the socket unit, writes sessions and audit log into its state directory only, and keeps
/// the sessions.
#[test]
fn the_text_installs_a_service_that_runs() {
    let installed = Installed::new(str::to_owned);
    let root = installed.root.path();
    let mut sidecar = installed.start().unwrap_or_else(|output| panic!("{output}"));
    installed.manager.receive("READY=1");
    let status = sidecar.status();
    let state = root.join("var/lib/queuewarden");
    assert_eq!(status["state"]["folder"], state.to_str().unwrap(), "{status}");
    assert_eq!(status["audit"]["folder"], state.join("audit").to_str().unwrap(), "{status}");
    assert_eq!(sidecar.get("/readyz"), "ok\n");
    let allowed = "allow action=queue.login queue=600 reason=assigned";
    let answer = sidecar.unix_line().ask("do org=acme actor=1001 action=queue.login queue=600");
    assert!(answer.starts_with(allowed), "{answer}");
    let written: Vec<_> = fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    for name in ["lock", "sessions.redb", "audit"] {
        assert!(written.iter().any(|written| written == name), "{name}: {written:?}");
    }
    let audit = fs::read_dir(state.join("audit")).unwrap().map(|entry| entry.unwrap().path());
    let audit: String = audit.filter_map(|path| fs::read_to_string(path).ok()).collect();
    assert!(audit.contains("\"queue.login\""), "{audit}");

    // ExecReload= sends SIGHUP.
    sidecar.signal("HUP");
    installed.manager.receive("RELOADING=1");
    installed.manager.receive("READY=1");
    assert_eq!(sidecar.status()["last_reload"]["successful"], true);

    sidecar.signal("TERM");
    assert_eq!(sidecar.wait().code(), Some(0));
    let mut again = installed.start().unwrap_or_else(|output| panic!("the second start: {output}"));
    assert_eq!(again.status()["state"]["healthy"], true);
    let answer = again.unix_line().ask("do org=acme actor=1001 action=queue.logout queue=600");
    assert!(answer.starts_with("allow action=queue.logout queue=600"), "the session survived: {answer}");
    again.signal("TERM");
    assert_eq!(again.wait().code(), Some(0));
}

/// The mistakes that the page once had: with them the service does not start, so the test above notices them.
#[test]
fn a_folder_outside_of_the_state_directory_is_noticed() {
    let relative = Installed::new(|script| {
        script.replace("s|\"state|\"/var/lib/queuewarden|", "s|\"state\"|\"/var/lib/queuewarden\"|")
    });
    let Err(output) = relative.start() else { panic!("the audit log is in the folder of the configuration") };
    assert!(output.starts_with("exit status: 1"), "{output}");
    let unreadable = Installed::new(|script| script.replace("chmod -R a+rX /etc/queuewarden && ", ""));
    // Only another user than the one who installed cannot read the files.
    if rustix::process::getuid().is_root() {
        let Err(output) = unreadable.start() else { panic!("the service reads files of root") };
        assert!(output.starts_with("exit status: 78"), "{output}");
    }
}
