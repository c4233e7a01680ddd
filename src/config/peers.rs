//! `[[peers]]`: who may ask, and which of the listeners they may use.

use std::collections::HashSet;
use std::ops::Range;
use std::path::Path;

use crate::access::prefix::IpPrefix;
use crate::access::{
    AccessTable, AccessToken, CertificateName, ListenerSet, ListenerTerms, PeerEntry, Reach, Right, Rights, Speaks,
};
use crate::config::links::ReferencedOrganization;
use crate::config::listen::{self, ReadListen};
use crate::config::listen_tls::TlsFiles;
use crate::config::reader::{Section, SpannedStr};
use crate::config::suggest;
use crate::config::unix_users;
use crate::dialect::DialectLabel;
use crate::limits::{PEER_TOKENS_MAX, PEER_VALUES_MAX, PEERS_MAX};
use crate::telephony::Token;

/// The name of a peer that no entry names, in metrics and in the list of peers.
pub const ANYBODY: &str = "anybody";

/// The name of the entry that `line_token_file` stands for.
pub const LINE_TOKEN: &str = "line_token_file";
/// The name of the entry that `admin_token_file` stands for.
pub const ADMIN_TOKEN: &str = "admin_token_file";

/// What the entries say, and the listeners they are about.
pub(super) struct ReadPeers {
    pub(super) table: AccessTable,
    /// The organizations that entries name. Whether they exist is known after all organizations are read.
    pub(super) referenced: Vec<ReferencedOrganization>,
}

/// What the reader of an entry has to know.
struct EntryContext<'a> {
    listeners: &'a [ListenerTerms],
    folder: &'a Path,
    /// Peers can show a certificate.
    has_authorities: bool,
}

/// Reads the entries, and builds the TLS of the listeners, which depends on them.
pub(super) fn read(root: &mut Section<'_>, read: &mut ReadListen, folder: &Path) -> ReadPeers {
    let listeners = read.settings.terms();
    let has_authorities = read.tls.as_ref().is_some_and(TlsFiles::has_authorities);
    let context = EntryContext { listeners: &listeners, folder, has_authorities };
    let (mut entries, mut spans, mut referenced) = (vec![], vec![], vec![]);
    let mut names = HashSet::new();
    let sections = root.sections("peers");
    let count = sections.len();
    for (position, section) in sections.into_iter().enumerate() {
        if position >= PEERS_MAX {
            section.report(&section.span, format!("there are more than {PEERS_MAX} `peers` tables"));
            break;
        }
        let span = section.span.clone();
        if let Some(entry) = read_entry(section, &context, &mut referenced) {
            if !names.insert(entry.name.clone()) {
                root.report(&span, format!("two peers have the name `{}`", entry.name));
            }
            entries.push(entry);
            spans.push(span);
        }
    }
    let configured = entries.len();
    entries.extend(built_in(&listeners, read));
    let table = AccessTable { listeners, entries };
    report_overlaps(root, &table, &spans);
    // An entry that was not read may be the one that guards a listener.
    if configured == count {
        report_exposed(root, &table, &read.addresses);
    }
    if let Some(tls) = read.tls.take() {
        let with_tls = table.listeners.iter().enumerate().filter(|(_, terms)| terms.has_tls && terms.is_on());
        let needs_certificate = with_tls.map(|(position, _)| position).all(|at| !table.admits_without_certificate(at));
        read.settings.tls = tls.build(root, needs_certificate);
    }
    let of_peer = table.entries.iter().take(configured).find(|entry| {
        let line = table.listener("line");
        line.is_some_and(|line| entry.listeners.has(line)) && entry.rights.has(Right::Ask) && !entry.tokens.is_empty()
    });
    if read.settings.line_token.is_none() {
        read.settings.line_token = of_peer.and_then(|entry| entry.tokens.first().cloned());
    }
    ReadPeers { table, referenced }
}

