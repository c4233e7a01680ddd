//! The terminal in full-screen mode. Its former state is restored when `top` ends, also after an error.

use std::io::{self, Write};

use crossterm::style::{Attribute, Color, Print, SetAttribute, SetForegroundColor};
use crossterm::terminal::{
    Clear, ClearType, DisableLineWrap, EnableLineWrap, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode,
    enable_raw_mode,
};
use crossterm::{cursor, execute, queue, terminal};

use crate::cli::top::text::{ScreenPage, Tone};

/// A terminal in raw mode with the alternate screen, until this is dropped.
pub(super) struct Screen<'a, W: Write> {
    out: &'a mut W,
    /// Whether lines may be colored: `NO_COLOR` is absent or empty.
    has_colors: bool,
}

impl<'a, W: Write> Screen<'a, W> {
    /// Switches the terminal to full-screen mode.
    pub(super) fn take(out: &'a mut W) -> io::Result<Self> {
        enable_raw_mode()?;
        // From here on `drop` restores the terminal, also if the next step fails.
        let has_colors = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let screen = Self { out, has_colors };
        execute!(screen.out, EnterAlternateScreen, DisableLineWrap, cursor::Hide)?;
        Ok(screen)
    }

    /// Shows as much of the page as fits the terminal, and in the last row how many lines do not.
    pub(super) fn show(&mut self, page: &ScreenPage) -> io::Result<()> {
        let (columns, rows) = size()?;
        let room = usize::from(rows).saturating_sub(1);
        let fitted = page.fitted(usize::from(columns), room);
        for (row, (tone, text)) in (0_u16..).zip(&fitted.lines) {
            queue!(self.out, cursor::MoveTo(0, row))?;
            let color = match tone {
                Tone::Good => Some(Color::Green),
                Tone::Bad => Some(Color::Red),
                Tone::Heading | Tone::Plain => None,
            };
            if *tone == Tone::Heading {
                queue!(self.out, SetAttribute(Attribute::Bold))?;
            }
            if let Some(color) = color.filter(|_| self.has_colors) {
                queue!(self.out, SetForegroundColor(color))?;
            }
            queue!(self.out, Print(text), SetAttribute(Attribute::Reset))?;
            queue!(self.out, Clear(ClearType::UntilNewLine))?;
        }
        let used = u16::try_from(fitted.lines.len()).unwrap_or(rows);
        queue!(self.out, cursor::MoveTo(0, used), Clear(ClearType::FromCursorDown))?;
        let hint = match fitted.hidden {
            0 => "q: quit".to_owned(),
            hidden => format!("q: quit, {hidden} more"),
        };
        let hint: String = if hint.len() <= usize::from(columns) { hint } else { "q: quit".to_owned() };
        queue!(self.out, cursor::MoveTo(0, rows.saturating_sub(1)), Print(hint))?;
        self.out.flush()
    }
}

/// Columns and rows of the terminal. A terminal that does not know its size, as a serial line, counts as 80 by 24.
pub(super) fn size() -> io::Result<(u16, u16)> {
    let (columns, rows) = terminal::size()?;
    Ok((if columns == 0 { 80 } else { columns }, if rows == 0 { 24 } else { rows }))
}

impl<W: Write> Drop for Screen<'_, W> {
    fn drop(&mut self) {
        // If the terminal is gone, there is nothing to restore.
        execute!(self.out, cursor::Show, EnableLineWrap, LeaveAlternateScreen).ok();
        disable_raw_mode().ok();
    }
}
