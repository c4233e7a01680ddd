//! Given a configuration that sets every key, when it is loaded, then every key is accepted and every listener
//! listens.

use crate::support::{Folder, Sidecar, run};

/// The examples of DESIGN.md section 6, with free ports.
const PROCESS: &str = r#"
[listen]
line = "127.0.0.1:0"
line_unix = "run/line.sock"
fastagi = "127.0.0.1:0"
freeswitch = "127.0.0.1:0"
kamailio = "127.0.0.1:0"
admin = "127.0.0.1:0"
admin_unix = "run/admin.sock"

[state]
store = "disk"                       # disk | memory
folder = "state"                     # relative to the configuration folder

[audit]
enabled = true
folder = "state/audit"
rotation_max_bytes = 67_108_864
rotation_max_seconds = 86_400
retention_max_seconds = 7_776_000
retention_max_bytes = 10_737_418_240
record_retention_max_seconds = 31_536_000
record_retention_max_bytes = 1_073_741_824
witness = "file:kept"
witness_interval_seconds = 60
plain_allows_one_in = 10
plain_allows_per_second = 500

[limits]                             # units in the names, hard maxima in limits.rs
connections_max = 10_000

[connect]
evapi = ["127.0.0.1:8448"]
"#;

const ORGANIZATION: &str = r#"
organization = "acme"
model = "goto"                       # config/models/goto.toml
feature_code_preset = "goto"

[feature_codes]                      # adds to the preset, or overrides it
"*14" = "queue.logout"
"*221" = "call.listen"

[settings]                           # names and defaults come from the model
allow_unassigned_login = false       # true: agents and users may log in to queues they are not assigned to

[settings.supervisor]
access_configuration_portal = true
limit_to_assigned_queues = true
view_queue_settings = true
manage_queue_settings = false
view_pause_reasons = true
manage_pause_reasons = true
view_skills = true
manage_skills = true
supervise_peers = true
supervise_outside_queues = true

[settings.agent]
manage_prerecorded_messages = true
manage_public_prewritten_messages = true
create_custom_tags = true
enable_dispositions = true

[settings.contact_admin]
may_supervise = true

[leases]                             # a supervisor's login of somebody else
default_seconds = 0                  # 0: until logout
max_seconds = 43_200

[logins]                             # of one's own
idle_max_seconds = 36_000

[limits]                             # absent: only the hard maximum of limits.rs
logins_per_user_max = 20
logins_per_queue_max = 100
logins_max = 1_000
supervisions_per_target_max = 1
supervisions_per_supervisor_max = 1

[[queues]]
id = "support"
number = "600"
kind = "call"                        # call | ring_group | inbox | campaign
wrap_up_seconds = 30
callback = false                     # a Voximplant callback queue

[[shifts]]                           # a queue without one is always open
queue = "support"
days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
from = "00:00"
to = "24:00"
time_zone = "Europe/Berlin"
applies = "session"                  # login | session

[[groups]]
id = "north"
supervisors = ["dana"]
members = ["alice"]
outbound = false                     # optional; unset: the organization's setting decides

[[users]]
id = "alice"
extension = "1001"
roles = ["agent"]                    # none: a plain PBX user
queues = ["support"]                 # assigned to serve
protected = false                    # true: nobody may supervise this user

[[users]]
id = "dana"
extension = "2001"
roles = ["supervisor"]
supervises = ["support"]
edits = ["support"]                  # the editor flag, a subset of supervises
"#;

#[test]
fn every_key_is_accepted() {
    let folder = Folder::with("acme.toml", ORGANIZATION);
    folder.write("queuewarden.toml", PROCESS);
    let path = folder.path().to_str().unwrap();
    let (status, text) = run(&["check", "--config", path]);
    assert_eq!(status.code(), Some(0), "{text}");
    let sidecar = Sidecar::start(&folder);
    assert_eq!(
        sidecar.ask("dial org=acme actor=1001 digits=*13"),
        "allow action=queue.login queues=600 reason=assigned policy=1"
    );
    let listeners = sidecar.status()["listeners"].to_string();
    for name in ["line", "line_unix", "fastagi", "freeswitch", "kamailio", "admin", "admin_unix"] {
        assert!(listeners.contains(&format!("\"name\":\"{name}\"")), "{name}: {listeners}");
    }
}

#[test]
fn an_absent_listener_is_off_except_the_three_defaults() {
    let folder = Folder::with("acme.toml", ORGANIZATION);
    folder.write("queuewarden.toml", "[listen]\nline = \"127.0.0.1:0\"\nfastagi = \"off\"\nadmin = \"127.0.0.1:0\"\n");
    let sidecar = Sidecar::start(&folder);
    let names: Vec<String> = sidecar.status()["listeners"]
        .as_array()
        .unwrap()
        .iter()
        .map(|listener| listener["name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["line", "admin"]);
    assert_eq!(sidecar.ask("ping"), "pong");
}
