//! How long a wrong token is held before it is answered: longer with each wrong token of the same address.
//!
//! Only the answer to a wrong token is held, so a peer with the right one is never locked out by others.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::limits::{WRONG_TOKEN_ADDRESSES_MAX, WRONG_TOKEN_DELAY_MAX, WRONG_TOKEN_DELAY_MIN, WRONG_TOKEN_MEMORY};
use crate::peer::QuotaKey;

/// The wrong tokens of each address.
#[derive(Debug, Default)]
pub(crate) struct WrongTokens(Mutex<HashMap<QuotaKey, WrongTokensOfOne>>);

#[derive(Clone, Copy, Debug, Default)]
struct WrongTokensOfOne {
    count: u32,
    /// The uptime of the last one, in milliseconds.
    last_ms: u64,
}

impl WrongTokens {
    /// Counts a wrong token of this address at this uptime in milliseconds; returns how long its answer is held.
    pub(crate) fn delay(&self, address: QuotaKey, uptime_ms: u64) -> Duration {
        let is_forgotten = |one: &WrongTokensOfOne| {
            u128::from(uptime_ms.saturating_sub(one.last_ms)) >= WRONG_TOKEN_MEMORY.as_millis()
        };
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if table.len() >= WRONG_TOKEN_ADDRESSES_MAX && !table.contains_key(&address) {
            table.retain(|_, one| !is_forgotten(one));
        }
        let has_room = table.len() < WRONG_TOKEN_ADDRESSES_MAX || table.contains_key(&address);
        let one = table.entry(if has_room { address } else { QuotaKey::Others }).or_default();
        if is_forgotten(one) {
            one.count = 0;
        }
        let doubled = WRONG_TOKEN_DELAY_MIN.checked_mul(1_u32.checked_shl(one.count).unwrap_or(u32::MAX));
        *one = WrongTokensOfOne { count: one.count.saturating_add(1), last_ms: uptime_ms };
        doubled.unwrap_or(WRONG_TOKEN_DELAY_MAX).min(WRONG_TOKEN_DELAY_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u32) -> QuotaKey {
        QuotaKey::Address(std::net::IpAddr::from(number.to_be_bytes()))
    }

    /// DOOR E14: 332,000 guesses a second were answered.
    #[test]
    fn each_wrong_token_of_an_address_is_held_longer_up_to_a_bound() {
        let tokens = WrongTokens::default();
        let delays: Vec<u128> = (0..8).map(|_| tokens.delay(address(1), 5).as_millis()).collect();
        assert_eq!(delays, [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]);
        assert_eq!(tokens.delay(address(2), 5), WRONG_TOKEN_DELAY_MIN, "another address");
        assert!((0..100).all(|_| tokens.delay(address(1), 5) == WRONG_TOKEN_DELAY_MAX));
        let later = 5 + u64::try_from(WRONG_TOKEN_MEMORY.as_millis()).unwrap();
        assert_eq!(tokens.delay(address(1), later), WRONG_TOKEN_DELAY_MIN, "forgotten");
    }

    #[test]
    fn the_addresses_are_bounded_and_the_rest_is_held_together() {
        let tokens = WrongTokens::default();
        for number in 0..100_000 {
            tokens.delay(address(number), 5);
        }
        assert!(tokens.0.lock().unwrap().len() <= WRONG_TOKEN_ADDRESSES_MAX + 1);
        assert_eq!(tokens.delay(address(1_000_000), 5), WRONG_TOKEN_DELAY_MAX);
    }
}
