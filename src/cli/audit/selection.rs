//! The lines of both chains that a command prints, in the order of their times.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::path::Path;

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::audit::AuditChain;
use crate::audit::search::{BlockReader, LineRange, lines_of, ranges, time_of};
use crate::audit::segments::{Segment, segments};
use crate::cli::audit::filter::{FilterArguments, LineFilter};
use crate::cli::audit::line_text::print;
use crate::cli::audit::{AuditCommandError, FOLLOW_INTERVAL, TailArguments, note};

/// A selected line as it is in the log, and its members.
#[derive(Debug)]
pub(super) struct SelectedLine {
    time: Timestamp,
    pub(super) line: Vec<u8>,
    pub(super) members: Map<String, Value>,
}

impl SelectedLine {
    fn new(line: &[u8], members: Map<String, Value>) -> Self {
        Self { time: time_of(line).unwrap_or(Timestamp::MIN), line: line.to_vec(), members }
    }
}

/// The lines of a log that a command prints.
pub(super) struct Selection<'a> {
    log: &'a Path,
    pub(super) filter: LineFilter,
}

/// Where the following of a chain goes on: behind this byte of this file. `None`: with the first file.
type FollowedPlace = Option<(Segment, u64)>;

impl<'a> Selection<'a> {
    pub(super) fn new(log: &'a Path, filter: &FilterArguments, config: &Path) -> Result<Self, AuditCommandError> {
        std::fs::metadata(log).map_err(|source| AuditCommandError::Log { path: log.to_owned(), source })?;
        let filter = LineFilter::new(filter, config);
        if filter.is_unresolved {
            note(
                "the configuration does not load: lines are found by the names that they hold, and typos are not named",
            );
        }
        if filter.period.to.is_some_and(|to| to > Timestamp::now()) {
            note("`--to` is in the future: lines up to now are selected");
        }
        Ok(Self { log, filter })
    }

    fn ranges(&self, chain: AuditChain) -> Result<Vec<LineRange>, AuditCommandError> {
        ranges(chain, self.log, &self.filter.period).map_err(|source| self.failed(source))
    }

    fn failed(&self, source: io::Error) -> AuditCommandError {
        AuditCommandError::Log { path: self.log.to_owned(), source }
    }

    /// Says why nothing was found, if a name is the cause.
    pub(super) fn end(mut self, is_found: bool) -> Result<(), AuditCommandError> {
        match self.filter.unknown.pop() {
            Some(unknown) if !is_found => Err(AuditCommandError::UnknownName(unknown)),
            _ => {
                if !is_found {
                    note("no line is selected");
                }
                Ok(())
            }
        }
    }

    /// Calls `each` with every selected line. The lines of a chain stay in their order; between the chains the earlier
    /// line is first.
    pub(super) fn each(
        &self,
        mut each: impl FnMut(SelectedLine) -> Result<(), AuditCommandError>,
    ) -> Result<(), AuditCommandError> {
        let mut streams = vec![];
        for chain in AuditChain::ALL {
            let mut stream = LineStream::new(self.ranges(*chain)?);
            let first = stream.next(&self.filter).map_err(|source| self.failed(source))?;
            streams.extend(first.map(|first| (stream, first)));
        }
        while let Some(earliest) = (0..streams.len()).min_by_key(|&at| streams.get(at).map(|(_, line)| line.time)) {
            let Some((stream, line)) = streams.get_mut(earliest) else { break };
            match stream.next(&self.filter).map_err(|source| self.failed(source))? {
                Some(next) => each(std::mem::replace(line, next))?,
                None => each(streams.remove(earliest).1)?,
            }
        }
        Ok(())
    }

    pub(super) fn tail(self, options: &TailArguments, out: &mut impl Write) -> Result<(), AuditCommandError> {
        let mut lasts = vec![];
        let mut places = vec![];
        for chain in AuditChain::ALL {
            let (last, place) = self.last_of(*chain, options.lines)?;
            lasts.push(last);
            places.push((*chain, place));
        }
        let merged = merged(lasts);
        for selected in merged.iter().skip(merged.len().saturating_sub(options.lines)) {
            print(&selected.line, &selected.members, options.json, out)?;
        }
        out.flush()?;
        if options.follow {
            if let Some(unknown) = self.filter.unknown.first() {
                note(&unknown.to_string());
            }
            return self.follow(places, options.json, out);
        }
        self.end(!merged.is_empty() || options.lines == 0)
    }

