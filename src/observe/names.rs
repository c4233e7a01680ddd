//! The name and the help text of every metric that queuewarden exports. No other file names a metric.

/// The name and the help text of one metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetricName {
    /// The name in Prometheus.
    pub name: &'static str,
    /// The help text.
    pub help: &'static str,
}

macro_rules! metric_names {
    ($($constant:ident = $name:literal: $help:literal;)+) => {
        $(
            #[doc = $help]
            pub const $constant: MetricName = MetricName { name: concat!("queuewarden_", $name), help: $help };
        )+

        /// Every metric of ours; those named `process_*` come from a library.
        pub const ALL: &[MetricName] = &[$($constant,)+];
    };
}

metric_names! {
    BUILD_INFO = "build_info": "Always 1; the label `version` has the version.";
    POLICY_REVISION = "policy_revision": "Revision of the policy that every connection uses.";
    POLICY_RELOADS = "policy_reloads_total": "Loads of the configuration, by result.";
    POLICY_LAST_RELOAD_SUCCESSFUL = "policy_last_reload_successful":
        "1 if the last load of the configuration succeeded, else 0.";
    POLICY_LAST_RELOAD_SUCCESS_TIMESTAMP = "policy_last_reload_success_timestamp_seconds":
        "When the configuration was last loaded, in seconds since 1970.";
    POLICY_STALE = "policy_stale":
        "1 if a TOML or CSV file of the configuration has changed since it was last loaded, else 0.";
    RESTART_NEEDED = "restart_needed":
        "Keys of `queuewarden.toml` whose new value takes effect only after a restart; 0: none.";
    DECISIONS = "decisions_total": "Decisions, by dialect, action, decision and reason.";
    DECISION_DURATION = "decision_duration_seconds":
        "Time from parsing a question to its encoded answer: of the first questions of a read, in the first 64 reads of a connection and then in one of 16.";
    REQUEST_DURATION = "request_duration_seconds":
        "Time from reading bytes to writing all their answers: of the first 64 reads of a connection and then of one in 16.";
    CONNECTIONS = "connections": "Open connections, by dialect, also those on which the peer has sent nothing.";
    CONNECTIONS_LIMIT = "connections_limit": "Connections that may be open at once.";
    CONNECTIONS_REJECTED = "connections_rejected_total": "Connections that were turned away, by dialect and reason.";
    PEER_CONNECTIONS = "peer_connections":
        "Open connections, by peer: an entry of `[[peers]]`, or `anybody` where a listener is open.";
    PEER_DECISIONS = "peer_decisions_total": "Decisions, by peer and decision.";
    PEER_REFUSED = "peer_refused_total":
        "Connections, requests and questions that were refused because of who asked, by peer and reason; `anybody` is whoever is no peer.";
    PROTOCOL_ERRORS = "protocol_errors_total": "Errors of peers against their dialect, by reason. A connection on which the peer sends nothing is none.";
    PEER_CLOCK_OFFSETS = "peer_clock_offsets_total":
        "Questions whose `until` shows a clock of the peer more than 2 s from the sidecar's, or that waited that long, by dialect.";
    CHANGES_UNDONE = "changes_undone_total":
        "Changes that were undone because they were durable, or their answer due, after their `until`.";
    OVERLOAD_REJECTED = "overload_rejected_total":
        "Connections and questions that were refused because there was no room for them.";
    PANICS = "panics_total": "Panics of queuewarden; each ends one question or one connection.";
    SESSIONS = "sessions": "Login sessions, by the ground on which they began.";
    SESSIONS_KEPT = "sessions_kept": "Login sessions that their users could not open under the policy in force.";
    SUPERVISIONS = "supervisions": "Supervisions that run, by mode.";
    SUPERVISIONS_REVOKED = "supervisions_revoked_total": "Supervisions that a reload no longer permitted.";
    STORE_COMMIT_DURATION = "store_commit_duration_seconds":
        "Time that the session store took for one commit group; no samples without a disk.";
    STORE_HEALTHY = "store_healthy": "1 if the session store takes changes, else 0.";
    AUDIT_RECORDS = "audit_records_total": "Lines that were written to the audit log.";
    AUDIT_SKIPPED = "audit_skipped_total":
        "Lines of the audit log that were not written: sampled out as configured, dropped because the buffer was full, or denials of a peer beyond its quota.";
    CLOCK_SUSPECT = "clock_suspect":
        "1 if the wall clock moved by more than 5 min against the time since the boot and is not trusted yet, else 0.";
    AUDIT_WITNESS = "audit_witness_total":
        "Lines for the witness of the audit log, by `result`: sent or failed.";
    AUDIT_HEALTHY = "audit_healthy": "1 if the audit log can be written, or is off, else 0.";
    WATCHERS_CUT_OFF = "watchers_cut_off_total": "Watchers that did not read in time or fell behind the change feed.";
    LOG_LINES_LEFT_OUT = "log_lines_left_out_total":
        "Lines that were left out of the log: stderr was not read in time, or the quota for errors or decisions was used up.";
    EVAPI_LINKS = "evapi_links":
        "Kamailios of `[connect] evapi`; `connections` of the dialect `evapi` is the number that is connected.";
    LINK_UP = "link_up": "1 if the link to a PBX is connected and logged in, else 0; also of evapi.";
    LINK_MEMBERS = "link_members": "Queue members and login sessions at the last complete poll of the link, by state.";
    LINK_ACTIONS = "link_actions_total": "What the link changed at the PBX or in the login sessions, by action.";
    LINK_VIOLATIONS = "link_violations_total": "Members and listeners at the PBX that nobody allowed, by kind.";
    LINK_LAST_POLL = "link_last_poll_timestamp_seconds": "End of the last complete poll of the link; 0 before the first.";
    LINK_STOPPED = "link_stopped": "1 if the share bound stops the link in a queue, until `queuewarden links resume`; else 0.";
    AMI_LINKS = "ami_links": "Links to Asterisk that are configured. The next version lacks it: count `link_up`.";
    AMI_LINKS_UP = "ami_links_up": "Links to Asterisk that are logged in. The next version lacks it: sum `link_up`.";
    AMI_REMOVALS = "ami_removals_total":
        "Queue members in Asterisk whose login session ended, by outcome. The next version lacks it: see `link_actions_total` and `link_members`.";
    SESSIONS_BY_QUEUE = "sessions_by_queue":
        "Login sessions of each queue, of `sessions_by_queue_max` queues at most; absent unless that is set.";
    SESSIONS_BY_QUEUE_LEFT_OUT = "sessions_by_queue_left_out":
        "Queues without a series of their own because there are more than `sessions_by_queue_max`.";
    LEASES = "leases": "Login sessions with a lease, which end by themselves.";
    LEASES_ENDING_SOON = "leases_ending_soon": "Login sessions whose lease ends within 300 s.";
    SESSIONS_ENDED_IDLE = "sessions_ended_idle_total": "Login sessions that ended because their users were idle.";
    SESSIONS_ENDED_SHIFT = "sessions_ended_shift_total": "Login sessions that ended with the shift of their queue.";
    LEASES_EXPIRED = "leases_expired_total": "Login sessions that ended with their lease.";
}

#[cfg(test)]
mod tests {
    use super::ALL;

    #[test]
    fn names_are_unique() {
        for (position, metric) in ALL.iter().enumerate() {
            assert!(ALL.iter().skip(position + 1).all(|other| other.name != metric.name), "{}", metric.name);
        }
    }
}
