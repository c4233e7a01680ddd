//! Given a running policy, when the files on disk are damaged by a disk, an editor or an attacker, then a reload
//! changes nothing, reports the problem, and stays within its bounds of time and memory.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::{Duration, Instant};

use crate::stories::fixtures::ORGANIZATION;
use crate::support::{Folder, Sidecar, run};

const FILE: &str = "organizations/acme.toml";
const LOGIN: &str = "may org=acme actor=1001 action=queue.login queue=q0";
const ALLOWED: &str = "allow action=queue.login queue=600 reason=assigned policy=1";

/// Damages the folder, reloads, and repairs the folder. Panics unless the policy is unchanged and the reload reports a
/// problem with this message.
fn assert_refused(sidecar: &Sidecar, case: &str, message: &str, damage: impl FnOnce(), repair: impl FnOnce()) {
    damage();
    let began = Instant::now();
    let last = sidecar.reload();
    let took = began.elapsed();
    repair();
    assert_eq!(last["successful"], false, "{case}: {last}");
    assert!(last["problems"].to_string().contains(message), "{case}: {message:?} is not in {last}");
    assert_eq!(sidecar.ask(LOGIN), ALLOWED, "{case}");
    assert_eq!(sidecar.metric("queuewarden_policy_last_reload_successful").to_string(), "0", "{case}");
    assert_eq!(sidecar.try_get("/readyz").0, 200, "{case}");
    assert!(took < Duration::from_secs(15), "{case}: {took:?}");
    assert!(sidecar.log_until("the running policy stays").iter().any(|line| line.contains(message)), "{case}");
}

#[test]
fn a_reload_with_anything_in_place_of_a_file_changes_nothing() {
    let folder = Folder::with("acme.toml", ORGANIZATION);
    folder.write("users.csv", "id,extension,roles,queues,supervises,edits\nzoe,7001,,,,\n");
    folder.write(
        FILE,
        &ORGANIZATION.replacen("model = \"goto\"\n", "model = \"goto\"\nusers_csv = \"../users.csv\"\n", 1),
    );
    folder.write("line.token", "a-token-of-16-bytes\n");
    folder.replace("queuewarden.toml", "[listen]\n", "[listen]\nadmin_token_file = \"line.token\"\n");
    let sidecar = Sidecar::start(&folder);
    for file in [FILE, "queuewarden.toml", "models/goto.toml", "users.csv", "line.token"] {
        let path = folder.path().join(file);
        let aside = folder.path().join("aside");
        let replaced = |case: &str, message: &str, put: &dyn Fn()| {
            let damage = || {
                fs::rename(&path, &aside).unwrap();
                put();
            };
            let repair = || {
                if path.is_dir() && !path.is_symlink() {
                    fs::remove_dir(&path).unwrap();
                } else {
                    drop(fs::remove_file(&path));
                }
                fs::rename(&aside, &path).unwrap();
            };
            assert_refused(&sidecar, &format!("{case} for {file}"), message, damage, repair);
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
        let (not_utf8, message) =
            (b"organization = \"\xff\xfe\"\n", if file == "users.csv" { "header" } else { "is not UTF-8" });
        replaced("no UTF-8", message, &|| {
            fs::write(&path, not_utf8).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        });
        // File modes do not restrict root.
        if !rustix::process::getuid().is_root() {
            replaced("no permission", "cannot be read", &|| {
                fs::write(&path, "").unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(0o0)).unwrap();
            });
        }
    }
    // A missing folder, and a file in its place.
    for part in ["organizations", "models"] {
        let (path, aside) = (folder.path().join(part), folder.path().join("aside"));
        let repair = || {
            drop(fs::remove_file(&path));
            fs::rename(&aside, &path).unwrap();
        };
        let gone = || fs::rename(&path, &aside).unwrap();
        assert_refused(&sidecar, part, "cannot be read", gone, repair);
        let file = || {
            fs::rename(&path, &aside).unwrap();
            fs::write(&path, "").unwrap();
        };
        assert_refused(&sidecar, part, "cannot be read", file, repair);
    }
    assert_eq!(sidecar.reload()["successful"], true, "after the repair");
    assert_eq!(sidecar.ask(LOGIN), ALLOWED.replace("policy=1", "policy=2"));
}