/// The entries that `line_token_file` and `admin_token_file` stand for.
fn built_in(listeners: &[ListenerTerms], read: &ReadListen) -> Vec<PeerEntry> {
    let entry = |name: &str, token: &AccessToken, speaks: Speaks, rights: Rights| PeerEntry {
        name: name.into(),
        listeners: positions(listeners, |terms| terms.speaks == speaks),
        names_listeners: true,
        addresses: vec![],
        users: vec![],
        certificate: None,
        tokens: vec![token.clone()],
        organizations: None,
        rights,
        share_max_percent: None,
        leaves_open: speaks == Speaks::Admin,
    };
    let line = Speaks::Dialect(DialectLabel::Line);
    let line_token = read.settings.line_token.as_ref();
    let line_token = line_token.map(|token| entry(LINE_TOKEN, token, line, Rights::by_default()));
    let admin = [Right::Look, Right::Change].into_iter().collect();
    let admin_token = read.settings.admin_token.as_ref();
    let admin_token = admin_token.map(|token| entry(ADMIN_TOKEN, token, Speaks::Admin, admin));
    line_token.into_iter().chain(admin_token).collect()
}

fn positions(listeners: &[ListenerTerms], wanted: impl Fn(&ListenerTerms) -> bool) -> ListenerSet {
    listeners.iter().enumerate().filter(|(_, terms)| wanted(terms)).map(|(position, _)| position).collect()
}

fn report_overlaps(root: &Section<'_>, table: &AccessTable, spans: &[Range<usize>]) {
    for overlap in table.overlaps() {
        let (Some(first), Some(second), Some(terms)) = (
            table.entries.get(overlap.first),
            table.entries.get(overlap.second),
            table.listeners.get(overlap.listener),
        ) else {
            continue;
        };
        let at = spans.get(overlap.second).or_else(|| spans.get(overlap.first)).cloned().unwrap_or_default();
        let message = format!(
            "a connection to `{}` could be `{}` or `{}`: both have {}",
            terms.name, first.name, second.name, overlap.what
        );
        let help = "give one of them a longer prefix, another token, another certificate or other `listeners`";
        root.report_with_help(&at, message, help);
    }
}

/// Reports the listeners that other machines reach and no entry guards.
fn report_exposed(root: &Section<'_>, table: &AccessTable, addresses: &[(Box<str>, Range<usize>)]) {
    for (name, span) in addresses {
        let terms = table.listener(name).and_then(|position| table.listeners.get(position));
        let Some(Reach::Tcp(Some(address))) = terms.map(|terms| terms.reach) else { continue };
        if let Some(exposure) = table.exposure(name, address) {
            let (message, help) = listen::exposed(name, address, &exposure);
            root.report_with_help(span, message, help);
        }
    }
}

fn read_entry(
    mut section: Section<'_>,
    context: &EntryContext<'_>,
    referenced: &mut Vec<ReferencedOrganization>,
) -> Option<PeerEntry> {
    let found_before = section.found();
    let name = read_name(&mut section);
    let listeners = read_listeners(&mut section, context.listeners);
    let addresses = each(&mut section, "addresses", |text| IpPrefix::parse(text).map_err(|error| error.to_string()));
    let users = each(&mut section, "users", |user| {
        unix_users::id_of(user).ok_or_else(|| "is no user of this machine, by name or by id".to_owned())
    });
    let certificate = section.string("certificate").and_then(|text| {
        let name = CertificateName::parse(text.value);
        if name.is_none() {
            let message = format!("`certificate`: `{}` cannot be the name of a peer", text.value);
            let help = "the whole name, like \"uri:queuewarden://pbx-1\" or \"dns:pbx-1.example.org\"; no wildcard, and never \
                        the common name";
            section.report_with_help(&text.span, message, help);
        }
        name
    });
    let tokens = read_tokens(&mut section, context.folder);
    let organizations = read_organizations(&mut section, referenced);
    let rights = read_rights(&mut section);
    let share_max_percent = section.integer("share_max_percent", 1..=100_u8);
    let entry = PeerEntry {
        name: name.unwrap_or_default().into(),
        names_listeners: listeners.is_some(),
        listeners: listeners.unwrap_or_else(|| positions(context.listeners, |_| true)),
        addresses,
        users,
        certificate,
        tokens,
        organizations,
        rights,
        share_max_percent,
        leaves_open: false,
    };
    if section.found() == found_before {
        report_contradictions(&section, &entry, context);
    }
    let is_whole = section.found() == found_before;
    section.finish();
    is_whole.then_some(entry)
}

