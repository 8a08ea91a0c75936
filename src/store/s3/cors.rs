//! Whether browsers may use what is signed: the bucket's CORS, looked at and brought about.
//!
//! The bucket's rules are not ours alone. Ours has a name; others' are read, kept in their order, and written back.

use aws_sdk_s3::types::{CorsConfiguration, CorsRule};

use super::S3Store;
use super::error::Failure;
use crate::store::check::{Finding, Outcome};
use crate::store::{Result, StoreError};

/// The name of our rule.
const RULE: &str = "jumar-direct";

/// What a browser does with signed requests.
const METHODS: [&str; 3] = ["PUT", "GET", "HEAD"];

/// What a page has to read of an answer to its part.
const EXPOSED: &str = "ETag";

/// As long as the server's own preflights.
const MAX_AGE_SECS: i32 = 7_200;

impl S3Store {
    /// Whether the bucket lets pages of these origins put parts and read objects.
    pub(super) async fn look_at_cors(&self, origins: &[String]) -> Finding {
        let outcome = match self.cors_rules().await {
            Ok(rules) => match lacking(&rules, origins) {
                None => Outcome::Works(String::new()),
                Some(what) => Outcome::Without(format!(
                    "{what}; direct uploads from browsers need it: jumar check --apply-cors"
                )),
            },
            Err(error) => Outcome::Without(format!(
                "{error}; whether browsers can upload directly is not known"
            )),
        };
        Finding {
            what: "the bucket's CORS",
            outcome,
        }
    }

    /// Puts our rule among the bucket's; what was done.
    pub(super) async fn apply_cors(&self, origins: &[String]) -> Result<String> {
        if origins.is_empty() {
            return Ok("nothing to do: no page may use the server".into());
        }
        let mut rules = self.cors_rules().await?;
        let done = join(&mut rules, ours(origins)?);
        if done != Done::Nothing {
            let rules = CorsConfiguration::builder()
                .set_cors_rules(Some(rules.clone()))
                .build()
                .map_err(|error| StoreError::Refused(error.into()))?;
            self.client
                .put_bucket_cors()
                .bucket(&self.config.bucket)
                .cors_configuration(rules)
                .send()
                .await
                .map_err(super::store_error)?;
        }
        let others = rules.len() - 1;
        Ok(match done {
            Done::Nothing => format!("its rule {RULE} was there already"),
            Done::Replaced => format!("its rule {RULE} is replaced; others are kept: {others}"),
            Done::Added => format!("the rule {RULE} is added; others are kept: {others}"),
        })
    }

    async fn cors_rules(&self) -> Result<Vec<CorsRule>> {
        let got = self
            .client
            .get_bucket_cors()
            .bucket(&self.config.bucket)
            .send()
            .await
            .map_err(|error| Failure::of(&error));
        match got {
            Ok(got) => Ok(got.cors_rules.unwrap_or_default()),
            Err(failure) if failure.code() == Some("NoSuchCORSConfiguration") => Ok(Vec::new()),
            Err(failure) => Err(failure.into_store_error()),
        }
    }
}

/// What became of our rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Done {
    Nothing,
    Replaced,
    Added,
}

fn ours(origins: &[String]) -> Result<CorsRule> {
    CorsRule::builder()
        .id(RULE)
        .set_allowed_origins(Some(origins.to_vec()))
        .set_allowed_methods(Some(METHODS.map(str::to_owned).to_vec()))
        .allowed_headers("*")
        .expose_headers(EXPOSED)
        .max_age_seconds(MAX_AGE_SECS)
        .build()
        .map_err(|error| StoreError::Refused(error.into()))
}

/// Puts our rule where the old one was, or behind the others', so that what theirs decide they go on deciding.
fn join(rules: &mut Vec<CorsRule>, ours: CorsRule) -> Done {
    let same = |rule: &CorsRule| {
        let mut named = rule.clone();
        // Some stores keep no names.
        named.id.get_or_insert_with(|| RULE.to_owned());
        named == ours
    };
    if rules.iter().any(same) {
        return Done::Nothing;
    }
    if let Some(old) = rules.iter_mut().find(|rule| rule.id() == Some(RULE)) {
        *old = ours;
        Done::Replaced
    } else {
        rules.push(ours);
        Done::Added
    }
}

