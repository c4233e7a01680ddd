//! The tokens of which a peer of the line dialect presents one.

use std::sync::Arc;

use subtle::ConstantTimeEq;

/// A token, and whose it is.
#[derive(Clone)]
pub struct LineToken {
    /// The bytes of the token.
    pub token: Arc<[u8]>,
    /// The name of the peer that it proves.
    pub owner: Arc<str>,
}

impl std::fmt::Debug for LineToken {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("LineToken").field("owner", &self.owner).finish_non_exhaustive()
    }
}

/// The position of the token that was presented. Every token is compared, so that the time says nothing.
pub(super) fn owner_of(tokens: &[LineToken], presented: &[u8]) -> Option<usize> {
    tokens.iter().enumerate().fold(
        None,
        |found, (position, LineToken { token, .. })| {
            if bool::from(token.ct_eq(presented)) { Some(position) } else { found }
        },
    )
}
