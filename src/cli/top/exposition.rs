//! Reads the text format of Prometheus back, as far as the sidecar writes it.

use std::collections::BTreeMap;

use thiserror::Error;

/// One line of `/metrics`: a value of a series.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SampleLine {
    pub(super) name: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) value: f64,
}

/// A line that is not in the text format of Prometheus.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("line {line} is not in the text format of Prometheus")]
pub(super) struct ExpositionError {
    /// The number of the line, from 1.
    line: usize,
}

/// The samples of a scrape, without comments.
pub(super) fn samples(text: &str) -> Result<Vec<SampleLine>, ExpositionError> {
    let lines = text.lines().enumerate().map(|(position, line)| (position + 1, line.trim()));
    let is_sample = |(_, line): &(usize, &str)| !line.is_empty() && !line.starts_with('#');
    lines.filter(is_sample).map(|(line, text)| sample(text).ok_or(ExpositionError { line })).collect()
}

/// `name{label="value",…} number`, with a time after it that is not read.
fn sample(line: &str) -> Option<SampleLine> {
    let (name, rest) = line.split_at_checked(line.find(|letter| !is_of_name(letter))?)?;
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (BTreeMap::new(), rest),
    };
    let value = rest.split_ascii_whitespace().next()?.parse().ok()?;
    (!name.is_empty()).then(|| SampleLine { name: name.to_owned(), labels, value })
}

/// The labels behind `{`, and what is behind `}`.
fn labels(mut rest: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    loop {
        rest = rest.trim_start_matches([' ', ',']);
        if let Some(behind) = rest.strip_prefix('}') {
            return Some((labels, behind));
        }
        let (name, quoted) = rest.split_once("=\"")?;
        let (value, behind) = unquoted(quoted)?;
        if name.is_empty() || !name.chars().all(is_of_name) {
            return None;
        }
        labels.insert(name.to_owned(), value);
        rest = behind;
    }
}

/// The text up to the closing quote, and what is behind it.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut letters = text.char_indices();
    while let Some((position, letter)) = letters.next() {
        match letter {
            '"' => return Some((value, text.get(position + 1..)?)),
            '\\' => value.push(match letters.next()?.1 {
                'n' => '\n',
                escaped => escaped,
            }),
            letter => value.push(letter),
        }
    }
    None
}

const fn is_of_name(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || matches!(letter, '_' | ':')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_with_labels_and_value() {
        let read = |line: &str| {
            let sample = sample(line)?;
            Some((sample.name, sample.labels.into_iter().collect::<Vec<_>>(), sample.value))
        };
        let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(read("up 1"), Some(("up".to_owned(), vec![], 1.0)));
        let all = r#"a:b_total{x="1",y="a \\ b \" c \n d, } =",} 2.5e3 1764000000000"#;
        let labels = vec![label("x", "1"), label("y", "a \\ b \" c \n d, } =")];
        assert_eq!(read(all), Some(("a:b_total".to_owned(), labels, 2_500.0)));
        assert_eq!(read(r#"h_bucket{le="+Inf"} +Inf"#).unwrap().2.to_string(), "inf");
        assert!(read("x NaN").unwrap().2.is_nan());
        for broken in
            ["x", "x{", "x{}", "{} 1", "x{a} 1", r#"x{a="b 1"#, r#"x{a="b} 1"#, r#"x{="b"} 1"#, "x one", "é 1"]
        {
            assert_eq!(read(broken), None, "{broken}");
        }
    }

    #[test]
    fn a_broken_line_is_named() {
        assert_eq!(samples("# HELP up Is up.\n\nup 1\n").unwrap().len(), 1);
        assert_eq!(samples("up 1\n<html>\n"), Err(ExpositionError { line: 2 }));
    }
}
