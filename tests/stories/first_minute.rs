//! Given a fresh checkout, when the demo is started and asked, then the answers are those of README.

use crate::support::{Folder, Sidecar};

#[test]
fn the_demo_answers_the_questions_of_the_readme() {
    let sidecar = Sidecar::start(&Folder::demo());
    assert_eq!(
        sidecar.ask("dial org=acme actor=1001 digits=*13600"),
        "allow action=queue.login queue=600 reason=assigned policy=1"
    );
    assert_eq!(
        sidecar.ask("do org=acme actor=2001 action=call.whisper target=1001 queue=601 call=c-77"),
        "deny action=call.whisper queue=601 reason=queue_out_of_scope policy=1"
    );
    assert_eq!(sidecar.ask("dial org=acme"), "error reason=missing_key key=actor");
    let answer = sidecar.agi("1001", "acme/dial", &["digits=*13600"]);
    assert_eq!((answer["QW_VERDICT"].as_str(), answer["QW_REASON"].as_str()), ("ALLOW", "already_logged_in"));
    let series = r#"queuewarden_decisions_total{dialect="fastagi",action="queue.login",decision="allow",reason="already_logged_in"}"#;
    assert!((sidecar.metric(series) - 1.0).abs() < f64::EPSILON);
}
