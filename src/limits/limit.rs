//! A limit with its documentation, and the macro that defines a list of them.

/// A limit, with its documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The name, in capitals.
    pub name: &'static str,
    /// The value, in the unit that [`Limit::unit`] returns.
    pub value: u64,
    pub(super) is_duration: bool,
    pub(super) documentation: &'static str,
}

impl Limit {
    /// The unit of the value: `ms`, `s`, `bytes`, `digits` or, for a number of things, empty.
    #[must_use]
    pub fn unit(&self) -> &'static str {
        let units = [("_BYTES", "bytes"), ("_SECONDS", "s"), ("_DIGITS", "digits")];
        let named = units.into_iter().find(|(part, _)| self.name.contains(part));
        if self.is_duration { "ms" } else { named.map_or("", |(_, unit)| unit) }
    }

    /// The limit in one sentence.
    #[must_use]
    pub fn sentence(&self) -> &'static str {
        self.documentation.trim_start()
    }
}

/// Defines each limit as a constant, and the list of this name from the constants and their documentation.
macro_rules! limits {
    (@is_duration Duration) => { true };
    (@is_duration $kind:ident) => { false };
    (@number Duration $name:ident) => { $name.as_secs() * 1_000 + $name.subsec_millis() as u64 };
    (@number $kind:ident $name:ident) => { $name as u64 };
    ($list:ident; $($(#[doc = $text:literal])+ $name:ident: $kind:ident = $value:expr;)+) => {
        $($(#[doc = $text])+ pub const $name: $kind = $value;)+

        /// Every limit of this file, in its order.
        pub(super) const $list: &[Limit] = &[$(Limit {
            name: stringify!($name),
            value: limits!(@number $kind $name),
            is_duration: limits!(@is_duration $kind),
            documentation: concat!($($text),+),
        },)+];
    };
}

pub(super) use limits;