fn read_name<'a>(section: &mut Section<'a>) -> Option<&'a str> {
    let name = section.required_string("name")?;
    let is_own = [ANYBODY, LINE_TOKEN, ADMIN_TOKEN].contains(&name.value);
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let is_name = Token::parse(name.value.as_bytes()).is_some() && name.value.bytes().all(is_name);
    if is_own || !is_name {
        let message = format!("`{}` cannot be the name of a peer", name.value);
        let help = format!("1 to 128 of A-Z a-z 0-9 - _ . but not `{ANYBODY}`");
        section.report_with_help(&name.span, message, help);
        return None;
    }
    Some(name.value)
}

/// The listeners of an entry. `None`: it names none, so it is for all.
fn read_listeners(section: &mut Section<'_>, known: &[ListenerTerms]) -> Option<ListenerSet> {
    let is_given = section.has("listeners");
    let names = section.strings("listeners");
    if is_given && names.is_empty() {
        report_empty(section, "listeners", "leave `listeners` out: then the entry is for all");
    }
    let mut found = vec![];
    for name in &names {
        let position = known.iter().position(|terms| *terms.name == *name.value);
        match position {
            Some(position) if found.contains(&position) => {
                section.report(&name.span, format!("`listeners` names `{}` twice", name.value));
            }
            Some(position) => found.push(position),
            None => {
                let hint = suggest::hint(name.value, known.iter().map(|terms| &*terms.name));
                let all: Vec<String> = known.iter().map(|terms| format!("`{}`", terms.name)).collect();
                let message = format!("there is no listener `{}`{hint}", name.value);
                section.report_with_help(&name.span, message, format!("known here: {}", all.join(", ")));
            }
        }
    }
    is_given.then(|| found.into_iter().collect())
}

/// Reads a list of texts that are each parsed to a value.
fn each<T: PartialEq>(
    section: &mut Section<'_>,
    key: &'static str,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Vec<T> {
    let is_given = section.has(key);
    let texts = section.strings(key);
    if is_given && texts.is_empty() {
        report_empty(section, key, "name at least one, or leave the key out");
    }
    let mut values = vec![];
    for text in &texts {
        match parse(text.value) {
            Ok(value) if values.contains(&value) => {
                section.report(&text.span, format!("`{key}` lists `{}` twice", text.value));
            }
            Ok(_) if values.len() == PEER_VALUES_MAX => {
                section.report(&text.span, format!("`{key}` may list at most {PEER_VALUES_MAX} values"));
            }
            Ok(value) => values.push(value),
            Err(problem) => section.report(&text.span, format!("`{key}`: `{}` {problem}", text.value)),
        }
    }
    values
}

fn report_empty(section: &Section<'_>, key: &str, help: &str) {
    section.report_with_help(&section.span, format!("`{key}` is empty"), help);
}

fn read_tokens(section: &mut Section<'_>, folder: &Path) -> Vec<AccessToken> {
    let is_given = section.has("token_files");
    let paths: Vec<SpannedStr<'_>> = section.strings("token_files");
    if is_given && paths.is_empty() {
        report_empty(section, "token_files", "name at least one, or leave the key out");
    }
    let mut tokens: Vec<AccessToken> = vec![];
    for path in &paths {
        if tokens.len() == PEER_TOKENS_MAX {
            section.report(&path.span, format!("`token_files` may list at most {PEER_TOKENS_MAX} files"));
            break;
        }
        let Some(token) = listen::read_token_file(section, path, folder) else { continue };
        if tokens.contains(&token) {
            section.report(&path.span, format!("`{}` has the same token as another file of the entry", path.value));
        }
        tokens.push(token);
    }
    tokens
}

