//! The form that every enumeration of rejections has.
//!
//! Owns the macro that makes one from its table. The tables are with those who refuse: `reject` here, and
//! the machines above this crate.

/// Makes an enumeration of rejections from a table of `Name = number, "code", "cause", "fix";`: data that is
/// replicated, travels as a `u16` in borsh, and never changes its meaning.
#[macro_export]
macro_rules! rejections {
    ($(#[$about:meta])* pub enum $type:ident {
        $($(#[$doc:meta])* $name:ident = $number:literal, $code:literal, $cause:literal, $fix:literal;)*
    }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u16)]
        pub enum $type { $($(#[$doc])* $name = $number,)* }

        impl $type {
            /// All of them, for tables in docs and tests.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The stable code that programs match on.
            #[must_use]
            pub fn code(self) -> &'static str { match self { $(Self::$name => $code,)* } }
            /// What happened.
            #[must_use]
            pub fn cause(self) -> &'static str { match self { $(Self::$name => $cause,)* } }
            /// What to do about it.
            #[must_use]
            pub fn fix(self) -> &'static str { match self { $(Self::$name => $fix,)* } }
            /// The number on the wire and in state.
            #[must_use]
            pub fn number(self) -> u16 { self as u16 }
            /// The rejection with this number.
            #[must_use]
            pub fn from_number(number: u16) -> Option<Self> {
                match number { $($number => Some(Self::$name),)* _ => None }
            }
        }

        impl ::std::fmt::Display for $type {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                write!(f, "{}: {}; {}", self.code(), self.cause(), self.fix())
            }
        }

        impl ::std::error::Error for $type {}

        impl ::borsh::BorshSerialize for $type {
            fn serialize<W: ::borsh::io::Write>(&self, writer: &mut W) -> ::borsh::io::Result<()> {
                ::borsh::BorshSerialize::serialize(&self.number(), writer)
            }
        }

        impl ::borsh::BorshDeserialize for $type {
            fn deserialize_reader<R: ::borsh::io::Read>(reader: &mut R) -> ::borsh::io::Result<Self> {
                let number = <u16 as ::borsh::BorshDeserialize>::deserialize_reader(reader)?;
                Self::from_number(number).ok_or_else(|| {
                    let text = format!("no rejection has number {number}");
                    ::borsh::io::Error::new(::borsh::io::ErrorKind::InvalidData, text)
                })
            }
        }
    };
}
