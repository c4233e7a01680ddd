//! Replays the fuzz corpus on the stable compiler: every input, and a fixed sequence of mutations.
//!
//! `fuzz/run` looks for new inputs. This test runs with the ordinary tests and finds old faults that come back. A panic
//! message has the input.

use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use queuewarden::fuzzing::{TARGETS, Target};

/// Number of mutated inputs of all targets; they take a few seconds.
const MUTATIONS: usize = 20_000;

/// One mutation in this many goes to the target that works on files, which is slower by this factor.
const SLOW_SHARE: usize = 40;

/// Greatest length of a mutated input in bytes.
const INPUT_BYTES_MAX: usize = 32_768;

#[test]
fn every_fuzz_target_has_a_corpus_and_every_corpus_a_target() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names_in("corpus"), targets, "folders of fuzz/corpus");
    let files: BTreeSet<String> = targets.iter().map(|name| format!("{name}.rs")).collect();
    assert_eq!(names_in("fuzz_targets"), files, "files of fuzz/fuzz_targets");
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    let run = manifest.lines().filter_map(|line| line.strip_prefix("path = \"fuzz_targets/")?.strip_suffix('"'));
    assert_eq!(run.map(str::to_owned).collect::<BTreeSet<_>>(), files, "targets of fuzz/Cargo.toml");
    for (name, body) in TARGETS {
        let source = fs::read_to_string(fuzz().join("fuzz_targets").join(format!("{name}.rs"))).unwrap();
        assert!(source.contains(&format!("queuewarden::fuzzing::{name}(data)")), "{name}.rs runs another target");
        assert!(!corpus_of(name).is_empty(), "the corpus of {name} is empty");
        body(b"");
    }
}

#[test]
fn every_file_of_the_corpus_is_named_after_what_it_shows() {
    for (target, _) in TARGETS {
        for (path, _) in corpus_of(target) {
            let name = path.file_name().unwrap().to_str().unwrap();
            let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
            let is_hash = name.len() == 40 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
            assert!(name.bytes().all(word) && !is_hash, "give {} a name", path.display());
        }
    }
}

#[test]
fn the_corpus_breaks_nothing() {
    for target in TARGETS {
        for (path, input) in corpus_of(target.0) {
            run(target, &input, &path.display().to_string());
        }
    }
}

#[test]
fn mutations_of_the_corpus_break_nothing() {
    let mut random_source = RandomSource(0x9E37_79B9_7F4A_7C15);
    let (slow, fast): (Vec<&Target>, Vec<&Target>) = TARGETS.iter().partition(|(name, _)| *name == "configuration");
    let corpora = |targets: &[&Target]| -> Vec<Vec<Vec<u8>>> {
        let inputs = |target: &&Target| corpus_of(target.0).into_iter().map(|(_, input)| input).collect();
        targets.iter().map(inputs).collect()
    };
    let (slow_corpora, fast_corpora) = (corpora(&slow), corpora(&fast));
    for turn in 0..MUTATIONS {
        let (targets, corpora) = if turn % SLOW_SHARE == 0 { (&slow, &slow_corpora) } else { (&fast, &fast_corpora) };
        let choice = turn / targets.len() % targets.len();
        let input = random_source.mutate(&corpora[choice]);
        run(targets[choice], &input, &format!("mutation {turn}"));
    }
}

/// Runs a target. The panic message has the input in a form that can be saved.
fn run((name, body): &Target, input: &[u8], what: &str) {
    let unbroken = catch_unwind(|| body(input)).is_ok();
    assert!(unbroken, "{name} breaks on {what}, which is b\"{}\"", input.escape_ascii());
}

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

fn names_in(folder: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(fuzz().join(folder)).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// The inputs of a target, by name.
fn corpus_of(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(fuzz().join("corpus").join(target)).unwrap();
    let mut inputs: Vec<(PathBuf, Vec<u8>)> = entries
        .map(|entry| {
            let path = entry.unwrap().path();
            let input = fs::read(&path).unwrap();
            (path, input)
        })
        .collect();
    inputs.sort_unstable();
    inputs
}

/// xorshift64: the same numbers on every machine.
struct RandomSource(u64);

impl RandomSource {
    /// A number below `bound`, or 0.
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(bound.max(1)).unwrap()).unwrap()
    }

    /// A part of the input.
    fn range(&mut self, input: &[u8]) -> std::ops::Range<usize> {
        let start = self.below(input.len() + 1);
        start..start + self.below((input.len() - start).min(64) + 1)
    }

    /// One input of the corpus, changed in one to four places.
    fn mutate(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        const LOVED: &[u8] = b"\n\r\0 =:*#\"[]{},.-&09aZ_\x1b\x7f\xc3\xff";
        let mut input = corpus[self.below(corpus.len())].clone();
        for _ in 0..=self.below(4) {
            let place = self.below(input.len() + 1);
            match self.below(7) {
                0 if place < input.len() => input[place] ^= 1 << self.below(8),
                1 if place < input.len() => input[place] = LOVED[self.below(LOVED.len())],
                2 => input.insert(place, LOVED[self.below(LOVED.len())]),
                3 => drop(input.drain(self.range(&input.clone()))),
                4 => {
                    let part = input[self.range(&input)].to_vec();
                    input.splice(place..place, part);
                }
                5 => {
                    let other = &corpus[self.below(corpus.len())];
                    let part = other[self.range(other)].to_vec();
                    input.splice(place..place, part);
                }
                _ => input.truncate(place),
            }
        }
        input.truncate(INPUT_BYTES_MAX);
        input
    }
}
