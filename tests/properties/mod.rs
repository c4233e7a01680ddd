//! Properties: conditions that hold for every organization, every question and every division of a stream, tested on
//! millions of random cases.
//!
//! `support::random_source` draws numbers, `models` lists what can be drawn, `worlds` draws organizations and `events`
//! questions. `side_by_side` compares the product with the reference; `small_worlds` enumerates the cases of `laws`;
//! `naive_model` keeps the state in plain lists. The tests are in `access`, `differential`, `laws`, `advice`, `bytes`,
//! `feature_codes`, `history`, `late_transfers`, `linked`, `members`, `shifts` and `stops`.

mod access;
mod advice;
mod bytes;
mod differential;
mod events;
mod feature_codes;
mod grammar;
mod history;
mod late_transfers;
mod laws;
mod linked;
mod members;
mod models;
mod naive_model;
mod shifts;
mod side_by_side;
mod small_worlds;
mod stops;
mod worlds;

/// The factor for the number of seeds and cases: the value of `QUEUEWARDEN_PROPERTY_FACTOR`, or 1.
///
/// `tests/run --long` sets the variable to 10.
fn factor() -> u32 {
    let given = std::env::var("QUEUEWARDEN_PROPERTY_FACTOR");
    given.map_or(1, |factor| factor.parse().expect("QUEUEWARDEN_PROPERTY_FACTOR is a whole number"))
}

/// A configuration folder with the shipped role models and without an organization.
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