    /// The last selected lines of a chain, at most this number, and the place behind the chain.
    fn last_of(
        &self,
        chain: AuditChain,
        lines: usize,
    ) -> Result<(VecDeque<SelectedLine>, FollowedPlace), AuditCommandError> {
        let mut last: VecDeque<SelectedLine> = VecDeque::new();
        let mut place = None;
        // From the newest line backwards, until there are enough.
        for range in self.ranges(chain)?.iter().rev() {
            place = place.or(Some((range.segment.clone(), range.end())));
            if last.len() >= lines {
                break;
            }
            let mut take_block = |block: &[u8]| {
                if !self.filter.may_admit(block) {
                    return true;
                }
                let mut from_block = vec![];
                for line in lines_of(block).rev() {
                    if last.len() + from_block.len() >= lines {
                        break;
                    }
                    from_block.extend(self.filter.admits(line).map(|members| SelectedLine::new(line, members)));
                }
                for line in from_block {
                    last.push_front(line);
                }
                last.len() < lines
            };
            range.each_block_backwards(&mut take_block).map_err(|source| self.failed(source))?;
        }
        Ok((last, place))
    }

    /// Prints each line that is written from now on, also in files that are begun meanwhile, until the output is
    /// closed.
    fn follow(
        &self,
        mut places: Vec<(AuditChain, FollowedPlace)>,
        json: bool,
        out: &mut impl Write,
    ) -> Result<(), AuditCommandError> {
        loop {
            let mut is_behind = false;
            let mut new = vec![];
            for (chain, place) in &mut places {
                // List the files before reading: once a newer file exists, nothing is added to the current one.
                let all = segments(*chain, self.log).map_err(|source| self.failed(source))?;
                let newer = all.into_iter().find(|segment| place.as_ref().is_none_or(|(current, _)| segment > current));
                if let Some((current, position)) = place {
                    let (lines, end) = self.new_lines(current, *position)?;
                    new.push(lines);
                    *position = end;
                }
                if let Some(newer) = newer {
                    *place = Some((newer, 0));
                    is_behind = true;
                }
            }
            for selected in merged(new) {
                print(&selected.line, &selected.members, json, out)?;
            }
            out.flush()?;
            if !is_behind {
                std::thread::sleep(FOLLOW_INTERVAL);
            }
        }
    }

    /// The selected lines of a file from a byte on, and the byte behind the last line. A file that was deleted
    /// meanwhile, because its retention ended, has no lines.
    fn new_lines(&self, segment: &Segment, from: u64) -> Result<(VecDeque<SelectedLine>, u64), AuditCommandError> {
        let range = match LineRange::behind(segment.clone(), from) {
            Ok(range) => range,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((VecDeque::new(), from)),
            Err(source) => return Err(AuditCommandError::Log { path: segment.path.clone(), source }),
        };
        let end = range.end().max(from);
        let mut lines = VecDeque::new();
        let mut take = |line: &[u8]| {
            lines.extend(self.filter.admits(line).map(|members| SelectedLine::new(line, members)));
            true
        };
        range.each_line(&mut take).map_err(|source| self.failed(source))?;
        Ok((lines, end))
    }
}

/// The lines of several chains in one list: those of a chain in their order, between chains the earlier line first.
fn merged(mut lists: Vec<VecDeque<SelectedLine>>) -> Vec<SelectedLine> {
    let mut merged = vec![];
    loop {
        let earliest =
            lists.iter_mut().filter(|list| !list.is_empty()).min_by_key(|list| list.front().map(|it| it.time));
        let Some(line) = earliest.and_then(VecDeque::pop_front) else { return merged };
        merged.push(line);
    }
}

/// Reads the selected lines of a chain one by one.
struct LineStream {
    ranges: std::vec::IntoIter<LineRange>,
    current: Option<(LineRange, BlockReader)>,
    /// Selected lines of the block that was read last.
    ready: VecDeque<SelectedLine>,
}

impl LineStream {
    fn new(ranges: Vec<LineRange>) -> Self {
        Self { ranges: ranges.into_iter(), current: None, ready: VecDeque::new() }
    }

    fn next(&mut self, filter: &LineFilter) -> io::Result<Option<SelectedLine>> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Ok(Some(line));
            }
            let Some((range, reader)) = &mut self.current else {
                let Some(range) = self.ranges.next() else { return Ok(None) };
                let reader = BlockReader::new(&range);
                self.current = Some((range, reader));
                continue;
            };
            match reader.next(range)? {
                None => self.current = None,
                Some(block) if filter.may_admit(block) => {
                    let admitted =
                        lines_of(block).filter_map(|line| Some(SelectedLine::new(line, filter.admits(line)?)));
                    self.ready.extend(admitted);
                }
                Some(_) => {}
            }
        }
    }
}
