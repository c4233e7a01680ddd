//! The keys of `[listen]` and `[[peers]]`.

use super::keys::{KeyText, key};

pub(super) const LISTEN: &[KeyText] = &[
    key(
        "line",
        "`\"127.0.0.1:4571\"`",
        "address:port, or `off`",
        "The line dialect over TCP. An address of this table other than loopback needs an entry of `[[peers]]`.",
    ),
    key("line_tls", "`\"off\"`", "address:port, or `off`", "The line dialect over TLS."),
    key("line_unix", "none", "a path", "The line dialect on a Unix socket."),
    key(
        "line_token_file",
        "none",
        "a path; 16 to 128 bytes, and a newline",
        "A file with the token of a peer that is for every line listener: older form of `token_files` in `[[peers]]`.",
    ),
    key("fastagi", "`\"127.0.0.1:4573\"`", "address:port, or `off`", "FastAGI, for Asterisk."),
    key("freeswitch", "`\"off\"`", "address:port, or `off`", "The outbound socket of FreeSWITCH."),
    key("kamailio", "`\"off\"`", "address:port, or `off`", "JSON-RPC in netstrings, for Kamailio."),
    key("kamailio_tls", "`\"off\"`", "address:port, or `off`", "JSON-RPC in netstrings over TLS."),
    key("admin", "`\"127.0.0.1:9471\"`", "address:port, or `off`", "Metrics, health and status over HTTP."),
    key("admin_tls", "`\"off\"`", "address:port, or `off`", "The same over HTTPS."),
    key("admin_unix", "none", "a path", "The admin listener on a Unix socket, where requests may also change state."),
    key(
        "admin_token_file",
        "none",
        "a path; 16 to 128 bytes, and a newline",
        "A file with the token of a peer with the rights `look` and `change` at every admin listener: older form of `token_files` in `[[peers]]`.",
    ),
    key(
        "admin_hosts",
        "`[]`",
        "names, at most 64",
        "Host names that a request over TCP may use, in addition to IP addresses and `localhost`.",
    ),
    key(
        "tls_certificate_file",
        "none",
        "a path to a PEM file",
        "The certificate of the listeners with TLS, then those of its authorities.",
    ),
    key("tls_key_file", "none", "a path to a PEM file", "The private key of the certificate, without a password."),
    key(
        "tls_ca_file",
        "none",
        "a path to a PEM file",
        "The authorities that sign the certificates of peers. Without it no peer can show a certificate.",
    ),
    key(
        "tls_crl_file",
        "none",
        "a path to a PEM file",
        "The certificates that the authorities have revoked: one list for each authority below a root. After the `nextUpdate` of a list its authority's certificates are refused.",
    ),
    key("more", "none", "at most 32", "Further listeners, such as one for each tunnel."),
];

pub(super) const LISTEN_MORE: &[KeyText] = &[
    key("name", "required", "1 to 128 bytes", "The name of the listener, for `listeners` in `[[peers]]`."),
    key("dialect", "required", "`line`, `fastagi`, `freeswitch`, `kamailio`, `admin`", "What is spoken there."),
    key("address", "required", "address:port", "The address."),
    key(
        "proxy",
        "`false`",
        "",
        "Whether every connection begins with a line of the PROXY protocol, version 1, which names the peer. The address must be on loopback.",
    ),
    key("tls", "`false`", "", "Whether TLS is spoken there; `line`, `kamailio` and `admin` only."),
];

pub(super) const PEERS: &[KeyText] = &[
    key(
        "name",
        "required",
        "1 to 128 of A-Z a-z 0-9 - _ .",
        "The name in metrics, in the log and in `queuewarden peers`.",
    ),
    key(
        "listeners",
        "none",
        "keys of `[listen]`, `evapi`, names of `[[listen.more]]`",
        "Where the peer connects; unset: everywhere. For `evapi`, which the sidecar opens itself, and for a listener of `[[listen.more]]` on loopback the name is proof enough.",
    ),
    key(
        "addresses",
        "none",
        "IP prefixes, at most 256",
        "The addresses of the peer; unset: any; as `\"10.0.0.5/32\"`; applies to TCP. Of several entries the longest prefix wins.",
    ),
    key(
        "users",
        "none",
        "users of this machine, by name or id, at most 256",
        "The users as whom the peer runs; unset: any; applies to Unix sockets.",
    ),
    key(
        "certificate",
        "none",
        "`uri:` or `dns:` and a whole name",
        "The name (subject alternative name) of the peer's certificate; applies to TLS.",
    ),
    key(
        "token_files",
        "none",
        "at most 4 paths; 16 to 128 bytes each, and a newline",
        "Files with the tokens of the peer, all of them valid; applies to the line dialect and to the admin listeners.",
    ),
    key(
        "organizations",
        "none",
        "organizations",
        "The organizations for which the peer may ask, watch and read; unset: all; for any other the answer is `deny reason=organization_not_yours`.",
    ),
    key(
        "rights",
        "`[\"ask\", \"watch\"]`",
        "`ask`, `watch`, `look`, `change`",
        "`ask`: questions and reports. `watch`: the change feed. `look` and `change`: the admin listeners.",
    ),
    key(
        "share_max_percent",
        "none",
        "",
        "The largest part of `[limits] connections_max`, in percent, that the peer may hold; a further connection gets `overload`.",
    ),
];
