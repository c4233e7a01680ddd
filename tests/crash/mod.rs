//! What is left when the process is killed, when the store is damaged, and when the disk is full: nothing that was
//! acknowledged is lost, nothing that ended comes back, and what cannot be trusted is refused.
//!
//! `kill` ends the real binary at random moments under the load of `load`, whose connections own their users, so that
//! `expected_state` knows what has to be there. `damage` flips and cuts, `full` takes the room away, `faults` puts a store behind
//! the gate that fails when it is told to.

mod damage;
mod expected_state;
mod faults;
mod faulty_store;
mod full;
mod gate_client;
mod kill;
mod load;
