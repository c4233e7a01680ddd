//! Does one step of a question a number of times, for callgrind to count its instructions. `tests/perf/instructions`
//! runs it.
//!
//! ```text
//! instructions TASK DIALECT TIMES
//! ```

mod steps;

use std::path::Path;

use steps::{Bench, QuestionDialect, Task};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [task, dialect, times, ..] = arguments.as_slice() else {
        // Without a task it lists the tasks and their dialects, for the script that counts all of them.
        for task in Task::ALL {
            for dialect in task.dialects() {
                println!("{} {}", task.name(), dialect.name());
            }
        }
        return;
    };
    let task = Task::ALL.into_iter().find(|one| one.name() == task).expect("a task");
    let dialect = QuestionDialect::ALL.into_iter().find(|one| one.name() == dialect).expect("a dialect");
    let mut bench = Bench::new(&Path::new(env!("CARGO_MANIFEST_DIR")).join("config"));
    bench.run(task, &dialect, times.parse().expect("a number"));
}
