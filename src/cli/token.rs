//! `jumar token create|list|revoke|join`: who may upload.
//!
//! All but `join` change or read the catalog, beside servers that run. A token is printed once, alone on the last line.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde_json::json;

use crate::app::{auth_refresh, join_settings, open_catalog};
use crate::auth::{Invitation, mint};
use crate::catalog::{ApiKeyRecord, Revoked, Tokens as _};
use crate::clock::Clock;
use crate::config::Config;
use crate::model::caller::MediaTypes;
use crate::model::{ApiKey, Scope, SpaceName, Subject, Timestamp, TokenId};

/// How many rounds of refreshing are waited for after revoking: one may just have begun, and one may be slow.
const ROUNDS: u32 = 3;

#[derive(Debug, Clone, Subcommand)]
pub(super) enum TokenCommand {
    /// Make an API key. It is shown once
    Create(Create),
    /// List API keys
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// End an API key, by its id, or another token, by its `jti`. When this returns, servers know
    Revoke(Revoke),
    /// Make a join token for guests, signed with the key of `auth.join`. Nothing is written down
    Join(Join),
}

#[derive(Debug, Clone, Args)]
pub(super) struct Create {
    /// What people are to call it
    #[arg(long)]
    name: String,
    /// What it allows: admin, upload or read
    #[arg(long)]
    scope: Scope,
    /// The one space that it is of [default: none; uploads go to "default"]
    #[arg(long)]
    space: Option<SpaceName>,
    /// How long it is good, as in 30d [default: until it is revoked]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    expires_in: Option<Duration>,
}

#[derive(Debug, Clone, Args)]
pub(super) struct Revoke {
    /// The id of an API key, or the `jti` of a signed token
    id: TokenId,
    /// When a signed token has expired anyway, so that its revocation can be forgotten, as in 7d [default: never]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    forget_in: Option<Duration>,
}

#[derive(Debug, Clone, Args)]
pub(super) struct Join {
    /// Where uploads belong
    #[arg(long, default_value_t)]
    space: SpaceName,
    /// Whom it is for. A later token for the same goes on with its uploads [default: whoever has it]
    #[arg(long)]
    subject: Option<Subject>,
    /// What it allows: upload or read
    #[arg(long, default_value = "upload")]
    scope: Scope,
    /// How long it is good
    #[arg(long, value_name = "DURATION", default_value = "7d", value_parser = humantime::parse_duration)]
    expires_in: Duration,
    /// The largest upload, as in 25MB or 25MiB
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    max_size: Option<u64>,
    /// How many uploads, in all
    #[arg(long, value_name = "COUNT")]
    max_uploads: Option<u64>,
    /// How many bytes, in all
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    max_bytes: Option<u64>,
    /// A media type that may be uploaded, as in image/*; can be repeated [default: any]
    #[arg(long = "content-type", value_name = "TYPE")]
    content_types: Vec<String>,
}

