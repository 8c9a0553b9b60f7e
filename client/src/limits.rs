//! The limits of the client that are no other crate's, with the relations between them asserted at compile time.

/// How old what proves the admins' keys may be, by the time of its header and this machine's clock, milliseconds. For so long
/// a key may have been replaced without whoever seals something for it having to know.
pub const ADMINS_AGE_MS_MAX: u64 = 10 * 60 * 1000;
/// How old it is asked to be at most, milliseconds: the beacon makes a block if its last one is older.
pub const ADMINS_ASKED_AGE_MS: u64 = 5 * 60 * 1000;
/// How far ahead of this machine's clock the time of that header may be, milliseconds. With a clock that is further behind
/// nothing can be said about its age.
pub const ADMINS_AHEAD_MS_MAX: u64 = 10 * 60 * 1000;

// What is as fresh as was asked for is not too old when it arrives.
const _: () = assert!(ADMINS_ASKED_AGE_MS < ADMINS_AGE_MS_MAX);
