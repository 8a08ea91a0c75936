//! What a token claims, read with care.

use std::str::FromStr;
use std::time::Duration;

use serde_json::{Map, Value};

use super::Refused;
use crate::model::Timestamp;

/// The claims of a token. One that is `null` counts as missing.
pub(super) struct Claims(pub(super) Map<String, Value>);

impl Claims {
    fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    pub(super) fn text(&self, name: &str) -> Result<Option<&str>, Refused> {
        self.get(name)
            .map(|value| value.as_str().ok_or_else(|| malformed(name)))
            .transpose()
    }

    /// A text that a type of the model parses.
    pub(super) fn word<T: FromStr>(&self, name: &str) -> Result<Option<T>, Refused> {
        self.text(name)?
            .map(|text| text.parse().map_err(|_| malformed(name)))
            .transpose()
    }

    pub(super) fn count(&self, name: &str) -> Result<Option<u64>, Refused> {
        self.get(name)
            .map(|value| value.as_u64().ok_or_else(|| malformed(name)))
            .transpose()
    }

    /// A list, or one text with spaces in between.
    pub(super) fn words(&self, name: &str) -> Result<Option<Vec<String>>, Refused> {
        self.get(name)
            .map(|value| match value {
                Value::String(text) => Ok(text.split_whitespace().map(str::to_owned).collect()),
                Value::Array(items) => items
                    .iter()
                    .map(|item| item.as_str().map(str::to_owned))
                    .collect::<Option<_>>()
                    .ok_or_else(|| malformed(name)),
                _ => Err(malformed(name)),
            })
            .transpose()
    }

    /// RFC 7519, section 4.1.3: one text, or a list of which one has to fit.
    pub(super) fn check_audience(&self, expected: &str) -> Result<(), Refused> {
        let fits = match self.get("aud").ok_or_else(|| missing("aud"))? {
            Value::String(audience) => audience == expected,
            Value::Array(several) => several.iter().any(|one| one == expected),
            _ => return Err(malformed("aud")),
        };
        if fits {
            Ok(())
        } else {
            Err(Refused::WrongAudience)
        }
    }

    /// When the token is good, for clocks that differ by `leeway`.
    pub(super) fn validity(&self, leeway: Duration) -> Result<Validity, Refused> {
        let expires_at = self.time("exp")?.ok_or_else(|| missing("exp"))?;
        let begins = self.time("nbf")?.max(self.time("iat")?);
        Ok(Validity {
            from: begins.map(|at| at.before(leeway)),
            until: expires_at.after(leeway),
        })
    }

    /// RFC 7519, section 2: seconds, perhaps with a fraction.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a time out of range stops at the end of time"
    )]
    fn time(&self, name: &str) -> Result<Option<Timestamp>, Refused> {
        self.get(name)
            .map(|value| {
                let secs = value.as_f64().ok_or_else(|| malformed(name))?;
                Ok(Timestamp((secs * 1000.0) as i64))
            })
            .transpose()
    }
}

pub(super) fn missing(name: &str) -> Refused {
    Refused::MissingClaim(name.to_owned())
}

pub(super) fn malformed(name: &str) -> Refused {
    Refused::MalformedClaim(name.to_owned())
}

/// From when and until when a token is good.
#[derive(Debug, Clone, Copy)]
pub(super) struct Validity {
    from: Option<Timestamp>,
    until: Timestamp,
}

impl Validity {
    pub(super) fn check(&self, now: Timestamp) -> Result<(), Refused> {
        if now >= self.until {
            return Err(Refused::Expired);
        }
        if self.from.is_some_and(|from| now < from) {
            return Err(Refused::NotYetValid);
        }
        Ok(())
    }
}