pub(super) async fn run(config: &Config, command: TokenCommand) -> anyhow::Result<ExitCode> {
    let now = Clock::system().now();
    match command {
        TokenCommand::Create(create) => create_key(config, create, now).await?,
        TokenCommand::List { json } => list(config, json).await?,
        TokenCommand::Revoke(revoke) => end(config, revoke, now).await?,
        TokenCommand::Join(join) => invite(config, join, now)?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn create_key(config: &Config, create: Create, now: Timestamp) -> anyhow::Result<()> {
    if create.name.is_empty() || create.name.chars().any(char::is_control) {
        bail!("--name has to be a text without control characters, and not empty");
    }
    let key = ApiKey::generate();
    let record = ApiKeyRecord {
        id: TokenId::generate(),
        hash: key.hash(),
        name: create.name,
        scope: create.scope,
        space: create.space,
        created_at: now,
        expires_at: create.expires_in.map(|within| now.after(within)),
        revoked_at: None,
    };
    open_catalog(config)?.add_api_key(record.clone()).await?;
    println!("id       {}", record.id);
    println!("name     {}", record.name);
    println!("scope    {}", record.scope.name());
    println!("space    {}", or_dash(record.space.as_ref()));
    println!("expires  {}", or_dash(record.expires_at));
    println!("It is not shown again:");
    println!("{}", key.reveal());
    Ok(())
}

async fn list(config: &Config, as_json: bool) -> anyhow::Result<()> {
    let lists = open_catalog(config)?.tokens(None).await?;
    let keys = lists.map(|lists| lists.api_keys).unwrap_or_default();
    if as_json {
        let keys: Vec<_> = keys.iter().map(to_json).collect();
        println!("{}", serde_json::to_string_pretty(&keys)?);
        return Ok(());
    }
    let heading = [
        "ID", "NAME", "SCOPE", "SPACE", "CREATED", "EXPIRES", "REVOKED",
    ];
    let rows: Vec<[String; 7]> = std::iter::once(heading.map(str::to_owned))
        .chain(keys.iter().map(to_row))
        .collect();
    for row in &rows {
        let cells: Vec<String> = (0..row.len())
            .map(|column| {
                let cells = rows.iter().map(|row| row[column].chars().count());
                format!("{:<width$}", row[column], width = cells.max().unwrap_or(0))
            })
            .collect();
        println!("{}", cells.join("  ").trim_end());
    }
    Ok(())
}

fn to_row(key: &ApiKeyRecord) -> [String; 7] {
    [
        key.id.to_string(),
        key.name.clone(),
        key.scope.name().to_owned(),
        or_dash(key.space.as_ref()),
        key.created_at.to_string(),
        or_dash(key.expires_at),
        or_dash(key.revoked_at),
    ]
}

fn to_json(key: &ApiKeyRecord) -> serde_json::Value {
    json!({
        "id": key.id.as_str(),
        "name": key.name,
        "scope": key.scope.name(),
        "space": key.space.as_ref().map(SpaceName::as_str),
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
    })
}

fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

async fn end(config: &Config, revoke: Revoke, now: Timestamp) -> anyhow::Result<()> {
    let Revoke { id, forget_in } = revoke;
    // It would be taken for so long after its end.
    let leeway = Duration::from_secs(config.auth.leeway_secs);
    let forget_at = forget_in.map(|within| now.after(within).after(leeway));
    let revoked = open_catalog(config)?
        .revoke_token(id.clone(), now, forget_at)
        .await?;
    tokio::time::sleep(auth_refresh(config) * ROUNDS).await;
    match revoked {
        Revoked::ApiKey => println!("revoked the API key {id}"),
        Revoked::OtherToken => {
            println!("no API key has this id; signed tokens with the jti {id} are revoked");
        }
    }
    Ok(())
}

/// What to do where join tokens have no key.
const NO_JOIN_KEY: &str = "there is no key to sign join tokens with. Either set a secret:
  JUMAR_AUTH__JOIN__SECRET=\"$(openssl rand -base64 48)\"
or make a pair of keys:
  openssl genpkey -algorithm ed25519 -out join.pem && openssl pkey -in join.pem -pubout -out join.pub.pem
and set in [auth.join]:
  algorithm = \"EdDSA\"
  private_key_file = \"join.pem\"
  public_key_file = \"join.pub.pem\"";

fn invite(config: &Config, join: Join, now: Timestamp) -> anyhow::Result<()> {
    if join.scope == Scope::Admin {
        bail!("a guest's scope is upload or read; for an admin, `jumar token create` makes a key");
    }
    MediaTypes::new(&join.content_types).context("--content-type")?;
    let space = join.space.as_str();
    if join.space != SpaceName::default() && !config.spaces.contains_key(space) {
        bail!("there is no space {space}; configure [spaces.{space}] first");
    }
    let settings = join_settings(config).context(NO_JOIN_KEY)?;
    let invitation = Invitation {
        space: join.space,
        subject: join.subject,
        scope: join.scope,
        expires_at: now.after(join.expires_in),
        max_size: join.max_size,
        max_uploads: join.max_uploads,
        max_bytes: join.max_bytes,
        content_types: join.content_types,
    };
    let (id, token) = mint(&settings, &invitation, now)?;
    println!("jti      {id}");
    println!("space    {}", invitation.space);
    println!("expires  {}", invitation.expires_at);
    println!("{token}");
    Ok(())
}

/// A number of bytes, perhaps with a unit.
fn parse_size(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 8] = [
        ("", 1),
        ("B", 1),
        ("KB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
    ];
    let digits = text.find(|c: char| !c.is_ascii_digit());
    let (number, unit) = text.split_at(digits.unwrap_or(text.len()));
    let size = UNITS
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(unit.trim()))
        .and_then(|(_, factor)| number.parse::<u64>().ok()?.checked_mul(*factor));
    size.ok_or_else(|| {
        "has to be a number of bytes, or a whole number of KB, MB, GB, KiB, MiB or GiB".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units_or_are_bytes() {
        for (text, bytes) in [
            ("0", 0),
            ("512", 512),
            ("25MB", 25_000_000),
            ("25 mib", 25 << 20),
            ("2GiB", 2 << 30),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for wrong in ["", "MB", "-1", "1.5MB", "1TBs", "99999999999GB"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }
}
