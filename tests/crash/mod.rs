//! After a kill, on a damaged store and on a full disk: no acknowledged change is lost, no ended session comes back,
//! and a damaged store is refused.
//!
//! `kill` kills the real program at random moments under the load of `load`, whose connections own their users;
//! `expected_state` knows which states each user may be in. `damage` flips and cuts bytes, `full` fills the disk,
//! `restore` restores backups meanwhile, and `faults` runs the gate on a `faulty_store`.

mod damage;
mod expected_state;
mod faults;
mod faulty_store;
mod full;
mod gate_client;
mod kill;
mod load;
mod restore;
