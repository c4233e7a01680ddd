//! What comes before the first question: the line of the PROXY protocol and the TLS handshake.
//!
//! Until both are done nothing is known of the peer. So such connections are few, `UNAUTHENTICATED_MAX` at once, and
//! each has `UNAUTHENTICATED_TIMEOUT`.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::server::TlsStream;
use webpki::EndEntityCert;

use crate::access::{CertificateName, ConnectionOrigin};
use crate::limits::PROXY_LINE_BYTES_MAX;
use crate::peer::Peer;
use crate::peer::refusal::PeerRefusal;

/// A connection over TCP, encrypted or not.
#[derive(Debug)]
pub(crate) enum TcpConnection {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connection whose peer is known as far as it can be before it says anything.
pub(crate) struct Greeted<S> {
    pub(super) stream: S,
    pub(super) peer: Peer,
    pub(super) origin: ConnectionOrigin,
}

/// Why a connection did not get as far as its first question.
pub(super) struct HandshakeError {
    pub(super) refusal: PeerRefusal,
    pub(super) what: String,
}

/// Reads the PROXY line if the listener is marked, and does the TLS handshake if it speaks TLS. The caller bounds the
/// time.
pub(super) async fn greet(
    mut stream: TcpStream,
    address: SocketAddr,
    has_proxy: bool,
    tls: Option<Arc<ServerConfig>>,
) -> Result<Greeted<TcpConnection>, HandshakeError> {
    let mut address = address;
    if has_proxy {
        let failed = |what| HandshakeError { refusal: PeerRefusal::Proxy, what };
        let line = read_proxy_line(&mut stream).await.map_err(|error| failed(error.to_string()))?;
        address = source_of(&line).ok_or_else(|| failed("the line is none of PROXY, version 1".to_owned()))?;
    }
    let mut origin =
        ConnectionOrigin { address: Some(address.ip()), is_forwarded: has_proxy, ..ConnectionOrigin::default() };
    let stream = match tls {
        None => TcpConnection::Plain(stream),
        Some(tls) => {
            let failed = |error: io::Error| HandshakeError { refusal: PeerRefusal::Tls, what: error.to_string() };
            let stream = TlsAcceptor::from(tls).accept(stream).await.map_err(failed)?;
            let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
            origin.names = names_of(chain);
            origin.certificates = chain.iter().map(|certificate| certificate.to_vec().into()).collect();
            TcpConnection::Tls(Box::new(stream))
        }
    };
    Ok(Greeted { stream, peer: Peer::Address(address), origin })
}

/// The names of the certificate that the peer has shown and that was verified.
fn names_of(chain: &[CertificateDer<'_>]) -> Vec<CertificateName> {
    let Some(certificate) = chain.first().and_then(|own| EndEntityCert::try_from(own).ok()) else {
        return vec![];
    };
    // A wildcard is no name of one peer; no entry can have it either.
    let hosts = certificate.valid_dns_names().filter(|name| !name.contains('*'));
    let hosts = hosts.map(|name| CertificateName::Dns(name.to_ascii_lowercase().into()));
    hosts.chain(certificate.valid_uri_names().map(|name| CertificateName::Uri(name.into()))).collect()
}

/// Reads one byte after the other: what follows the line belongs to the dialect, or to TLS.
async fn read_proxy_line(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut line = vec![];
    while !line.ends_with(b"\r\n") {
        if line.len() == PROXY_LINE_BYTES_MAX {
            return Err(io::Error::other("the PROXY line has no end"));
        }
        line.push(stream.read_u8().await?);
        let start = b"PROXY ";
        let begun = line.get(..start.len().min(line.len()));
        if begun != start.get(..start.len().min(line.len())) {
            return Err(io::Error::other("the connection does not begin with a PROXY line"));
        }
    }
    Ok(line)
}

/// The address of the peer in a whole PROXY line, as `PROXY TCP4 10.0.0.5 10.0.0.1 40000 4571`. `None`: it is no such
/// line, or the tunnel does not know the peer (`UNKNOWN`).
pub(super) fn source_of(line: &[u8]) -> Option<SocketAddr> {
    let text = std::str::from_utf8(line.strip_suffix(b"\r\n")?).ok()?;
    let mut words = text.split(' ');
    let (mark, family) = (words.next()?, words.next()?);
    let mut address = || words.next().and_then(|word| word.parse::<IpAddr>().ok());
    let (source, destination) = (address()?, address()?);
    let mut port = || {
        let word = words.next().filter(|word| word.bytes().all(|byte| byte.is_ascii_digit()))?;
        word.parse::<u16>().ok().filter(|_| word == "0" || !word.starts_with('0'))
    };
    let (source_port, _) = (port()?, port()?);
    let is_of_family = match family {
        "TCP4" => source.is_ipv4() && destination.is_ipv4(),
        "TCP6" => source.is_ipv6() && destination.is_ipv6(),
        _ => false,
    };
    (mark == "PROXY" && is_of_family && words.next().is_none()).then(|| SocketAddr::new(source, source_port))
}

impl TcpConnection {
    /// Makes the connection end with a reset, unless it is shut down before.
    pub(super) fn reset_when_dropped(&self) {
        let socket = match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        };
        SockRef::from(socket).set_linger(Some(Duration::ZERO)).ok();
    }
}

impl AsyncRead for TcpConnection {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for TcpConnection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_line_names_the_peer_in_one_form_only() {
        let source = |line: &str| source_of(line.as_bytes()).map(|address| address.to_string());
        let peer = |text: &str| Some(text.to_owned());
        assert_eq!(source("PROXY TCP4 10.0.0.5 10.0.0.1 40000 4571\r\n"), peer("10.0.0.5:40000"));
        assert_eq!(source("PROXY TCP6 fd00::5 fd00::1 40000 4571\r\n"), peer("[fd00::5]:40000"));
        for line in [
            "",
            "\r\n",
            "PROXY\r\n",
            "PROXY UNKNOWN\r\n",
            "PROXY UNKNOWN 10.0.0.5 10.0.0.1 1 2\r\n",
            "PROXY TCP4 10.0.0.5 10.0.0.1 40000 4571\n",
            "PROXY TCP4 10.0.0.5 10.0.0.1 40000 4571 \r\n",
            "PROXY TCP4  10.0.0.5 10.0.0.1 40000 4571\r\n",
            "PROXY TCP4 10.0.0.5 10.0.0.1 40000\r\n",
            "PROXY TCP4 10.0.0.5 10.0.0.1 40000 65536\r\n",
            "PROXY TCP4 10.0.0.5 10.0.0.1 +1 4571\r\n",
            "PROXY TCP4 10.0.0.5 10.0.0.1 01 4571\r\n",
            "PROXY TCP4 fd00::5 fd00::1 40000 4571\r\n",
            "PROXY TCP6 10.0.0.5 10.0.0.1 40000 4571\r\n",
            "PROXY TCP4 010.0.0.5 10.0.0.1 40000 4571\r\n",
            "proxy TCP4 10.0.0.5 10.0.0.1 40000 4571\r\n",
            "PROXY UDP4 10.0.0.5 10.0.0.1 40000 4571\r\n",
        ] {
            assert_eq!(source(line), None, "{line:?}");
        }
    }
}
