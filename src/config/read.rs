//! Reading: file and environment into one tree, compared with the known keys, then taken into [`Config`].

use std::fmt;
use std::path::Path;

use figment::Figment;
use figment::error::Kind;
use figment::providers::{Format as _, Serialized, Toml};
use figment::value::{Dict, Value};

use super::Config;
use super::spaces::NONE;

/// What all our variables begin with.
const PREFIX: &str = "JUMAR_";

/// Something in the configuration is wrong. Prints as one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The file or variable.
    pub place: String,
    /// The key, with its sections; empty if the place as a whole is meant.
    pub key: String,
    /// What is wrong, and what would be right.
    pub remedy: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = if self.key.is_empty() {
            format!("{}: {}", self.place, self.remedy)
        } else {
            format!("{}: {}: {}", self.place, self.key, self.remedy)
        };
        f.write_str(&line.replace('\n', " "))
    }
}

impl std::error::Error for ConfigError {}

pub(super) fn read(
    file: Option<&Path>,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<Config, ConfigError> {
    let known = Value::serialize(Config::default())
        .ok()
        .and_then(Value::into_dict)
        .expect("the defaults are a map of sections");
    let mut figment = Figment::new();
    if let Some(file) = file {
        let place = file.display().to_string();
        let given = read_file(file, &place)?;
        refuse_unknown(&known, &given, &place, "")?;
        // One layer after the other, so that a wrong value is told with the layer that it came from.
        extract(&Figment::from(Serialized::defaults(&given)), |_| {
            place.clone()
        })?;
        figment = figment.merge(Serialized::defaults(given));
    }
    let mut names: Vec<(String, String)> = Vec::new();
    for (name, text) in variables {
        let Some(rest) = name.strip_prefix(PREFIX) else {
            continue;
        };
        if !rest.contains("__") {
            refuse_single_underscore(&known, &name, rest)?;
            continue;
        }
        let key = rest.to_ascii_lowercase().replace("__", ".");
        let value = variable(&known, &name, &key, &text)?;
        names.push((key.clone(), name));
        figment = figment.merge(Serialized::default(&key, value));
    }
    extract(&figment, |key| {
        names
            .iter()
            .find(|(theirs, _)| is_or_contains(theirs, key))
            .map_or_else(|| place_of(file, key), |(_, name)| name.clone())
    })
}

/// Whether a key is this one, or an item of the list that it has.
fn is_or_contains(theirs: &str, key: &str) -> bool {
    key.strip_prefix(theirs)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Where a key that turned out wrong later most likely stands.
pub(super) fn place_of(file: Option<&Path>, key: &str) -> String {
    let variable = variable_of(key);
    if std::env::var_os(&variable).is_some() {
        return variable;
    }
    file.map_or_else(
        || "configuration".to_owned(),
        |file| file.display().to_string(),
    )
}

/// Where the spaces stand.
const SPACES: &str = "spaces.";

fn read_file(file: &Path, place: &str) -> Result<Dict, ConfigError> {
    let wrong = |remedy: String| ConfigError {
        place: place.to_owned(),
        key: String::new(),
        remedy,
    };
    let text = std::fs::read_to_string(file)
        .map_err(|error| wrong(format!("the file cannot be read: {error}")))?;
    Toml::from_str(&text).map_err(|error: <Toml as figment::providers::Format>::Error| {
        // The parser's own message shows the line that is wrong, and with it perhaps a secret.
        let line = error.span().map_or(0, |span| {
            text[..span.start.min(text.len())].matches('\n').count() + 1
        });
        wrong(format!("line {line} is no TOML: {}", error.message()))
    })
}

fn refuse_unknown(known: &Dict, given: &Dict, place: &str, above: &str) -> Result<(), ConfigError> {
    for (name, value) in given {
        let key = format!("{above}{name}");
        match known_entry(known, above, name) {
            None => return Err(unknown(known, place, above, name)),
            Some(Value::Dict(_, section)) => match value {
                Value::Dict(_, given) => refuse_unknown(section, given, place, &format!("{key}."))?,
                _ => {
                    return Err(ConfigError {
                        place: place.to_owned(),
                        remedy: format!("is a section; write [{key}] and its keys below"),
                        key,
                    });
                }
            },
            Some(_) => {}
        }
    }
    Ok(())
}

/// What a name may have below it. Spaces are named by whoever configures them; all have the same keys.
fn known_entry<'a>(known: &'a Dict, above: &str, name: &str) -> Option<&'a Value> {
    if above == SPACES {
        known.values().next()
    } else {
        known.get(name)
    }
}

