//! The keys of `queuewarden.toml` whose new value takes effect only after a restart.
//!
//! The settings are taken apart without `..`, so a new setting does not compile until it is compared here or named as
//! one that a reload applies.

use std::path::Path;

use crate::audit::buffer::PlainAllows;
use crate::audit::{AuditLogOptions, Retention};
use crate::config::asterisk_ami::AmiSettings;
use crate::config::audit::{AuditSettings, WitnessSettings};
use crate::config::freeswitch_esl::EslSettings;
use crate::config::links::{LinkTerms, UndoBounds};
use crate::config::process::{FurtherListener, ListenSettings, ProcessSettings, StateSettings};

/// The keys that differ between the settings in force and the settings of the last load.
#[derive(Debug, Default)]
struct ChangedKeys(Vec<String>);

impl ChangedKeys {
    /// Adds `table key` if both values differ.
    fn compare<T: PartialEq>(&mut self, table: &str, key: &str, in_force: &T, loaded: &T) {
        if in_force != loaded {
            self.0.push(format!("{table} {key}"));
        }
    }
}

impl ProcessSettings {
    /// The keys whose value in `loaded` differs from the value in force and that only a restart applies, each with its
    /// table, as in `[limits] connections_max`. Empty: a reload has applied all of `loaded`.
    #[must_use]
    pub fn restart_keys(&self, loaded: &Self) -> Vec<String> {
        let mut changed = ChangedKeys::default();
        // A reload applies who may connect.
        let Self {
            listen,
            access: _,
            state,
            audit,
            connections_max,
            sessions_by_queue_max,
            drain_delay,
            evapi,
            asterisk_ami,
            freeswitch_esl,
        } = self;
        compare_listen(&mut changed, listen, &loaded.listen);
        let StateSettings { store, folder } = state;
        changed.compare("[state]", "store", store, &loaded.state.store);
        changed.compare("[state]", "folder", folder, &loaded.state.folder);
        compare_audit(&mut changed, (audit.as_ref(), folder), (loaded.audit.as_ref(), &loaded.state.folder));
        changed.compare("[limits]", "connections_max", connections_max, &loaded.connections_max);
        changed.compare("[limits]", "drain_delay_seconds", drain_delay, &loaded.drain_delay);
        changed.compare("[metrics]", "sessions_by_queue_max", sessions_by_queue_max, &loaded.sessions_by_queue_max);
        changed.compare("[connect]", "evapi", evapi, &loaded.evapi);
        compare_links(&mut changed, asterisk_ami, &loaded.asterisk_ami);
        compare_esl_links(&mut changed, freeswitch_esl, &loaded.freeswitch_esl);
        changed.0
    }
}

fn compare_listen(changed: &mut ChangedKeys, in_force: &ListenSettings, loaded: &ListenSettings) {
    // A reload applies new tokens and certificates.
    let ListenSettings {
        dialects,
        line_unix,
        line_token: _,
        admin,
        admin_unix,
        admin_token: _,
        admin_hosts,
        with_tls,
        further,
        tls: _,
    } = in_force;
    for ((_, key, address), (_, _, other)) in dialects.iter().zip(&loaded.dialects) {
        changed.compare("[listen]", key, address, other);
    }
    for ((_, key, address), (_, _, other)) in with_tls.iter().zip(&loaded.with_tls) {
        changed.compare("[listen]", key, address, other);
    }
    changed.compare("[listen]", "line_unix", line_unix, &loaded.line_unix);
    changed.compare("[listen]", "admin", admin, &loaded.admin);
    changed.compare("[listen]", "admin_unix", admin_unix, &loaded.admin_unix);
    changed.compare("[listen]", "admin_hosts", admin_hosts, &loaded.admin_hosts);
    compare_further(changed, further, &loaded.further);
}

/// Compares the further listeners, table by table. Tables that were added or removed are named without a key.
fn compare_further(changed: &mut ChangedKeys, in_force: &[FurtherListener], loaded: &[FurtherListener]) {
    const TABLE: &str = "[[listen.more]]";
    if in_force.len() != loaded.len() {
        changed.0.push(TABLE.to_owned());
        return;
    }
    for ((listener, other), number) in in_force.iter().zip(loaded).zip(1..) {
        let FurtherListener { name, speaks, address, has_proxy, has_tls } = listener;
        let table = if in_force.len() == 1 { TABLE.to_owned() } else { format!("{TABLE} number {number}") };
        changed.compare(&table, "name", name, &other.name);
        changed.compare(&table, "dialect", speaks, &other.speaks);
        changed.compare(&table, "address", address, &other.address);
        changed.compare(&table, "proxy", has_proxy, &other.has_proxy);
        changed.compare(&table, "tls", has_tls, &other.has_tls);
    }
}

