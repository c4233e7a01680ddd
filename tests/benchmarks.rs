//! The benchmarks that start servers or load large organizations, one after another on request:
//!
//! ```text
//! cargo bench --bench benchmarks -- NAME [ARGUMENT]…
//! ```
//!
//! Without a name it lists the names. `tests/perf/README.md` says what each of them measures.

mod perf;
mod support;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let Some((name, arguments)) = arguments.split_first() else {
        println!("a name is missing: {}", perf::BENCHMARKS.map(|(name, _)| name).join(", "));
        return;
    };
    let found = perf::BENCHMARKS.iter().find(|(known, _)| known == name);
    let (_, run) = found.unwrap_or_else(|| panic!("there is no benchmark `{name}`"));
    run(arguments);
}
