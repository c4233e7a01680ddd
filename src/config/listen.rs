//! `[listen]`: where PBXs and operators connect.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::access::{AccessToken, Exposure, ListenerTerms, Reach, Speaks};
use crate::config::listen_tls::{self, ServerTls, TlsFiles};
use crate::config::reader::{Section, SpannedStr};
use crate::config::secret::SecretFile;
use crate::dialect::DialectLabel;
use crate::limits::{ADMIN_HOSTS_MAX, LISTEN_MORE_MAX, TOKEN_BYTES_MAX, TOKEN_BYTES_MIN};
use crate::telephony::Token;

const OFF: &str = "off";

/// The port of FastAGI, which FreePBX's own FastAGI server has on 127.0.0.1.
pub const FREEPBX_FASTAGI_PORT: u16 = 4573;

/// The dialects over TCP: the key of each, and its default port. `None`: off by default.
const DIALECTS: &[(DialectLabel, &str, Option<u16>)] = &[
    (DialectLabel::Line, "line", Some(4571)),
    (DialectLabel::FastAgi, "fastagi", Some(FREEPBX_FASTAGI_PORT)),
    (DialectLabel::FreeSwitch, "freeswitch", None),
    (DialectLabel::JsonRpc, "kamailio", None),
];

/// The listeners with TLS: the key of each.
const WITH_TLS: &[(Speaks, &str)] = &[
    (Speaks::Dialect(DialectLabel::Line), "line_tls"),
    (Speaks::Dialect(DialectLabel::JsonRpc), "kamailio_tls"),
    (Speaks::Admin, "admin_tls"),
];

/// What a further listener can speak: the key of `[listen]` that speaks the same.
const FURTHER: &[(&str, Speaks)] = &[
    ("line", Speaks::Dialect(DialectLabel::Line)),
    ("fastagi", Speaks::Dialect(DialectLabel::FastAgi)),
    ("freeswitch", Speaks::Dialect(DialectLabel::FreeSwitch)),
    ("kamailio", Speaks::Dialect(DialectLabel::JsonRpc)),
    ("admin", Speaks::Admin),
];

