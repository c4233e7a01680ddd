//! `queuewarden check`: loads a configuration folder and prints every problem and warning.

use std::io::{self, Write};
use std::path::Path;

use serde_json::json;

use crate::access::{AccessTable, ListenerTerms, Reach, Speaks};
use crate::cli::EXIT_CONFIGURATION;
use crate::config;
use crate::config::process::{FREEPBX_FASTAGI_PORT, ProcessSettings};
use crate::dialect::DialectLabel;
use crate::policy::{Organization, Policy};

/// The file that every FreePBX has.
const FREEPBX_CONF: &str = "/etc/freepbx.conf";

/// Options of `check`.
#[derive(Debug, clap::Args)]
pub(super) struct CheckArguments {
    /// Prints JSON instead of text.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(folder: &Path, options: &CheckArguments, out: &mut impl Write) -> io::Result<u8> {
    match config::load(folder, &Policy::default()) {
        Ok(loaded) => {
            let sum = |count: fn(&Organization) -> usize| loaded.policy.organizations().map(count).sum::<usize>();
            let organizations = loaded.policy.organizations().count();
            let users = sum(|organization| organization.directory.users().count());
            let queues = sum(|organization| organization.directory.queues().count());
            let notes = who_may_ask(&loaded.process.access);
            let port_is_taken = port_of_freepbx(&loaded.process, Path::new(FREEPBX_CONF));
            if options.json {
                let mut report = json!({
                    "loads": true, "organizations": organizations, "users": users, "queues": queues,
                    "warnings": loaded.warnings, "notes": notes,
                });
                if let (Some(advice), Some(report)) = (port_is_taken, report.as_object_mut()) {
                    report.insert("advice".to_owned(), advice.into());
                }
                writeln!(out, "{report}")?;
            } else {
                for warning in &loaded.warnings.problems {
                    writeln!(out, "warning: {warning}")?;
                }
                if let Some(advice) = port_is_taken {
                    writeln!(out, "warning: {advice}")?;
                }
                for note in notes {
                    writeln!(out, "note: {note}")?;
                }
                writeln!(
                    out,
                    "{} loads: organizations {organizations}, queues {queues}, users {users}",
                    folder.display()
                )?;
            }
            Ok(0)
        }
        Err(problems) => {
            // The problems are the result of this command: they go to stdout.
            if options.json {
                writeln!(out, "{}", json!({ "loads": false, "problems": problems }))?;
            } else {
                writeln!(out, "{problems}")?;
                let count = problems.count();
                writeln!(
                    out,
                    "{} does not load: {count} problem{}",
                    folder.display(),
                    if count == 1 { "" } else { "s" }
                )?;
            }
            Ok(EXIT_CONFIGURATION)
        }
    }
}

/// What it means that no entry of `[[peers]]` closes a listener, one sentence a line. Empty: every listener is closed.
fn who_may_ask(access: &AccessTable) -> Vec<String> {
    let names = |is_wanted: fn(&ListenerTerms) -> bool| {
        let open = access.open_listeners().filter(|terms| is_wanted(terms));
        open.map(|terms| format!("`{}`", terms.name)).collect::<Vec<_>>().join(", ")
    };
    let told_apart = |terms: &ListenerTerms| matches!(terms.reach, Reach::Unix(_)) || terms.speaks.takes_tokens();
    let open = [
        (
            names(|terms| matches!(terms.speaks, Speaks::Dialect(_))),
            "every process of this machine may ask for every organization; an entry of [[peers]] with `users`, `token_files` \
             or loopback `addresses` closes a listener",
        ),
        (
            names(|terms| terms.speaks == Speaks::Admin && !matches!(terms.reach, Reach::Unix(_))),
            "every process of this machine may read the sessions; an entry of [[peers]] closes the listener, and `admin_unix` \
             is for operators",
        ),
    ];
    let mut notes: Vec<String> = open
        .into_iter()
        .filter(|(names, _)| !names.is_empty())
        .map(|(names, what)| format!("{names}: {what}"))
        .collect();
    let alike = access.listeners.iter().filter(|terms| terms.is_on() && terms.is_local() && !terms.has_proxy);
    let alike = alike.filter(|terms| terms.reach != Reach::Dialed && !told_apart(terms) && !terms.has_tls);
    let alike = alike.map(|terms| format!("`{}`", terms.name)).collect::<Vec<_>>().join(", ");
    if !alike.is_empty() {
        notes.push(format!(
            "{alike}: on loopback nobody can be told from anybody in this dialect; a rule of nftables admits the user of the PBX \
             only: config/systemd/README.md, \"Who is trusted\""
        ));
    }
    notes
}

/// The advice for a host with a FreePBX, whose own FastAGI server has the port of `fastagi`. `None`: no FreePBX is
/// here, or `fastagi` has another port.
fn port_of_freepbx(process: &ProcessSettings, freepbx_conf: &Path) -> Option<String> {
    let is_taken = process.listen.dialects.iter().any(|(label, _, address)| {
        *label == DialectLabel::FastAgi && address.is_some_and(|address| address.port() == FREEPBX_FASTAGI_PORT)
    });
    (is_taken && freepbx_conf.exists()).then(|| {
        format!(
            "`fastagi` has port {FREEPBX_FASTAGI_PORT}, which belongs to FreePBX's own FastAGI server on this host: set \
             `fastagi = \"127.0.0.1:4583\"`, and QW_SIDECAR in the dialplan to the same address"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FIELD C5: on a FreePBX the default port is taken.
    #[test]
    fn the_port_of_freepbx_is_named_only_beside_a_freepbx() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("organizations")).unwrap();
        std::fs::create_dir(folder.path().join("models")).unwrap();
        let advice = |fastagi: &str, freepbx_conf: &Path| {
            std::fs::write(folder.path().join("queuewarden.toml"), format!("[listen]\n{fastagi}\n")).unwrap();
            let model = include_str!("../../config/models/goto.toml");
            std::fs::write(folder.path().join("models/goto.toml"), model).unwrap();
            let organization = "organization = \"acme\"\nmodel = \"goto\"\n";
            std::fs::write(folder.path().join("organizations/acme.toml"), organization).unwrap();
            port_of_freepbx(&config::load(folder.path(), &Policy::default()).unwrap().process, freepbx_conf)
        };
        let (here, absent) = (folder.path().join("queuewarden.toml"), folder.path().join("none"));
        assert!(advice("", &here).is_some_and(|advice| advice.contains("4583")));
        assert_eq!(advice("", &absent), None);
        assert_eq!(advice("fastagi = \"127.0.0.1:4583\"", &here), None);
        assert_eq!(advice("fastagi = \"off\"", &here), None);
    }
}
