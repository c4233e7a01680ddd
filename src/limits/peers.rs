//! The bounds of who may ask: `[[peers]]`, tokens, TLS, and connections whose peer is not known yet.

use std::time::Duration;

use super::limit::{Limit, limits};

limits! {
    PEERS;

    /// Entries of `[[peers]]`, and therefore peers with a time series of their own in the metrics.
    PEERS_MAX: usize = 256;
    /// Values of one list of an entry of `[[peers]]`.
    PEER_VALUES_MAX: usize = 256;
    /// Files of `token_files` of one entry of `[[peers]]`.
    PEER_TOKENS_MAX: usize = 4;
    /// Listeners of `[[listen.more]]`.
    LISTEN_MORE_MAX: usize = 32;
    /// Bytes that a token has at least.
    TOKEN_BYTES_MIN: usize = 16;
    /// Bytes of the file of the users of this machine.
    PASSWD_BYTES_MAX: u64 = 16 * 1024 * 1024;
    /// Bytes of `tls_crl_file`.
    TLS_CRL_BYTES_MAX: u64 = 16 * 1024 * 1024;
    /// Connections whose peer is not known yet: a TLS handshake, a PROXY line or a token is awaited. Further
    /// connections of that kind are reset.
    UNAUTHENTICATED_MAX: usize = 50;
    /// Time from the accept of a connection until its peer must be known.
    UNAUTHENTICATED_TIMEOUT: Duration = Duration::from_secs(5);
    /// Bytes of a line of the PROXY protocol, including its CR LF.
    PROXY_LINE_BYTES_MAX: usize = 107;
    /// Time that the first wrong token of an address is held before it is answered; each further one is held twice as
    /// long.
    WRONG_TOKEN_DELAY_MIN: Duration = Duration::from_millis(100);
    /// Longest time that a wrong token is held before it is answered.
    WRONG_TOKEN_DELAY_MAX: Duration = Duration::from_secs(5);
    /// Time without a wrong token after which the wrong tokens of an address are forgotten.
    WRONG_TOKEN_MEMORY: Duration = Duration::from_secs(600);
    /// Addresses whose wrong tokens are counted; all others are counted together.
    WRONG_TOKEN_ADDRESSES_MAX: usize = 4_096;
}