/// The listeners. `None`: the listener is off.
#[derive(Clone, Debug)]
pub struct ListenSettings {
    /// Each dialect over TCP: its key in `[listen]` and its address.
    pub dialects: Vec<(DialectLabel, &'static str, Option<SocketAddr>)>,
    /// The Unix socket of the line dialect.
    pub line_unix: Option<PathBuf>,
    /// A token that a line peer may present. `None`: no token is needed, and any token is refused.
    pub line_token: Option<AccessToken>,
    /// The admin listener over TCP: HTTP for operators and Prometheus.
    pub admin: Option<SocketAddr>,
    /// The Unix socket of the admin listener.
    pub admin_unix: Option<PathBuf>,
    /// The token with which an admin request over TCP may change something. `None`: no such request may.
    pub admin_token: Option<AccessToken>,
    /// Values of the `Host` header that admin requests over TCP may have, beside addresses and `localhost`.
    pub admin_hosts: Vec<Box<str>>,
    /// Each listener with TLS: what it speaks, its key and its address.
    pub with_tls: Vec<(Speaks, &'static str, Option<SocketAddr>)>,
    /// `[[listen.more]]`.
    pub further: Vec<FurtherListener>,
    /// Certificate, key and authorities. `None`: no listener speaks TLS.
    pub tls: Option<ServerTls>,
}

/// One listener of `[[listen.more]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FurtherListener {
    /// Its name.
    pub name: Box<str>,
    /// What it speaks.
    pub speaks: Speaks,
    /// Its address.
    pub address: SocketAddr,
    /// Connections begin with a line of the PROXY protocol.
    pub has_proxy: bool,
    /// Connections speak TLS.
    pub has_tls: bool,
}

/// `[listen]`, read; what the entries of `[[peers]]` decide is still to be checked.
pub(super) struct ReadListen {
    pub(super) settings: ListenSettings,
    /// The files of TLS. `None`: none is named, or one is wrong and was reported.
    pub(super) tls: Option<TlsFiles>,
    /// Where the address of a listener stands, by name.
    pub(super) addresses: Vec<(Box<str>, Range<usize>)>,
}

impl Default for ListenSettings {
    fn default() -> Self {
        const fn loopback(port: u16) -> SocketAddr {
            SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
        }
        Self {
            dialects: DIALECTS.iter().map(|&(label, key, port)| (label, key, port.map(loopback))).collect(),
            line_unix: None,
            line_token: None,
            admin: Some(loopback(9471)),
            admin_unix: None,
            admin_token: None,
            admin_hosts: vec![],
            with_tls: WITH_TLS.iter().map(|&(speaks, key)| (speaks, key, None)).collect(),
            further: vec![],
            tls: None,
        }
    }
}

impl ListenSettings {
    /// Every listener that an entry of `[[peers]]` can name, whether it is on or off.
    #[must_use]
    pub fn terms(&self) -> Vec<ListenerTerms> {
        let terms = |name: &str, speaks, reach| ListenerTerms {
            name: name.into(),
            speaks,
            reach,
            has_tls: false,
            has_proxy: false,
            is_further: false,
        };
        let line = Speaks::Dialect(DialectLabel::Line);
        let dialects =
            self.dialects.iter().map(|(label, key, at)| terms(key, Speaks::Dialect(*label), Reach::Tcp(*at)));
        let others = [
            terms("line_unix", line, Reach::Unix(self.line_unix.is_some())),
            terms("admin", Speaks::Admin, Reach::Tcp(self.admin)),
            terms("admin_unix", Speaks::Admin, Reach::Unix(self.admin_unix.is_some())),
            terms("evapi", Speaks::Dialect(DialectLabel::Evapi), Reach::Dialed),
        ];
        let with_tls = self
            .with_tls
            .iter()
            .map(|(speaks, key, address)| ListenerTerms { has_tls: true, ..terms(key, *speaks, Reach::Tcp(*address)) });
        let further = self.further.iter().map(|listener| ListenerTerms {
            has_tls: listener.has_tls,
            has_proxy: listener.has_proxy,
            is_further: true,
            ..terms(&listener.name, listener.speaks, Reach::Tcp(Some(listener.address)))
        });
        dialects.chain(others).chain(with_tls).chain(further).collect()
    }
}

/// Reads `[listen]`.
pub(super) fn read(section: Option<Section<'_>>, folder: &Path) -> ReadListen {
    let mut settings = ListenSettings::default();
    let mut addresses = vec![];
    let Some(mut section) = section else { return ReadListen { settings, tls: None, addresses } };
    settings.line_token = read_token(&mut section, "line_token_file", folder);
    settings.admin_token = read_token(&mut section, "admin_token_file", folder);
    for (_, key, address) in &mut settings.dialects {
        *address = read_address(&mut section, key, *address, &mut addresses);
    }
    let socket = |path: SpannedStr<'_>| (path.value != OFF).then(|| folder.join(path.value));
    settings.line_unix = section.string("line_unix").and_then(socket);
    settings.admin = read_address(&mut section, "admin", settings.admin, &mut addresses);
    settings.admin_unix = section.string("admin_unix").and_then(socket);
    settings.admin_hosts = read_hosts(&mut section);
    for (_, key, address) in &mut settings.with_tls {
        *address = read_address(&mut section, key, None, &mut addresses);
    }
    let tls = listen_tls::read(&mut section, folder);
    for (position, further) in section.sections("more").into_iter().enumerate() {
        if position >= LISTEN_MORE_MAX {
            further.report(&further.span, format!("there are more than {LISTEN_MORE_MAX} `listen.more` tables"));
            break;
        }
        if let Some((listener, at_name, at_address)) = read_further(further) {
            if settings.terms().iter().any(|known| known.name == listener.name) {
                section.report(&at_name, format!("another listener has the name `{}`", listener.name));
            } else {
                addresses.push((listener.name.clone(), at_address));
                settings.further.push(listener);
            }
        }
    }
    let with_tls = settings.terms().into_iter().find(|listener| listener.has_tls && listener.is_on());
    if let (Some(listener), false) = (with_tls, section.has("tls_certificate_file") && section.has("tls_key_file")) {
        let help =
            "set `tls_certificate_file` and `tls_key_file` in [listen], and `tls_ca_file` for client certificates";
        let at = addresses.iter().find(|(name, _)| *name == listener.name).map(|(_, span)| span.clone());
        let message = format!("`{}` speaks TLS and there is no certificate", listener.name);
        section.report_with_help(&at.unwrap_or_else(|| section.span.clone()), message, help);
    }
    section.finish();
    ReadListen { settings, tls, addresses }
}

/// Reads one of `[[listen.more]]`; also where its name and its address stand.
fn read_further(mut section: Section<'_>) -> Option<(FurtherListener, Range<usize>, Range<usize>)> {
    let name = section.required_string("name").filter(|name| {
        let is_name = Token::parse(name.value.as_bytes()).is_some();
        if !is_name {
            section.report_with_help(
                &name.span,
                format!("`{}` is no name", name.value),
                "A-Z a-z 0-9 _ - . and at most 128 bytes",
            );
        }
        is_name
    });
    section.document_values("dialect", FURTHER.iter().map(|(name, _)| *name));
    let speaks = section.required_string("dialect").and_then(|dialect| {
        let found = FURTHER.iter().find(|(name, _)| *name == dialect.value).map(|(_, speaks)| *speaks);
        if found.is_none() {
            let help = "one of line, fastagi, freeswitch, kamailio, admin";
            section.report_with_help(&dialect.span, format!("there is no dialect `{}`", dialect.value), help);
        }
        found
    });
    let address = section.required_string("address");
    let at_address = address.as_ref().map(|address| address.span.clone());
    let address = address.and_then(|text| parsed_address(&section, "address", &text));
    let (has_proxy, has_tls) = (section.boolean("proxy").unwrap_or(false), section.boolean("tls").unwrap_or(false));
    if let (Some(address), true) = (address.filter(|address| !address.ip().is_loopback()), has_proxy) {
        let message = format!("a listener with `proxy = true` at {address} takes the address of a peer from anybody");
        let help = "listen on 127.0.0.1, behind the tunnel that writes the PROXY line";
        section.report_with_help(&section.span, message, help);
    }
    let can_tls = speaks.is_none_or(|speaks| WITH_TLS.iter().any(|(other, _)| *other == speaks));
    if has_tls && !can_tls {
        let help = "TLS is for `line`, `kamailio` and `admin`; for the others a tunnel ends before the listener";
        section.report_with_help(&section.span, "no PBX speaks TLS in this dialect", help);
    }
    section.finish();
    let name = name?;
    let listener = FurtherListener { name: name.value.into(), speaks: speaks?, address: address?, has_proxy, has_tls };
    Some((listener, name.span, at_address?))
}

fn read_address(
    section: &mut Section<'_>,
    key: &'static str,
    default: Option<SocketAddr>,
    addresses: &mut Vec<(Box<str>, Range<usize>)>,
) -> Option<SocketAddr> {
    let Some(text) = section.string(key) else { return default };
    if text.value == OFF {
        return None;
    }
    addresses.push((key.into(), text.span.clone()));
    parsed_address(section, key, &text)
}

fn parsed_address(section: &Section<'_>, key: &str, text: &SpannedStr<'_>) -> Option<SocketAddr> {
    let address = text.value.parse::<SocketAddr>().ok();
    if address.is_none() {
        let message = format!("`{key}` must be an address and a port");
        section.report_with_help(&text.span, message, "for example \"127.0.0.1:4571\", or \"off\"");
    }
    address
}

/// Why a listener may not be opened, and what to change.
#[must_use]
pub fn exposed(name: &str, address: SocketAddr, exposure: &Exposure) -> (String, String) {
    match exposure {
        Exposure::Nobody => {
            let reached = if address.ip().is_loopback() { "" } else { ", which other machines can reach" };
            let message =
                format!("`{name}` listens on {address}{reached}, and no entry of [[peers]] may connect there");
            let help = "add [[peers]] with the `addresses` or the `certificate` of whoever may connect, or listen on 127.0.0.1";
            (message, help.to_owned())
        }
        Exposure::PlainToken(peer) => {
            let message = format!(
                "`{name}` listens on {address}, and the token of `{peer}` would cross the network in plain text"
            );
            let help = "use `line_tls` or `admin_tls`, or `addresses` in place of the token, or name other `listeners` in [[peers]]";
            (message, help.to_owned())
        }
    }
}

/// Reads host names, as they are in a `Host` header before the port.
fn read_hosts(section: &mut Section<'_>) -> Vec<Box<str>> {
    let mut hosts = vec![];
    for host in section.strings("admin_hosts") {
        let is_admitted = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
        if host.value.is_empty() || host.value.len() > 255 || !host.value.bytes().all(is_admitted) {
            let help = "a name in lower case, without a port, like \"pbx.example.org\"";
            section.report_with_help(&host.span, format!("`{}` is not a host name", host.value), help);
        } else if hosts.len() == ADMIN_HOSTS_MAX {
            section.report(&host.span, format!("`admin_hosts` may list at most {ADMIN_HOSTS_MAX} names"));
        } else {
            hosts.push(host.value.into());
        }
    }
    hosts
}

fn read_token(section: &mut Section<'_>, key: &'static str, folder: &Path) -> Option<AccessToken> {
    let path = section.string(key)?;
    read_token_file(section, &path, folder)
}

/// Reads a file with a token.
pub(super) fn read_token_file(section: &Section<'_>, path: &SpannedStr<'_>, folder: &Path) -> Option<AccessToken> {
    let help = format!(
        "{TOKEN_BYTES_MIN} to {TOKEN_BYTES_MAX} of A-Z a-z 0-9 _ - . : @ + * #, and nothing else; `openssl rand -hex 32` makes one"
    );
    let admits = |text: &str| text.len() >= TOKEN_BYTES_MIN && Token::parse(text.as_bytes()).is_some();
    let expected = SecretFile { kind: "the token file", bytes_max: TOKEN_BYTES_MAX, help: &help };
    expected.read(section, path, folder, admits).map(|secret| AccessToken::new(secret.reveal()))
}
