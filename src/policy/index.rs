//! Where names are found, for millions of them: a hash table that waits for memory once.
//!
//! All that a name could be stands in one line of the processor's cache. A table of a library keeps tags of the hashes
//! apart from the entries, so it waits twice, and waiting is what a decision about somebody in no cache consists of:
//! with this table it takes 650 ns instead of 950 (`cargo bench --bench timings`). What it lacks nobody needs here:
//! nothing is ever taken out of it.

use std::hint::black_box;

/// Entries of a line; with their tags they fill the 64 bytes of a cache line.
const ENTRIES_PER_LINE: usize = 8;
/// Lines are made for so many entries each: more, and too many names stand in the line behind their own.
const ENTRIES_PER_LINE_MEANT: usize = 5;
/// An entry that is none.
const NONE: u32 = u32::MAX;

/// Some names, each with an entry that says whose it is. The names themselves are kept by whoever made the entries.
#[derive(Debug, Default)]
pub(super) struct NameIndex {
    /// A power of two, or none.
    lines: Vec<Line>,
    length: usize,
}

/// From the first to the last: what stands behind an entry that is none is none.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Line {
    tags: [u32; ENTRIES_PER_LINE],
    entries: [u32; ENTRIES_PER_LINE],
}

impl Line {
    const EMPTY: Self = Self { tags: [0; ENTRIES_PER_LINE], entries: [NONE; ENTRIES_PER_LINE] };

    fn iter(&self) -> impl Iterator<Item = (u32, u32)> {
        self.tags.iter().copied().zip(self.entries.iter().copied())
    }
}

impl NameIndex {
    /// How many there are.
    pub(super) const fn len(&self) -> usize {
        self.length
    }

    /// The entry with this hash that `is_it`.
    pub(super) fn find(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        for position in self.way(hash) {
            for (tag, entry) in self.lines.get(position)?.iter() {
                if entry == NONE {
                    return None;
                }
                if tag == tag_of(hash) && is_it(entry) {
                    return Some(entry);
                }
            }
        }
        None
    }

    /// Brings the line that a name of this hash stands in.
    pub(super) fn touch(&self, hash: u64) {
        black_box(self.lines.get(self.first(hash)).and_then(|line| line.tags.first().copied()));
    }

    /// An entry in the line of this hash that has its tag: nearly always the one that is looked for.
    pub(super) fn likely(&self, hash: u64) -> Option<u32> {
        let tag = tag_of(hash);
        let line = self.lines.get(self.first(hash))?;
        // All are looked at, so that nothing has to be guessed before the line is there.
        let found = line.iter().fold(NONE, |found, (of, entry)| found.min(if of == tag { entry } else { NONE }));
        (found != NONE).then_some(found)
    }

    /// Makes room for so many in all; `hash_of` says an entry's hash.
    pub(super) fn reserve(&mut self, names: usize, hash_of: impl Fn(u32) -> u64) {
        let lines = names.div_ceil(ENTRIES_PER_LINE_MEANT).next_power_of_two();
        if names == 0 || lines <= self.lines.len() {
            return;
        }
        let before = std::mem::replace(&mut self.lines, vec![Line::EMPTY; lines]);
        let entries = before.iter().flat_map(Line::iter).map(|(_, entry)| entry);
        for entry in entries.filter(|&entry| entry != NONE) {
            self.put(hash_of(entry), entry);
        }
    }

    /// Adds an entry whose name is not there.
    pub(super) fn insert(&mut self, hash: u64, entry: u32, hash_of: impl Fn(u32) -> u64) {
        self.length = self.length.saturating_add(1);
        self.reserve(self.length, hash_of);
        self.put(hash, entry);
    }

    fn put(&mut self, hash: u64, entry: u32) {
        // INVARIANT: `reserve` was asked for it, so some line has room.
        for position in self.way(hash) {
            let Some(line) = self.lines.get_mut(position) else { return };
            let mut places = line.tags.iter_mut().zip(&mut line.entries);
            if let Some((tag, free)) = places.find(|(_, there)| **there == NONE) {
                (*tag, *free) = (tag_of(hash), entry);
                return;
            }
        }
    }

    /// The lines in which to look, one after the other.
    fn way(&self, hash: u64) -> impl Iterator<Item = usize> + use<> {
        let (first, count) = (self.first(hash), self.lines.len());
        (0..count).map(move |step| first.wrapping_add(step) & count.wrapping_sub(1))
    }

    fn first(&self, hash: u64) -> usize {
        let start = usize::try_from(hash & u64::from(u32::MAX)).unwrap_or_default();
        start & self.lines.len().wrapping_sub(1)
    }
}

const fn tag_of(hash: u64) -> u32 {
    (hash >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Entries with the hashes that `hash_of` gives, found again by hash and number, and none beside them.
    fn holds_what_was_put_in(count: u32, hash_of: impl Fn(u32) -> u64 + Copy) {
        let mut names = NameIndex::default();
        assert_eq!(names.find(hash_of(0), |_| true), None, "nobody is in an empty table");
        for entry in 0..count {
            names.insert(hash_of(entry), entry, hash_of);
        }
        assert_eq!(names.len(), count as usize);
        for entry in 0..count {
            assert_eq!(names.find(hash_of(entry), |found| found == entry), Some(entry));
            names.touch(hash_of(entry));
        }
        assert_eq!(names.find(hash_of(count), |found| found == count), None);
    }

    #[test]
    fn an_entry_is_found_however_many_share_its_line() {
        for count in [1, 5, 6, 8, 9, 40, 41, 2_000] {
            holds_what_was_put_in(count, |entry| u64::from(entry).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            // All begin in one line, and then all have one tag.
            holds_what_was_put_in(count, |entry| u64::from(entry) << 32);
            holds_what_was_put_in(count, |_| 7);
            // All begin in the last line there is: the way goes on at the first.
            holds_what_was_put_in(count, |_| u64::MAX);
        }
    }

    #[test]
    fn the_likely_one_is_who_stands_alone_with_its_tag() {
        let hash_of = |entry: u32| u64::from(entry).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut names = NameIndex::default();
        names.reserve(100, hash_of);
        for entry in 0..5 {
            names.insert(hash_of(entry), entry, hash_of);
        }
        assert!((0..5).all(|entry| names.likely(hash_of(entry)) == Some(entry)));
        assert_eq!((names.likely(hash_of(9)), NameIndex::default().likely(7)), (None, None));
    }
}
