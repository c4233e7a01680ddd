//! Stories: what a user does, with the real program over real sockets. One file a story.

/// The organization of most stories, and questions in every dialect.
mod fixtures;

mod admin_access;
mod all_keys;
mod ask;
mod asterisk_link;
mod audit;
mod broken_reload;
mod calls;
mod captures;
mod check;
mod control_plane;
mod evapi;
mod explain;
mod fastagi;
mod feature_codes;
mod first_minute;
mod freeswitch;
mod garbage;
mod gauges;
mod installing;
mod jsonrpc;
mod kept_sessions;
mod leases;
mod limits;
mod line;
mod load;
mod log;
mod login;
mod metrics;
mod million_names;
mod operator;
mod order_of_checks;
mod overload;
mod races;
mod readiness;
mod reload;
mod start;
mod stop;
mod supervision;
mod supervisor_login;
mod systemd;
mod tenants;
mod top;
mod watch;