/// Files of 16 to 100 MB are refused within a bounded time and with bounded memory.
#[test]
fn a_reload_of_megabytes_of_garbage_changes_nothing() {
    let folder = Folder::with("acme.toml", ORGANIZATION);
    let sidecar = Sidecar::start(&folder);
    let sorts: [(&str, &[u8], usize, &str); 6] = [
        ("100 MB of zeros", b"\0", 100_000_000, "is larger than"),
        ("16 MB of control bytes", b"\x01\x02\x03\x7f", 16_000_000, "not TOML"),
        ("16 MB of equal signs", b"=\n", 16_000_000, "not TOML"),
        ("16 MB of brackets", b"[", 16_000_000, "not TOML"),
        ("16 MB of nested lists", b"a=[[[[", 16_000_000, "not TOML"),
        ("16 MB of one key", b"k", 16_000_000, "not TOML"),
    ];
    for (case, pattern, bytes, message) in sorts {
        let write = || {
            let mut file = fs::File::create(folder.path().join(FILE)).unwrap();
            let chunk: Vec<u8> = pattern.iter().copied().cycle().take(1_000_000).collect();
            for _ in 0..bytes / 1_000_000 {
                file.write_all(&chunk).unwrap();
            }
        };
        assert_refused(&sidecar, case, message, write, || folder.write(FILE, ORGANIZATION));
    }
    let last = sidecar.status();
    assert!(last.to_string().len() < 1_000_000, "the cited text is bounded");
    let resident = sidecar.metric("process_resident_memory_bytes");
    assert!(resident < 1_500_000_000.0, "{resident} bytes");
}

/// For every byte of the organization file: one bit flipped, the byte removed, the file cut there. Each variant either
/// loads as a whole or is refused with a problem.
#[test]
fn a_reload_with_any_byte_altered_loads_whole_or_changes_nothing() {
    let folder = Folder::with("acme.toml", ORGANIZATION);
    let (mut loads, mut refusals) = (0, 0);
    let before = queuewarden::config::load(folder.path(), &queuewarden::policy::Policy::default()).unwrap().policy;
    let bytes = ORGANIZATION.as_bytes();
    for folder_path in 0..bytes.len() {
        let mut flipped = bytes.to_vec();
        flipped[folder_path] ^= 1 << (folder_path % 8);
        let mut removed = bytes.to_vec();
        removed.remove(folder_path);
        for assert_refused in [flipped, removed, bytes[..folder_path].to_vec()] {
            fs::write(folder.path().join(FILE), &assert_refused).unwrap();
            match queuewarden::config::load(folder.path(), &before) {
                Ok(loaded) => {
                    assert_eq!(loaded.policy.revision, before.revision + 1);
                    loads += 1;
                }
                Err(problems) => {
                    assert!(!problems.is_empty(), "a refusal has a problem");
                    assert!(problems.problems.iter().all(|problem| problem.message.len() < 2_000));
                    refusals += 1;
                }
            }
        }
    }
    // Some variants are valid: another digit, a space less, a changed comment.
    assert!(refusals > loads && loads > 0, "{refusals} refused, {loads} loaded");
}

/// A user who can write the configuration can change every grant, so `check` warns about a world-writable file.
#[test]
fn a_world_writable_configuration_is_warned_about() {
    let folder = Folder::with("acme.toml", ORGANIZATION);
    let folder_path = folder.path().to_str().unwrap();
    for file in [FILE, "queuewarden.toml", "models/goto.toml", "models", "organizations"] {
        let path = folder.path().join(file);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode | 0o002)).unwrap();
        let (status, output) = run(&["check", "--config", folder_path]);
        assert_eq!(status.code(), Some(0), "{output}");
        let warned = format!("warning: {}: may be written by everybody", path.display());
        assert!(output.contains(&warned) && output.contains("chmod o-w"), "{output}");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        assert!(!run(&["check", "--config", folder_path]).1.contains("everybody"));
    }
}
