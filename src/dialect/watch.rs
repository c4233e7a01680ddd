//! The request `watch` of the line dialect: it turns a connection into a list of the organization's changes.
//!
//! After `watch org=acme` the connection carries only events, one per line, in order, each sent once it is durable. A
//! PBX learns from them, for example, that a login has expired:
//!
//! ```text
//! > w watch org=acme from=11
//! < w event revision=12 change=session_ended user=1002 queue=600 reason=expiry
//! < w event revision=13 change=supervision_began user=2001 target=1001 mode=listen queue=600 reason=permission
//! ```
//!
//! `from=11` resumes after revision 11. If a later revision is no longer kept (queuewarden keeps 16,384 events of an
//! organization) or the process has restarted, the answer is `error reason=revision_gone`: read the state again
//! (`queuewarden sessions ls`), then watch. A watcher that does not read for 5 s, or that falls behind the kept events,
//! is disconnected and counted. Input of a watcher is discarded.
//!
//! | `change`            | `reason`                                                           |
//! |---------------------|--------------------------------------------------------------------|
//! | `session_began`     | `login`                                                            |
//! | `session_ended`     | `logout`, `expiry`, `idle`, `shift`, `revocation`, `removal`       |
//! | `supervision_began` | `permission`                                                       |
//! | `supervision_ended` | `report`, `replacement`, `expiry`, `revocation`, `removal`         |
//!
//! `expiry`: the lease is over, or 4 hours of a supervision. `idle`: the user asked nothing and had no call for
//! `idle_max_seconds`. `shift`: the shift of the queue ended. `revocation`: a supervisor, an operator or a reload ended
//! it. `removal`: a reload removed the user, the queue or the organization. `report`: the PBX reported the end.
//! `replacement`: the supervisor went on in another mode.

use crate::decision::{ErrorReason, WireError};
use crate::dialect::fields::key_error;
use crate::event::Key;
use crate::telephony::Token;

/// The keys of one `watch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WatchRequest<'buf> {
    pub(super) organization: Token<'buf>,
    /// The last revision that the peer has read. `None`: the peer wants only changes to come.
    pub(super) from: Option<u64>,
}

impl<'buf> WatchRequest<'buf> {
    /// Reads the pairs after the verb.
    pub(super) fn read(pairs: &mut impl Iterator<Item = &'buf [u8]>) -> Result<Self, WireError> {
        let (mut organization, mut from) = (None, None);
        for pair in pairs {
            let value_of = |key: Key| pair.strip_prefix(key.name().as_bytes()).and_then(|rest| rest.strip_prefix(b"="));
            let (key, value) = match (value_of(Key::Organization), value_of(Key::From)) {
                (Some(value), _) => (Key::Organization, value),
                (_, Some(value)) => (Key::From, value),
                _ => return Err(key_error(pair)),
            };
            let is_duplicate = if key == Key::From { from.is_some() } else { organization.is_some() };
            if is_duplicate {
                return Err(WireError::of(ErrorReason::DuplicateKey, key));
            }
            let malformed = WireError::of(ErrorReason::Malformed, key);
            if key == Key::From {
                from = Some(revision(value).ok_or(malformed)?);
            } else {
                organization = Some(Token::parse(value).ok_or(malformed)?);
            }
        }
        let organization = organization.ok_or(WireError::of(ErrorReason::MissingKey, Key::Organization))?;
        Ok(Self { organization, from })
    }
}

/// Reads a revision: decimal digits without a sign or a leading zero.
fn revision(value: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    text.parse().ok().filter(|_| text == "0" || !text.starts_with('0'))
}
