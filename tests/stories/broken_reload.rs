//! Given a running policy, when the files on disk are broken in any way that a disk, an editor or an attacker can
//! break them, then a reload changes nothing, reports the reason, and stays within its bounds of time and memory.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::{Duration, Instant};

use crate::stories::fixtures::ORGANIZATION;
use crate::support::{Folder, Sidecar, run};

const FILE: &str = "organizations/acme.toml";
const LOGIN: &str = "may org=acme actor=1001 action=queue.login queue=q0";
const ALLOWED: &str = "allow action=queue.login queue=600 reason=assigned policy=1";

/// Breaks the folder, reloads, and repairs it: nothing has changed, and a problem with this text was reported.
fn broken(sidecar: &Sidecar, what: &str, says: &str, break_it: impl FnOnce(), mend: impl FnOnce()) {
    break_it();
    let began = Instant::now();
    let last = sidecar.reload();
    let took = began.elapsed();
    mend();
    assert_eq!(last["successful"], false, "{what}: {last}");
    assert!(last["problems"].to_string().contains(says), "{what} does not say {says:?}: {last}");
    assert_eq!(sidecar.ask(LOGIN), ALLOWED, "{what}");
    assert_eq!(sidecar.metric("queuewarden_policy_last_reload_successful").to_string(), "0", "{what}");
    assert_eq!(sidecar.try_get("/readyz").0, 200, "{what}");
    assert!(took < Duration::from_secs(15), "{what}: {took:?}");
    assert!(sidecar.log_until("the running policy stays").iter().any(|line| line.contains(says)), "{what}");
}

#[test]
fn a_reload_with_anything_in_place_of_a_file_changes_nothing() {
    let folder = Folder::with("acme.toml", ORGANIZATION);
    folder.write("users.csv", "id,extension,roles,queues,supervises,edits\nzoe,7001,,,,\n");
    folder.write(
        FILE,
        &ORGANIZATION.replacen("model = \"goto\"\n", "model = \"goto\"\nusers_csv = \"../users.csv\"\n", 1),
    );
    folder.write("line.token", "token\n");
    folder.replace("queuewarden.toml", "[listen]\n", "[listen]\nadmin_token_file = \"line.token\"\n");
    let sidecar = Sidecar::start(&folder);
    for file in [FILE, "queuewarden.toml", "models/goto.toml", "users.csv", "line.token"] {
        let path = folder.path().join(file);
        let aside = folder.path().join("aside");
        let replaced = |what: &str, says: &str, put: &dyn Fn()| {
            let break_it = || {
                fs::rename(&path, &aside).unwrap();
                put();
            };
            let mend = || {
                if path.is_dir() && !path.is_symlink() {
                    fs::remove_dir(&path).unwrap();
                } else {
                    drop(fs::remove_file(&path));
                }
                fs::rename(&aside, &path).unwrap();
            };
            broken(&sidecar, &format!("{what} for {file}"), says, break_it, mend);
        };
        if file != FILE {
            replaced("nothing", if file == "models/goto.toml" { "no model" } else { "cannot be read" }, &|| {});
        }
        replaced("a folder", "is not a file", &|| fs::create_dir(&path).unwrap());
        replaced("a loop", "Too many levels", &|| symlink(&path, &path).unwrap());
        replaced("a device", "is not a file", &|| symlink("/dev/zero", &path).unwrap());
        replaced("a FIFO", "is not a file", &|| {
            let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
            assert!(made.success());
        });
        let (not_utf8, says) =
            (b"organization = \"\xff\xfe\"\n", if file == "users.csv" { "header" } else { "is not UTF-8" });
        replaced("no UTF-8", says, &|| fs::write(&path, not_utf8).unwrap());
        // root may read everything.
        if !rustix::process::getuid().is_root() {
            replaced("no permission", "cannot be read", &|| {
                fs::write(&path, "").unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(0o0)).unwrap();
            });
        }
    }
    // A missing folder, or a file in its place.
    for part in ["organizations", "models"] {
        let (path, aside) = (folder.path().join(part), folder.path().join("aside"));
        let mend = || {
            drop(fs::remove_file(&path));
            fs::rename(&aside, &path).unwrap();
        };
        let gone = || fs::rename(&path, &aside).unwrap();
        broken(&sidecar, part, "cannot be read", gone, mend);
        let file = || {
            fs::rename(&path, &aside).unwrap();
            fs::write(&path, "").unwrap();
        };
        broken(&sidecar, part, "cannot be read", file, mend);
    }
    assert_eq!(sidecar.reload()["successful"], true, "mended");
    assert_eq!(sidecar.ask(LOGIN), ALLOWED.replace("policy=1", "policy=2"));
}