fn unknown(known: &Dict, place: &str, above: &str, name: &str) -> ConfigError {
    let nearest = known
        .keys()
        .max_by(|a, b| strsim::jaro_winkler(a, name).total_cmp(&strsim::jaro_winkler(b, name)))
        .expect("every section has a key");
    ConfigError {
        place: place.to_owned(),
        key: format!("{above}{name}"),
        remedy: format!("there is no such key; the nearest is {above}{nearest}"),
    }
}

/// The value of a variable. What it has to be is seen from the default: the text `0123` is a fine secret and no number.
fn variable(known: &Dict, name: &str, key: &str, text: &str) -> Result<Value, ConfigError> {
    let mut section = known;
    let mut above = String::new();
    let mut segments = key.split('.').peekable();
    while let Some(segment) = segments.next() {
        match known_entry(section, &above, segment) {
            Some(Value::Dict(_, deeper)) if segments.peek().is_some() => {
                section = deeper;
                above = format!("{above}{segment}.");
            }
            Some(default) if segments.peek().is_none() => {
                return parse_like(default, text).map_err(|remedy| ConfigError {
                    place: name.to_owned(),
                    key: key.to_owned(),
                    remedy: remedy.to_owned(),
                });
            }
            _ => return Err(unknown(section, name, &above, segment)),
        }
    }
    Err(unknown(section, name, &above, ""))
}

/// A variable without two underscores is none of ours: Kubernetes sets `JUMAR_PORT` and `JUMAR_SERVICE_HOST` for a service of
/// this name. But one that would be a key's if it had them was meant for us.
fn refuse_single_underscore(known: &Dict, name: &str, rest: &str) -> Result<(), ConfigError> {
    let meant = rest.to_ascii_lowercase();
    let mut keys = Vec::new();
    all_keys(known, "", &mut keys);
    match keys.iter().find(|key| key.replace('.', "_") == meant) {
        Some(key) => Err(ConfigError {
            place: name.to_owned(),
            key: String::new(),
            remedy: format!("is no key; write {}", variable_of(key)),
        }),
        None => Ok(()),
    }
}

fn all_keys(section: &Dict, above: &str, keys: &mut Vec<String>) {
    for (name, value) in section {
        match value {
            Value::Dict(_, deeper) => all_keys(deeper, &format!("{above}{name}."), keys),
            _ => keys.push(format!("{above}{name}")),
        }
    }
}

fn variable_of(key: &str) -> String {
    format!("{PREFIX}{}", key.to_ascii_uppercase().replace('.', "__"))
}

fn parse_like(default: &Value, text: &str) -> Result<Value, &'static str> {
    match default {
        Value::Bool(..) => text
            .parse::<bool>()
            .map(Value::from)
            .map_err(|_| "has to be true or false"),
        // Where it may be "none", the value's own type knows what else it may be.
        Value::Num(..) if text == NONE => Ok(Value::from(text)),
        Value::Num(..) => text
            .parse::<u64>()
            .map(Value::from)
            .map_err(|_| "has to be a whole number, 0 or more"),
        Value::Array(..) => Ok(Value::from(
            text.split(',')
                .map(|item| item.trim().to_owned())
                .filter(|item| !item.is_empty())
                .collect::<Vec<_>>(),
        )),
        Value::Dict(..) => Err("is a section; name one of its keys after two underscores"),
        _ => Ok(Value::from(text)),
    }
}

fn extract(figment: &Figment, place: impl Fn(&str) -> String) -> Result<Config, ConfigError> {
    figment.extract().map_err(|error| {
        let key = error.path.join(".");
        ConfigError {
            place: place(&key),
            remedy: remedy(&key, &error.kind),
            key,
        }
    })
}

fn remedy(key: &str, kind: &Kind) -> String {
    let secret = ["access_key", "access_key_id", "secret"]
        .iter()
        .any(|name| key.ends_with(name));
    match kind {
        Kind::InvalidType(_, expected) | Kind::InvalidValue(_, expected) if secret => {
            format!("has to be {}", in_words(expected))
        }
        Kind::InvalidType(found, expected) | Kind::InvalidValue(found, expected) => {
            format!("has to be {}, not {found}", in_words(expected))
        }
        Kind::UnknownVariant(found, known) => {
            format!("has to be one of {}, not {found:?}", known.join(", "))
        }
        Kind::Message(_) if key.ends_with("listen") => {
            "has to be an IP address and a port, as in \"127.0.0.1:8080\"".to_owned()
        }
        Kind::Message(message) => message.clone(),
        other => other.to_string(),
    }
}

/// What serde expects, for people.
fn in_words(expected: &str) -> &str {
    match expected {
        "u64" | "usize" | "u32" => "a whole number, 0 or more",
        "a boolean" | "bool" => "true or false",
        "a sequence" => "a list",
        other => other,
    }
}
