//! Links to PBXs: what the PBX holds follows what was decided.

pub mod ami;