/// Megabytes of garbage of several sorts; each is refused in bounded time, and the memory for it is given back.
#[test]
fn a_reload_of_megabytes_of_garbage_changes_nothing() {
    let folder = Folder::with("acme.toml", ORGANIZATION);
    let sidecar = Sidecar::start(&folder);
    let sorts: [(&str, &[u8], usize, &str); 6] = [
        ("100 MB of zeros", b"\0", 100_000_000, "is larger than"),
        ("nearly what a file may have, of control bytes", b"\x01\x02\x03\x7f", 16_000_000, "not TOML"),
        ("of equal signs", b"=\n", 16_000_000, "not TOML"),
        ("of brackets", b"[", 16_000_000, "not TOML"),
        ("of nested lists", b"a=[[[[", 16_000_000, "not TOML"),
        ("of one long key", b"k", 16_000_000, "not TOML"),
    ];
    for (what, pattern, bytes, says) in sorts {
        let write = || {
            let mut file = fs::File::create(folder.path().join(FILE)).unwrap();
            let chunk: Vec<u8> = pattern.iter().copied().cycle().take(1_000_000).collect();
            for _ in 0..bytes / 1_000_000 {
                file.write_all(&chunk).unwrap();
            }
        };
        broken(&sidecar, what, says, write, || folder.write(FILE, ORGANIZATION));
    }
    let last = sidecar.status();
    assert!(last.to_string().len() < 1_000_000, "what was wrong is cited in bounds");
    let resident = sidecar.metric("process_resident_memory_bytes");
    assert!(resident < 1_500_000_000.0, "{resident} bytes");
}

/// Every byte of the organization's file flipped, taken out, or the last: each either loads whole or changes nothing.
#[test]
fn a_reload_with_any_byte_altered_loads_whole_or_changes_nothing() {
    let folder = Folder::with("acme.toml", ORGANIZATION);
    let (mut loads, mut refusals) = (0, 0);
    let before = queuewarden::config::load(folder.path(), &queuewarden::policy::Policy::default()).unwrap().policy;
    let bytes = ORGANIZATION.as_bytes();
    for at in 0..bytes.len() {
        let mut flipped = bytes.to_vec();
        flipped[at] ^= 1 << (at % 8);
        let mut removed = bytes.to_vec();
        removed.remove(at);
        for broken in [flipped, removed, bytes[..at].to_vec()] {
            fs::write(folder.path().join(FILE), &broken).unwrap();
            match queuewarden::config::load(folder.path(), &before) {
                Ok(loaded) => {
                    assert_eq!(loaded.policy.revision, before.revision + 1);
                    loads += 1;
                }
                Err(problems) => {
                    assert!(!problems.is_empty(), "it says why");
                    assert!(problems.problems.iter().all(|problem| problem.message.len() < 2_000));
                    refusals += 1;
                }
            }
        }
    }
    // A space more or less, a digit for another, a comment: these are other configurations, not broken ones.
    assert!(refusals > loads && loads > 0, "{refusals} refused, {loads} loaded");
}

/// Who may write the configuration may change every right, so a world-writable file is warned about.
#[test]
fn a_world_writable_configuration_is_warned_about() {
    let folder = Folder::with("acme.toml", ORGANIZATION);
    let at = folder.path().to_str().unwrap();
    for file in [FILE, "queuewarden.toml", "models/goto.toml", "models", "organizations"] {
        let path = folder.path().join(file);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode | 0o002)).unwrap();
        let (status, said) = run(&["check", "--config", at]);
        assert_eq!(status.code(), Some(0), "{said}");
        let warned = format!("warning: {}: may be written by everybody", path.display());
        assert!(said.contains(&warned) && said.contains("chmod o-w"), "{said}");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        assert!(!run(&["check", "--config", at]).1.contains("everybody"));
    }
}