/// What the rules do not allow to one of the origins, in words.
fn lacking(rules: &[CorsRule], origins: &[String]) -> Option<String> {
    for origin in origins {
        for method in METHODS {
            let mut matching = rules.iter().filter(|rule| {
                rule.allowed_methods()
                    .iter()
                    .any(|allowed| allowed == method)
                    && rule
                        .allowed_origins()
                        .iter()
                        .any(|pattern| matches(pattern, origin))
            });
            // A preflight takes the first rule that has its headers, too; what the page may read then, the first of all says.
            let mut of_all = matching.clone();
            if !matching.any(|rule| has(rule.allowed_headers(), "*")) {
                return Some(format!(
                    "it does not let {origin} {method} with any headers"
                ));
            }
            let first = of_all.next();
            let exposes = |rule: &CorsRule| {
                has(rule.expose_headers(), EXPOSED) || has(rule.expose_headers(), "*")
            };
            if method == "PUT" && !first.is_some_and(exposes) {
                let name = first.and_then(CorsRule::id).unwrap_or("without a name");
                return Some(format!(
                    "its first rule for {origin}, {name}, does not expose {EXPOSED}"
                ));
            }
        }
    }
    None
}

fn has(names: &[String], name: &str) -> bool {
    names.iter().any(|have| have.eq_ignore_ascii_case(name))
}

/// Whether a rule's pattern, in which one `*` may stand for anything, has the origin.
fn matches(pattern: &str, origin: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == origin,
        Some((start, end)) => origin
            .strip_prefix(start)
            .is_some_and(|rest| rest.ends_with(end)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origins(origins: &[&str]) -> Vec<String> {
        origins.iter().map(|origin| (*origin).to_owned()).collect()
    }

    fn rule(id: &str, origin: &str, exposed: &str) -> CorsRule {
        let mut rule = ours(&origins(&[origin])).unwrap();
        rule.id = Some(id.into());
        rule.expose_headers = Some(vec![exposed.into()]);
        rule
    }

    #[test]
    fn patterns_have_one_star_anywhere() {
        for (pattern, origin, expected) in [
            ("*", "https://a.example", true),
            ("*", "*", true),
            ("https://a.example", "*", false),
            ("https://a.example", "https://a.example", true),
            ("https://*.example", "https://a.example", true),
            ("https://*.example", "http://a.example", false),
            ("https://a*a", "https://a", false),
        ] {
            assert_eq!(matches(pattern, origin), expected, "{pattern} {origin}");
        }
    }

    #[test]
    fn what_is_lacking_is_said() {
        let site = origins(&["https://a.example"]);
        let good = rule("good", "https://a.example", "etag");
        assert_eq!(lacking(std::slice::from_ref(&good), &site), None);
        assert_eq!(lacking(&[], &[]), None, "no page may use the server either");
        let mut reads = good.clone();
        reads.allowed_methods = vec!["GET".into(), "HEAD".into()];
        let mut narrow = good.clone();
        narrow.allowed_headers = Some(vec!["content-type".into()]);
        for (rules, expected) in [
            (vec![], "it does not let https://a.example PUT"),
            (
                vec![rule("b", "https://b.example", "ETag")],
                "it does not let https://a.example PUT",
            ),
            (vec![reads.clone()], "it does not let https://a.example PUT"),
            (
                vec![narrow.clone()],
                "it does not let https://a.example PUT",
            ),
            (
                vec![rule("x", "*", "Date"), good.clone()],
                "its first rule for https://a.example, x,",
            ),
        ] {
            let said = lacking(&rules, &site).unwrap();
            assert!(said.starts_with(expected), "{said}");
        }
        assert_eq!(lacking(&[reads, narrow, good], &site), None);
    }

    #[test]
    fn own_only_the_rules_of_others_stay_as_and_where_they_are() {
        let (a, b) = (rule("a", "*", "Date"), rule("b", "*", "ETag"));
        let mine = ours(&origins(&["https://a.example"])).unwrap();
        let mut rules = vec![a.clone(), b.clone()];
        assert_eq!(join(&mut rules, mine.clone()), Done::Added);
        assert_eq!(rules, [a.clone(), b.clone(), mine.clone()]);
        assert_eq!(join(&mut rules, mine.clone()), Done::Nothing);

        let newer = ours(&origins(&["*"])).unwrap();
        let mut rules = vec![a.clone(), mine, b.clone()];
        assert_eq!(join(&mut rules, newer.clone()), Done::Replaced);
        assert_eq!(rules, [a, newer.clone(), b.clone()]);

        // The same by another's name is another's.
        let mut theirs = newer.clone();
        theirs.id = b.id;
        let mut rules = vec![theirs.clone()];
        assert_eq!(join(&mut rules, newer.clone()), Done::Added);
        assert_eq!(rules, [theirs, newer.clone()]);

        let mut nameless = newer.clone();
        nameless.id = None;
        assert_eq!(join(&mut vec![nameless], newer), Done::Nothing);
    }
}