/// Compares the audit logs, each with the state folder of its settings. A log in `audit` of the state folder has no
/// key of its own: `[state] folder` moves it.
fn compare_audit(
    changed: &mut ChangedKeys,
    (in_force, state): (Option<&AuditSettings>, &Path),
    (loaded, state_loaded): (Option<&AuditSettings>, &Path),
) {
    let (Some(in_force), Some(loaded)) = (in_force, loaded) else {
        return changed.compare("[audit]", "enabled", &in_force.is_some(), &loaded.is_some());
    };
    let AuditSettings { log, plain_allows, witness } = in_force;
    let WitnessSettings { target, interval } = witness;
    changed.compare("[audit]", "witness", target, &loaded.witness.target);
    changed.compare("[audit]", "witness_interval_seconds", interval, &loaded.witness.interval);
    let AuditLogOptions {
        folder,
        rotation_max_bytes,
        rotation_max_seconds,
        decisions: Retention { max_seconds, max_bytes },
        record: Retention { max_seconds: record_max_seconds, max_bytes: record_max_bytes },
    } = log;
    let PlainAllows { one_in, per_second_max } = plain_allows;
    let (other, other_plain_allows) = (&loaded.log, &loaded.plain_allows);
    let moved_with_state = *folder == state.join("audit") && other.folder == state_loaded.join("audit");
    if !moved_with_state {
        changed.compare("[audit]", "folder", folder, &other.folder);
    }
    for (key, value, other) in [
        ("rotation_max_bytes", rotation_max_bytes, &other.rotation_max_bytes),
        ("rotation_max_seconds", rotation_max_seconds, &other.rotation_max_seconds),
        ("retention_max_seconds", max_seconds, &other.decisions.max_seconds),
        ("retention_max_bytes", max_bytes, &other.decisions.max_bytes),
        ("plain_allows_one_in", one_in, &other_plain_allows.one_in),
        ("plain_allows_per_second", per_second_max, &other_plain_allows.per_second_max),
    ] {
        changed.compare("[audit]", key, value, other);
    }
    // Without a key of its own, the retention of `record` follows that of `decisions`, which is named above.
    let follows = |log: &AuditLogOptions| log.record == log.decisions;
    if !(follows(log) && follows(other)) {
        changed.compare("[audit]", "record_retention_max_seconds", record_max_seconds, &other.record.max_seconds);
        changed.compare("[audit]", "record_retention_max_bytes", record_max_bytes, &other.record.max_bytes);
    }
}

/// Compares the links to Asterisk, table by table. Tables that were added or removed are named without a key.
fn compare_links(changed: &mut ChangedKeys, in_force: &[AmiSettings], loaded: &[AmiSettings]) {
    const TABLE: &str = "[[connect.asterisk_ami]]";
    if in_force.len() != loaded.len() {
        changed.0.push(TABLE.to_owned());
        return;
    }
    for ((link, other), number) in in_force.iter().zip(loaded).zip(1..) {
        // A reload applies a new secret.
        let AmiSettings {
            link: terms,
            address,
            username,
            secret: _,
            tls,
            interface,
            state_interface,
            queue,
            agents,
            queues,
        } = link;
        let table = if in_force.len() == 1 { TABLE.to_owned() } else { format!("{TABLE} number {number}") };
        compare_terms(changed, &table, terms, &other.link);
        changed.compare(&table, "address", address, &other.address);
        changed.compare(&table, "username", username, &other.username);
        // A reload applies new authorities as well.
        changed.compare(&table, "tls", &tls.is_some(), &other.tls.is_some());
        if let (Some(tls), Some(other)) = (tls, &other.tls) {
            changed.compare(&table, "tls_name", &tls.name, &other.name);
        }
        changed.compare(&table, "interface", interface, &other.interface);
        changed.compare(&table, "state_interface", state_interface, &other.state_interface);
        changed.compare(&table, "queue", queue, &other.queue);
        changed.compare(&table, "agents_file", agents, &other.agents);
        changed.compare(&table, "queues_file", queues, &other.queues);
    }
}

/// The same for the links to FreeSWITCH.
fn compare_esl_links(changed: &mut ChangedKeys, in_force: &[EslSettings], loaded: &[EslSettings]) {
    const TABLE: &str = "[[connect.freeswitch_esl]]";
    if in_force.len() != loaded.len() {
        changed.0.push(TABLE.to_owned());
        return;
    }
    for ((link, other), number) in in_force.iter().zip(loaded).zip(1..) {
        let EslSettings { link: terms, address, username, secret: _, agent, queue, agents, queues } = link;
        let table = if in_force.len() == 1 { TABLE.to_owned() } else { format!("{TABLE} number {number}") };
        compare_terms(changed, &table, terms, &other.link);
        changed.compare(&table, "address", address, &other.address);
        changed.compare(&table, "username", username, &other.username);
        changed.compare(&table, "agent", agent, &other.agent);
        changed.compare(&table, "queue", queue, &other.queue);
        changed.compare(&table, "agents_file", agents, &other.agents);
        changed.compare(&table, "queues_file", queues, &other.queues);
    }
}

fn compare_terms(changed: &mut ChangedKeys, table: &str, in_force: &LinkTerms, loaded: &LinkTerms) {
    let LinkTerms { name, organization, members, supervisions, adopts, poll_interval, bounds } = in_force;
    let UndoBounds { per_minute_max, percent_max } = bounds;
    changed.compare(table, "name", name, &loaded.name);
    changed.compare(table, "organization", organization, &loaded.organization);
    changed.compare(table, "members", members, &loaded.members);
    changed.compare(table, "supervisions", supervisions, &loaded.supervisions);
    changed.compare(table, "adopt", adopts, &loaded.adopts);
    changed.compare(table, "poll_interval_seconds", poll_interval, &loaded.poll_interval);
    changed.compare(table, "undo_max_per_minute", per_minute_max, &loaded.bounds.per_minute_max);
    changed.compare(table, "undo_max_percent", percent_max, &loaded.bounds.percent_max);
}
