//! The channel data of FreeSWITCH's block that make a question.

use crate::decision::{ErrorReason, WireError};
use crate::dialect::channel_values::{DecodedRange, WITHIN, decode, key_name, key_of_variable, set_times};
use crate::dialect::fields::{Fields, Verb};
use crate::dialect::header_lines::{lines_of, split};
use crate::event::{Event, Key, KeySet};
use crate::telephony::Token;

/// The header with the time of the block by FreeSWITCH's clock, in microseconds since 1970.
const TIMESTAMP: &[u8] = b"Event-Date-Timestamp";

/// The values of a block that make the question.
#[derive(Debug, Default)]
struct ChannelData {
    verb: Option<DecodedRange>,
    /// `variable_qw_domain`: a SIP domain of the organization.
    domain: Option<DecodedRange>,
    /// `variable_user_name`: the caller's user in the directory.
    user: Option<DecodedRange>,
    /// `variable_sip_auth_username`: the name with which the caller authenticated.
    login: Option<DecodedRange>,
    /// `Caller-Destination-Number`: the dialed number.
    destination: Option<DecodedRange>,
    /// `variable_qw_within`: how long FreeSWITCH waits, in milliseconds.
    within: Option<DecodedRange>,
    /// `Event-Date-Timestamp`: when FreeSWITCH sent the block, in microseconds since 1970.
    sent_at: Option<DecodedRange>,
    /// `Unique-ID`: the unique id of the channel.
    channel: Option<DecodedRange>,
    /// The keys, in the order of the block.
    keys: [Option<(Key, DecodedRange)>; Key::ALL.len()],
}

/// Makes the question of a complete block; its values are decoded into `decoded`.
pub(super) fn question<'buf>(lines: &[u8], decoded: &'buf mut Vec<u8>) -> Result<Event<'buf>, WireError> {
    decoded.clear();
    let channel = read_channel_data(lines, decoded)?;
    let decoded: &'buf [u8] = decoded;
    let value = |range: DecodedRange| decoded.get(range.start..range.end).unwrap_or_default();
    let verb = channel.verb.map_or(Some(Verb::Dial), |range| Verb::named(value(range)));
    let verb = verb.ok_or(WireError::new(ErrorReason::UnknownVerb))?;
    let mut fields = Fields::new(verb);
    for (key, range) in channel.keys.iter().flatten() {
        fields.set(*key, value(*range))?;
    }
    if let Some(domain) = channel.domain {
        fields.set_domain(value(domain))?;
    }
    if let Some(actor) = [channel.user, channel.login].into_iter().flatten().map(value).find(|name| !name.is_empty()) {
        fields.set(Key::Actor, actor)?;
    }
    if let Some(destination) = channel.destination.filter(|_| verb == Verb::Dial && !fields.has(Key::Digits)) {
        fields.set(Key::Digits, value(destination))?;
    }
    let mut event = fields.into_event()?;
    event.channel = channel.channel.map(value).and_then(Token::parse);
    set_times(&mut event, channel.sent_at.map(value), channel.within.map(value))?;
    Ok(event)
}

/// Picks and decodes the values that make the question. A duplicate is an error, because it is unclear which one
/// FreeSWITCH meant.
fn read_channel_data(lines: &[u8], decoded: &mut Vec<u8>) -> Result<ChannelData, WireError> {
    let mut channel = ChannelData::default();
    let mut given = KeySet::EMPTY;
    let mut free = channel.keys.iter_mut();
    for (name, value) in lines_of(lines).filter_map(split).filter(|(name, _)| !name.is_empty()) {
        let (slot, key) = match name {
            b"variable_qw_verb" => (&mut channel.verb, None),
            b"variable_qw_domain" => (&mut channel.domain, Some(Key::Organization)),
            b"variable_user_name" => (&mut channel.user, Some(Key::Actor)),
            b"variable_sip_auth_username" => (&mut channel.login, Some(Key::Actor)),
            b"Caller-Destination-Number" => (&mut channel.destination, Some(Key::Digits)),
            b"Unique-ID" => {
                // Not part of the question: a link compares it with what the PBX says.
                channel.channel = if channel.channel.is_none() { decode(value, decoded) } else { None };
                continue;
            }
            TIMESTAMP => (&mut channel.sent_at, Some(Key::Until)),
            name if key_name(name) == Some(WITHIN) => (&mut channel.within, Some(Key::Until)),
            name => {
                let Some(key) = key_of_variable(name)? else { continue };
                let range = decode(value, decoded).ok_or(WireError::of(ErrorReason::Malformed, key))?;
                if given.has(key) {
                    return Err(WireError::of(ErrorReason::DuplicateKey, key));
                }
                given = given.with(key);
                if let Some(slot) = free.next() {
                    *slot = Some((key, range));
                }
                continue;
            }
        };
        let range = decode(value, decoded).ok_or(WireError { reason: ErrorReason::Malformed, key })?;
        if slot.replace(range).is_some() {
            return Err(WireError { reason: ErrorReason::DuplicateKey, key });
        }
    }
    Ok(channel)
}
