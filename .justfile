# Short names for what can as well be typed. `just` lists them.

[private]
default:
    @just --list

# Run the demo.
run:
    cargo run --release

# Exactly what CI runs.
check:
    .ci/run

# Install what the tests need and run all of them.
test *options:
    tests/run {{options}}

# The tests that need nothing but cargo.
quick:
    cargo test --lib --bins

# Format everything.
fmt:
    cargo fmt

# Lint everything.
lint:
    cargo clippy --all-targets -- -D warnings

# Open the documentation.
doc:
    cargo doc --no-deps --open

# Fuzz every target for so many seconds.
fuzz seconds="10":
    fuzz/run {{seconds}}

# Check the dependencies.
deny:
    cargo deny check
