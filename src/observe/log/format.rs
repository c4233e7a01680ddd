//! The format of a line of the log. The names are ours; the values may come from a peer. Every character that could
//! begin a line, end a string or control a terminal is escaped.

use std::fmt::{self, Debug, Write};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::limits::LOG_VALUE_BYTES_MAX;
use crate::observe::log::Format;
use crate::telephony::is_dangerous;

/// The names that every line has. A field with the same name gets a trailing `_`.
const RESERVED_NAMES: &[&str] = &["timestamp", "level", "target", "message"];

/// Writes each event as one line.
pub(super) struct Lines(pub(super) Format);

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let mut values = EscapedValues { format: self.0, message: String::new(), fields: String::new() };
        event.record(&mut values);
        let (level, target) = (event.metadata().level(), event.metadata().target());
        let EscapedValues { message, fields, .. } = values;
        match self.0 {
            Format::Json => {
                let message = if message.is_empty() { "\"\"" } else { &message };
                writeln!(
                    writer,
                    r#"{{"timestamp":"{time}","level":"{level}","target":"{target}","message":{message}{fields}}}"#
                )
            }
            Format::Text => writeln!(writer, "{time} {level:>5} {target}: {message}{fields}"),
        }
    }
}

/// The values of one event, escaped as they are recorded.
struct EscapedValues {
    format: Format,
    message: String,
    fields: String,
}

impl EscapedValues {
    fn name(&mut self, field: &Field) {
        let name = field.name();
        let mark = if RESERVED_NAMES.contains(&name) { "_" } else { "" };
        // Writing to a string cannot fail.
        match self.format {
            Format::Json => write!(self.fields, ",\"{name}{mark}\":"),
            Format::Text => write!(self.fields, " {name}{mark}="),
        }
        .ok();
    }

    fn text(&mut self, field: &Field, text: &str) {
        if field.name() == "message" {
            match self.format {
                Format::Json => quote(text, &mut self.message),
                Format::Text => escape(text, &mut self.message),
            }
            return;
        }
        self.name(field);
        quote(text, &mut self.fields);
    }

    fn plain(&mut self, field: &Field, value: impl fmt::Display) {
        self.name(field);
        self.fields += &value.to_string();
    }
}

impl Visit for EscapedValues {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.plain(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.plain(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.plain(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let mut text = BoundedText(String::new());
        // Fails at the bound of a value: the rest is cut.
        write!(text, "{value:?}").ok();
        self.text(field, &text.0);
    }
}

/// A string that refuses text beyond [`LOG_VALUE_BYTES_MAX`], so that a large value never fills the memory.
struct BoundedText(String);

impl Write for BoundedText {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.push_str(shortened(text));
        if self.0.len() > LOG_VALUE_BYTES_MAX { Err(fmt::Error) } else { Ok(()) }
    }
}

/// At most [`LOG_VALUE_BYTES_MAX`] bytes of the text, and one character more if it is longer.
fn shortened(text: &str) -> &str {
    let end = (LOG_VALUE_BYTES_MAX + 1..text.len()).find(|&end| text.is_char_boundary(end));
    end.and_then(|end| text.get(..end)).unwrap_or(text)
}

/// Appends the text as a JSON string.
fn quote(text: &str, out: &mut String) {
    out.push('"');
    escape(text, out);
    out.push('"');
}

/// Appends the text with escapes for `"`, `\` and every character of [`is_dangerous`]; a longer text ends with `…`.
fn escape(text: &str, out: &mut String) {
    let shortened = shortened(text);
    let mut room = LOG_VALUE_BYTES_MAX;
    for character in shortened.chars() {
        let Some(left) = room.checked_sub(character.len_utf8()) else { break };
        room = left;
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            _ if is_dangerous(character) => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    write!(out, "\\u{unit:04x}").ok();
                }
            }
            _ => out.push(character),
        }
    }
    if shortened.len() > LOG_VALUE_BYTES_MAX {
        out.push('…');
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[derive(Clone, Default)]
    struct CapturedLog(Arc<Mutex<Vec<u8>>>);

    impl io::Write for CapturedLog {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The lines that `log` writes in this format.
    fn logged(format: Format, log: impl FnOnce()) -> String {
        let captured = CapturedLog::default();
        let writer = captured.clone();
        let lines = tracing_subscriber::fmt::layer().event_format(Lines(format)).with_writer(move || writer.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), log);
        let bytes = captured.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn no_value_begins_a_line_or_controls_a_terminal() {
        let all: String = (0..=0x11_ffff).step_by(7).chain(0..=0x2100).filter_map(char::from_u32).collect();
        let forged = "x\u{1b}]0;x\u{7}\n{\"decision\":\"allow\"}\r\n\u{9b}31m\u{85}\u{2028}\"\\\u{202e}";
        for format in [Format::Json, Format::Text] {
            for text in [forged, &all.chars().take(600).collect::<String>()] {
                let line = logged(format, || {
                    tracing::warn!(value = text, shown = %text, debugged = ?text, "{text}");
                });
                assert_eq!(line.matches('\n').count(), 1, "{line:?}");
                let body = line.strip_suffix('\n').unwrap();
                assert!(!body.chars().any(is_dangerous), "{line:?}");
                if format == Format::Json {
                    let read: serde_json::Value = serde_json::from_str(body).expect(body);
                    assert_eq!(read["value"], text, "the escaped value reads as the original");
                    assert_eq!(read["message"], text);
                    assert!(read.get("decision").is_none());
                }
            }
        }
    }

    #[test]
    fn a_value_is_cut_where_it_is_too_long() {
        let long = "ä".repeat(1 << 20);
        for format in [Format::Json, Format::Text] {
            let line = logged(format, || tracing::info!(long, shown = %long, "{long}"));
            assert!(line.len() < 4 * LOG_VALUE_BYTES_MAX && line.matches('…').count() == 3, "{}", line.len());
        }
    }

    #[test]
    fn a_field_with_a_reserved_name_is_renamed() {
        let line =
            logged(Format::Json, || tracing::info!(target = "x", level = 3, ok = true, none = None::<&str>, "said"));
        let read: serde_json::Value = serde_json::from_str(&line).expect(&line);
        assert_eq!((&read["level"], &read["level_"], &read["ok"]), (&"INFO".into(), &3.into(), &true.into()));
        assert_eq!((&read["target_"], &read["message"]), (&"x".into(), &"said".into()), "{line}");
        let line = logged(Format::Text, || tracing::info!(count = 3_u64, who = "a b", "said"));
        assert!(line.ends_with("tests: said count=3 who=\"a b\"\n"), "{line}");
    }
}
