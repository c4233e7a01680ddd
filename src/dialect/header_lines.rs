//! Splits a block of `name: value` lines, the form in which Asterisk and FreeSWITCH describe a call.

/// The lines of a block, without their line ends.
pub(super) fn lines_of(block: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut start = 0;
    memchr::memchr_iter(b'\n', block).chain([block.len()]).filter_map(move |end| {
        let line = block.get(start..end);
        start = end.saturating_add(1);
        line
    })
}

/// Splits a line at the first `: ` into name and value. The value may be empty. `None`: the line has no `: `.
pub(super) fn split(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = memchr::memchr_iter(b':', line).find(|&colon| line.get(colon.saturating_add(1)) == Some(&b' '))?;
    Some((line.get(..colon)?, line.get(colon.saturating_add(2)..)?))
}
