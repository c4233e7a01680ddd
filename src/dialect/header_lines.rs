//! Blocks of lines `name: value`, as Asterisk and FreeSWITCH send them.

/// The lines of a block, without their ends.
pub(super) fn lines_of(lines: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut start = 0;
    memchr::memchr_iter(b'\n', lines).chain([lines.len()]).filter_map(move |end| {
        let line = lines.get(start..end);
        start = end.saturating_add(1);
        line
    })
}

/// Splits a line at the first `: `; the value may be empty and may hold anything but a line's end.
pub(super) fn split(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = memchr::memchr_iter(b':', line).find(|&colon| line.get(colon.saturating_add(1)) == Some(&b' '))?;
    Some((line.get(..colon)?, line.get(colon.saturating_add(2)..)?))
}
