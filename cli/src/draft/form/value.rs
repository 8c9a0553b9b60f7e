//! Values of a form that TOML has no type for: amounts of up to 128 bits, and periods.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, Visitor};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::draft::form::VALID_FOR_MS_MAX;

/// An amount in the asset's smallest unit: a whole number, or one in quotes where it is larger than
/// TOML's integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Amount(pub(super) u128);

struct AmountVisitor;

impl Visitor<'_> for AmountVisitor {
    type Value = Amount;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number of the asset's smallest unit, in quotes if it is over 2^63")
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Amount, E> {
        u128::try_from(value).map(Amount).map_err(|_| E::custom(format!("the amount {value} is negative")))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Amount, E> {
        Ok(Amount(value.into()))
    }

    fn visit_i128<E: Error>(self, value: i128) -> Result<Amount, E> {
        u128::try_from(value).map(Amount).map_err(|_| E::custom(format!("the amount {value} is negative")))
    }

    fn visit_u128<E: Error>(self, value: u128) -> Result<Amount, E> {
        Ok(Amount(value))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Amount, E> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits {
            return Err(E::custom(format!("'{text}' is no amount: use digits only")));
        }
        text.parse().map(Amount).map_err(|_| E::custom(format!("the amount {text} exceeds 128 bits")))
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AmountVisitor)
    }
}

/// A moment: milliseconds since 1970 as a number, or a text as RFC 3339 has it, such as
/// `"2026-01-31T12:00:00Z"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment(pub(super) u64);

struct MomentVisitor;

impl Visitor<'_> for MomentVisitor {
    type Value = Moment;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a moment such as \"2026-01-31T12:00:00Z\", or milliseconds since 1970")
    }

    fn visit_i64<E: Error>(self, ms: i64) -> Result<Moment, E> {
        u64::try_from(ms).map(Moment).map_err(|_| E::custom(format!("{ms} ms are before 1970")))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Moment, E> {
        let parsed = OffsetDateTime::parse(text, &Rfc3339).ok();
        let ms = parsed.and_then(|moment| u64::try_from(moment.unix_timestamp_nanos() / 1_000_000).ok());
        ms.map(Moment).ok_or_else(|| E::custom(format!("'{text}' is no moment: write it as \"2026-01-31T12:00:00Z\"")))
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(MomentVisitor)
    }
}

/// A period in milliseconds: seconds as a number, or a text such as `"90s"`, `"5m"`, `"2h"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Period(pub(super) u64);

struct PeriodVisitor;

impl Visitor<'_> for PeriodVisitor {
    type Value = Period;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a period such as \"90s\", \"5m\" or \"2h\"")
    }

    fn visit_i64<E: Error>(self, seconds: i64) -> Result<Period, E> {
        u64::try_from(seconds)
            .map(|seconds| Period(seconds.saturating_mul(1000)))
            .map_err(|_| E::custom(format!("{seconds} seconds are in the past")))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Period, E> {
        let (digits, unit_ms) = match text.trim() {
            text if text.ends_with("ms") => (&text[..text.len() - 2], 1),
            text if text.ends_with('s') => (&text[..text.len() - 1], 1000),
            text if text.ends_with('m') => (&text[..text.len() - 1], 60_000),
            text if text.ends_with('h') => (&text[..text.len() - 1], 3_600_000),
            text => (text, 0),
        };
        match digits.trim().parse::<u64>() {
            Ok(number) if unit_ms > 0 => Ok(Period(number.saturating_mul(unit_ms))),
            _ => Err(E::custom(format!(
                "'{text}' is no period: use a number with s, m or h, at most {}h",
                VALID_FOR_MS_MAX / 3_600_000
            ))),
        }
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PeriodVisitor)
    }
}
