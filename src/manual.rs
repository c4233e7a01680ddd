//! Why queuewarden is as it is: the design decisions, with the alternative that each of them excludes.
//!
//! This module holds no code. Each module describes its own part; how to operate them is in `config/README.md`.
//!
//! # Why a sidecar?
//!
//! A PBX has no veto. Its own switches say who may use a feature code, not who may do what in which queue. A process
//! beside the PBX can be tested, observed and restarted without touching calls. The price is one more process that can
//! be down: the shipped dialplans refuse supervision then, and login follows a switch of the operator.
//!
//! # Why reject instead of repair?
//!
//! Two programs that read one message differently are how callers get past a check. A byte outside the grammar is
//! refused, never stripped; a key that is given twice is an error, and the last value never wins. This holds for every
//! dialect ([`crate::dialect`]) and for the configuration ([`crate::config`]).
//!
//! # Why are roles data, not code?
//!
//! Two products disagree about nearly every right, and the next installation differs from both. A grant is a row of a
//! file; `explain` can cite its line, and a test can compare it with an independent reading of the rules.
//!
//! # Why is the decision a pure function?
//!
//! [`crate::policy::decide`] has no clock, no lock, no I/O and no memory of its own. So the same question always has
//! the same decision, `explain` runs the code of the server, and a million random questions are a unit test.
//!
//! # Why one lock for each organization?
//!
//! A login must read and change the counts in one step: of two logins that race for the last place exactly one
//! wins. One lock gives that without a protocol. The lock is held for one decision, 0.2 µs, by a reload once
//! for the whole organization, and never during I/O. Every processor runs connections of its own; this lock is the only
//! thing that all questions of an organization share.
//!
//! # Why does an answer wait for the disk?
//!
//! "You are logged in" is a promise, and a promise that a power cut revokes is worse than a slow one. Writing in groups
//! makes it cheap: with many phones at once, hundreds of changes share one write. Questions that change nothing do not
//! wait.
//!
//! # Why does only a logout end a session that the policy would refuse today?
//!
//! Because rules R22 and R29 say so: a user who was let in stays until logout. Whether a login session is such
//! a kept one is derived from today's policy and never stored, so the mark cannot be out of date.
//!
//! # Why does FastAGI answer `DENY` to nonsense?
//!
//! Asterisk takes a silent close for success, so a missing verdict would be a verdict. The same reason makes the
//! dialplan for FreeSWITCH preset its verdict to `deny`.
//!
//! # Why one port for each dialect?
//!
//! The first bytes of a peer do not show its dialect: a FreeSWITCH peer sends nothing until queuewarden has sent
//! `connect`, and a FastAGI environment is a legal start of garbage in the line dialect.
//!
//! # Why are there no labels for users, and few for queues?
//!
//! Labels come from closed lists, so questions cannot create a series and a scrape has a known size. A queue gets a
//! label only with `[metrics] sessions_by_queue_max`, and only up to that number.
//!
//! # Why hashes in the audit log, and no signatures?
//!
//! A hash chain shows which line was altered or is missing, without a key that the same machine would have to hold. It
//! does not protect against a user who can write the folder and rewrites the whole log: for that an operator notes a
//! hash elsewhere (`queuewarden audit verify --anchor`).
//!
//! # Why is the watchdog fed by decisions?
//!
//! A process that accepts connections but cannot decide is worse than none. The self test asks real questions, from
//! bytes to bytes and under the same locks, so a deadlock or a dead thread ends the process within 10 s.
