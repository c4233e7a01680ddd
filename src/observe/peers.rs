//! The metrics by peer. The series of a peer that is configured no more disappear with its last connection, so they are
//! written at each scrape: the recorder would keep them.

use std::fmt::Write as _;

use crate::observe::names::{MetricName, PEER_CONNECTIONS, PEER_DECISIONS, PEER_REFUSED};
use crate::peer::refusal::{PeerFigures, PeerRefusal};

/// Writes the three metrics of all peers.
pub(super) fn render(peers: &[PeerFigures], text: &mut String) {
    let mut write = || -> std::fmt::Result {
        let head = |MetricName { name, help }: MetricName, kind| format!("# HELP {name} {help}\n# TYPE {name} {kind}");
        // The grammar of the configuration has no character that would need an escape here.
        writeln!(text, "{}", head(PEER_CONNECTIONS, "gauge"))?;
        for PeerFigures { name, connections, .. } in peers {
            writeln!(text, "{}{{peer=\"{name}\"}} {connections}", PEER_CONNECTIONS.name)?;
        }
        writeln!(text, "\n{}", head(PEER_DECISIONS, "counter"))?;
        for PeerFigures { name, decisions, .. } in peers {
            for (decision, count) in ["allow", "deny"].iter().zip(decisions) {
                writeln!(text, "{}{{peer=\"{name}\",decision=\"{decision}\"}} {count}", PEER_DECISIONS.name)?;
            }
        }
        writeln!(text, "\n{}", head(PEER_REFUSED, "counter"))?;
        for PeerFigures { name, refused, .. } in peers {
            for (reason, count) in PeerRefusal::ALL.iter().zip(refused) {
                writeln!(text, "{}{{peer=\"{name}\",reason=\"{}\"}} {count}", PEER_REFUSED.name, reason.name())?;
            }
        }
        writeln!(text)
    };
    // Writing to a string cannot fail.
    write().ok();
}
