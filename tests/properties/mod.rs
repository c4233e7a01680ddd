//! Properties: what holds for every organization, every question and every cut of the bytes, tried on millions of
//! random ones.
//!
//! `support::random_source` draws numbers, `models` lists what can be drawn, `worlds` draws organizations and `events`
//! questions. `side_by_side` compares the product with the reference; `small_worlds` enumerates the cases of `laws`;
//! `naive_model` keeps the state in plain lists. The tests are in `differential`, `laws`, `bytes`, `feature_codes` and
//! `history`.

mod bytes;
mod differential;
mod events;
mod feature_codes;
mod grammar;
mod history;
mod laws;
mod models;
mod naive_model;
mod side_by_side;
mod small_worlds;
mod worlds;

/// How many times as many seeds and cases as usual are tried: 1, or what `QUEUEWARDEN_PROPERTY_FACTOR` says.
///
/// `tests/run --long` sets it to 10.
fn factor() -> u32 {
    let given = std::env::var("QUEUEWARDEN_PROPERTY_FACTOR");
    given.map_or(1, |factor| factor.parse().expect("QUEUEWARDEN_PROPERTY_FACTOR is a whole number"))
}

/// A configuration folder with the shipped role models and no organization yet.
fn folder_with_models() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("organizations")).unwrap();
    std::fs::create_dir(folder.path().join("models")).unwrap();
    let shipped = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("config/models");
    for model in std::fs::read_dir(shipped).unwrap() {
        let model = model.unwrap();
        std::fs::copy(model.path(), folder.path().join("models").join(model.file_name())).unwrap();
    }
    std::fs::write(folder.path().join("queuewarden.toml"), "[state]\nstore = \"memory\"\n").unwrap();
    folder
}
