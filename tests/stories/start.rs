//! Given a fresh checkout, when the shipped configuration is started, then the program prints its addresses, and the
//! printed example command works unchanged.

use std::process::Command;

use crate::support::{Folder, Sidecar, project, run};

#[test]
fn the_shipped_configuration_loads_without_a_warning() {
    let shipped = project().join("config");
    let shipped = shipped.to_str().unwrap();
    let (status, text) = run(&["check", "--config", shipped]);
    // Notes say who may ask; anything else is a warning.
    let others = text.lines().filter(|line| !line.starts_with("note: ")).count();
    assert_eq!((status.code(), others), (Some(0), 1), "{text}");
    let (status, json) = run(&["check", "--json", "--config", shipped]);
    let report: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(status.code(), Some(0));
    assert_eq!(&report["loads"], &serde_json::Value::from(true), "{report}");
    // Two or three queues, agents, a supervisor, a contact admin, and a plain PBX user.
    assert!((2..=3).contains(&report["queues"].as_u64().unwrap()), "{report}");
    assert!(report["users"].as_u64().unwrap() >= 5, "{report}");
}

#[test]
fn the_printed_command_works() {
    let sidecar = Sidecar::start(&Folder::demo());
    let banner = sidecar.banner.join("\n");
    for listener in ["line", "line_unix", "fastagi", "admin", "admin_unix"] {
        assert!(banner.contains(&format!("listening {listener} ")), "{banner}");
    }
    let line = sidecar.banner.last().unwrap().strip_prefix("try it:").expect("the last line").trim();
    let output = Command::new("bash").args(["-c", line]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.starts_with("1 allow "), "{line}\n{text}");
}
