//! The tests that need a real PBX, a kill, a full disk or a million users: minutes in all. `tests/README.md` is the
//! map.

mod crash;
mod pbx;
mod scale;
mod support;
