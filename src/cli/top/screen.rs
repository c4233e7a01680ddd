//! The terminal in full-screen mode. Its former state is restored when `top` ends, also after an error.

use std::io::{self, Write};

use crossterm::style::{Attribute, Color, Print, ResetColor, SetAttribute, SetForegroundColor};
use crossterm::terminal::{
    Clear, ClearType, DisableLineWrap, EnableLineWrap, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode,
    enable_raw_mode,
};
use crossterm::{cursor, execute, queue, terminal};

use crate::cli::top::text::{Tone, TonedLine};

/// A terminal in raw mode with the alternate screen, until this is dropped.
pub(super) struct Screen<'a, W: Write> {
    out: &'a mut W,
}

impl<'a, W: Write> Screen<'a, W> {
    /// Switches the terminal to full-screen mode.
    pub(super) fn take(out: &'a mut W) -> io::Result<Self> {
        enable_raw_mode()?;
        // From here on `drop` restores the terminal, also if the next step fails.
        let screen = Self { out };
        execute!(screen.out, EnterAlternateScreen, DisableLineWrap, cursor::Hide)?;
        Ok(screen)
    }

    /// Shows the lines, cut to the size of the terminal.
    pub(super) fn show(&mut self, lines: &[TonedLine]) -> io::Result<()> {
        let (columns, rows) = terminal::size()?;
        let room = usize::from(rows).saturating_sub(1);
        for (row, (tone, text)) in (0_u16..).zip(lines.iter().take(room)) {
            let shown: String = text.chars().take(usize::from(columns)).collect();
            queue!(self.out, cursor::MoveTo(0, row))?;
            match tone {
                Tone::Heading => queue!(self.out, SetAttribute(Attribute::Bold))?,
                Tone::Good => queue!(self.out, SetForegroundColor(Color::Green))?,
                Tone::Bad => queue!(self.out, SetForegroundColor(Color::Red))?,
                Tone::Plain => {}
            }
            queue!(self.out, Print(shown), SetAttribute(Attribute::Reset), ResetColor)?;
            queue!(self.out, Clear(ClearType::UntilNewLine))?;
        }
        let used = u16::try_from(lines.len().min(room)).unwrap_or(rows);
        queue!(self.out, cursor::MoveTo(0, used), Clear(ClearType::FromCursorDown))?;
        queue!(self.out, cursor::MoveTo(0, rows.saturating_sub(1)), Print("q: quit"))?;
        self.out.flush()
    }
}

impl<W: Write> Drop for Screen<'_, W> {
    fn drop(&mut self) {
        // If the terminal is gone, there is nothing to restore.
        execute!(self.out, cursor::Show, EnableLineWrap, LeaveAlternateScreen).ok();
        disable_raw_mode().ok();
    }
}
