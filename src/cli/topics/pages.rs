//! Sections of the pages of the manual, so that a terminal shows the same text as the page.

/// `README.md`.
pub(super) const README: &str = include_str!("../../../README.md");
/// `config/organizations/README.md`.
pub(super) const ORGANIZATIONS: &str = include_str!("../../../config/organizations/README.md");
/// `config/links/README.md`.
pub(super) const LINKS: &str = include_str!("../../../config/links/README.md");
/// `config/prometheus/README.md`.
pub(super) const PROMETHEUS: &str = include_str!("../../../config/prometheus/README.md");

/// The section under this heading, with the heading, up to the next heading of the same level or a higher one.
pub(super) fn section<'a>(page: &'a str, heading: &str) -> Option<&'a str> {
    let (mut fenced, mut offset) = (false, 0);
    let mut found: Option<(usize, usize)> = None;
    for line in page.split_inclusive('\n') {
        fenced ^= line.starts_with("```");
        let level = line.bytes().take_while(|byte| *byte == b'#').count();
        if level > 0 && !fenced {
            match found {
                Some((start, of)) if level <= of => return page.get(start..offset),
                None if line.trim_start_matches('#').trim() == heading => found = Some((offset, level)),
                _ => {}
            }
        }
        offset += line.len();
    }
    found.and_then(|(start, _)| page.get(start..))
}

#[cfg(test)]
mod tests {
    use super::section;

    #[test]
    fn a_section_ends_at_the_next_heading_of_its_level() {
        let page = "# A\na\n## B\nb\n```sh\n# no heading\n```\n### C\nc\n## D\nd\n";
        assert_eq!(section(page, "B"), Some("## B\nb\n```sh\n# no heading\n```\n### C\nc\n"));
        assert_eq!(section(page, "D"), Some("## D\nd\n"));
        assert_eq!(section(page, "no heading"), None);
    }
}
