# Short names for commands that can be typed as well. `just` lists them.

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

# Build as a package holds it: one unit, optimized as a whole. It takes minutes.
dist:
    cargo build --locked --profile dist

# Build the sidecar alone, without the commands that speak to a running one.
alone:
    cargo build --locked --release --no-default-features

# Fuzz every target, each for this many seconds.
fuzz seconds="10":
    fuzz/run {{seconds}}

# Check the dependencies.
deny:
    cargo deny check
