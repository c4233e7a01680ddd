//! Does one step of a question so many times, for callgrind to count its instructions: `tests/perf/instructions` runs
//! it.
//!
//! ```text
//! instructions TASK DIALECT TIMES
//! ```

mod steps;

use std::path::Path;

use steps::{Asked, Bench, Task};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [task, asked, times, ..] = arguments.as_slice() else {
        // What there is to count, for whoever counts all.
        for task in Task::ALL {
            for asked in task.asked() {
                println!("{} {}", task.name(), asked.name());
            }
        }
        return;
    };
    let task = Task::ALL.into_iter().find(|one| one.name() == task).expect("a task");
    let asked = Asked::ALL.into_iter().find(|one| one.name() == asked).expect("a dialect");
    let mut bench = Bench::new(&Path::new(env!("CARGO_MANIFEST_DIR")).join("config"));
    bench.run(task, &asked, times.parse().expect("a number"));
}