fn read_organizations(
    section: &mut Section<'_>,
    referenced: &mut Vec<ReferencedOrganization>,
) -> Option<Vec<Box<str>>> {
    let is_given = section.has("organizations");
    let names = section.strings("organizations");
    if is_given && names.is_empty() {
        report_empty(section, "organizations", "leave `organizations` out: then the peer may speak for all");
    }
    for name in &names {
        let problem = section.source.problem(name.span.clone(), format!("there is no organization `{}`", name.value));
        referenced
            .push(ReferencedOrganization { organization: name.value.into(), problem_if_unknown: problem.of_name() });
    }
    is_given.then(|| names.iter().map(|name| name.value.into()).collect())
}

fn read_rights(section: &mut Section<'_>) -> Rights {
    section.document_values("rights", Right::ALL.iter().map(|right| right.name()));
    let rights = each(section, "rights", |name| {
        Right::named(name).ok_or_else(|| "is no right: `ask`, `watch`, `look`, `change`".to_owned())
    });
    if rights.is_empty() { Rights::by_default() } else { rights.into_iter().collect() }
}

/// Reports what an entry says and what can never be: a peer that could never connect looks like a peer that is away.
fn report_contradictions(section: &Section<'_>, entry: &PeerEntry, context: &EntryContext<'_>) {
    let at = &section.span;
    let name = &entry.name;
    let open: Vec<&ListenerTerms> = context
        .listeners
        .iter()
        .enumerate()
        .filter(|(position, terms)| entry.listeners.has(*position) && terms.is_on())
        .map(|(_, terms)| terms)
        .collect();
    let nowhere = |key: &str, needs: &str| {
        let message = format!("`{key}` of `{name}` applies to none of its listeners that are on");
        section.report_with_help(at, message, needs);
    };
    let any = |is_wanted: fn(&&ListenerTerms) -> bool| open.iter().any(is_wanted);
    if !entry.addresses.is_empty() && !any(|terms| !matches!(terms.reach, Reach::Unix(_))) {
        nowhere("addresses", "addresses are of TCP listeners and `evapi`");
    }
    if !entry.users.is_empty() && !any(|terms| matches!(terms.reach, Reach::Unix(_))) {
        nowhere("users", "set `line_unix` or `admin_unix` in [listen]");
    }
    if entry.certificate.is_some() {
        if !any(|terms| terms.has_tls) {
            nowhere("certificate", "set `line_tls`, `kamailio_tls` or `admin_tls` in [listen]");
        } else if !context.has_authorities {
            let message = format!("`certificate` of `{name}` needs an authority that signs certificates of peers");
            section.report_with_help(at, message, "set `tls_ca_file` in [listen]");
        }
    }
    if !entry.tokens.is_empty() && !any(|terms| terms.speaks.takes_tokens()) {
        nowhere("token_files", "tokens are of the line dialect and of the admin listeners");
    }
    let has_no_proof =
        entry.addresses.is_empty() && entry.users.is_empty() && entry.certificate.is_none() && entry.tokens.is_empty();
    let proves_itself = |terms: &&ListenerTerms| (terms.is_further && terms.is_local()) || terms.reach == Reach::Dialed;
    if has_no_proof && !(entry.names_listeners && open.iter().all(proves_itself)) {
        let message = format!("nothing proves that a connection is `{name}`");
        let help = "set `addresses`, `users`, `certificate` or `token_files`; only `evapi` and a listener of [[listen.more]] on \
                    loopback that `listeners` names need none";
        section.report_with_help(at, message, help);
    }
    for right in Right::ALL.iter().filter(|right| entry.rights.has(**right) && entry.names_listeners) {
        let means_something = open.iter().any(|terms| terms.speaks.rights().has(*right));
        // `watch` is a default right, and means nothing to most dialects.
        if !means_something && (section.has("rights") || !matches!(right, Right::Ask | Right::Watch)) {
            let message =
                format!("the right `{}` of `{name}` means nothing at its listeners that are on", right.name());
            section.report_with_help(at, message, "leave the right out, or name other `listeners`");
        }
    }
}
