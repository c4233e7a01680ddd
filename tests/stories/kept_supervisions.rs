//! Given a supervision that runs, when the sidecar restarts, then the supervision is still known and still counts,
//! until its end is reported, or nothing shows within 30 s that it goes on (TRUTH 5). The 30 s are in
//! `tests/properties/history.rs`.

use serde_json::Value;

use crate::stories::fixtures::ORGANIZATION;
use crate::support::{Folder, Sidecar};

const LISTEN: &str = "do org=acme actor=2001 action=call.listen target=1001 queue=600 call=c-1";

fn folder(limit: usize) -> Folder {
    let text = format!("{ORGANIZATION}\n[limits]\nsupervisions_per_supervisor_max = {limit}\n");
    Folder::with("acme.toml", &text).durable()
}

fn supervisions(sidecar: &Sidecar) -> Vec<Value> {
    let listing: Value = serde_json::from_str(&sidecar.get("/supervisions")).unwrap();
    listing["rows"].as_array().unwrap().clone()
}

fn started_again(sidecar: Sidecar, folder: &Folder) -> Sidecar {
    assert!(sidecar.terminate().success());
    Sidecar::start(folder)
}

#[test]
fn a_supervision_is_known_after_a_restart_and_its_end_can_be_reported() {
    let folder = folder(1);
    let sidecar = Sidecar::start(&folder);
    assert!(sidecar.ask(LISTEN).starts_with("allow "));
    let before = supervisions(&sidecar);
    let sidecar = started_again(sidecar, &folder);
    assert_eq!(supervisions(&sidecar), before);
    let other = "do org=acme actor=2001 action=call.listen target=1002 queue=600 call=c-2";
    assert!(sidecar.ask(other).contains("reason=supervisor_supervisions_at_limit"));
    assert!(sidecar.ask(LISTEN).starts_with("allow "), "the dialplan asks again");
    assert!(sidecar.ask("do org=acme actor=2001 action=supervision.end target=1001").contains("reason=reported"));
    let sidecar = started_again(sidecar, &folder);
    assert_eq!(supervisions(&sidecar), [Value::Null; 0]);
    assert!(sidecar.ask(other).starts_with("allow "));
}

#[test]
fn a_supervision_that_the_policy_no_longer_permits_is_not_kept() {
    let folder = folder(2);
    let sidecar = Sidecar::start(&folder);
    assert!(sidecar.ask(LISTEN).starts_with("allow "));
    assert!(sidecar.terminate().success());
    folder.replace("organizations/acme.toml", "id = \"agent\"\n", "id = \"agent\"\nprotected = true\n");
    let sidecar = Sidecar::start(&folder);
    assert_eq!(supervisions(&sidecar), [Value::Null; 0]);
    assert!(sidecar.terminate().success());
    folder.replace("organizations/acme.toml", "id = \"agent\"\nprotected = true\n", "id = \"agent\"\n");
    assert_eq!(supervisions(&Sidecar::start(&folder)), [Value::Null; 0], "it is gone from the store too");
}
