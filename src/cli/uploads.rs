//! `jumar uploads`: looking at uploads, and ending them, beside a running server.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Subcommand;

use crate::api::oversee::{DetailsJson, UploadJson, state_named};
use crate::app::App;
use crate::clock::Clock;
use crate::config::Config;
use crate::engine::{Engine, Filter};
use crate::model::{SpaceName, Upload, UploadId};

/// How many uploads are asked for at a time.
const PAGE: u32 = 500;

#[derive(Debug, Clone, Subcommand)]
pub(super) enum Uploads {
    /// List uploads, the newest first
    List {
        /// pending, uploading, assembling, completed, failed, aborted or expired
        #[arg(long, value_parser = state_named)]
        state: Option<&'static str>,
        /// Only of this space
        #[arg(long)]
        space: Option<SpaceName>,
        /// Only those that were created so long ago, or longer
        #[arg(long, value_name = "SECONDS")]
        older_than_secs: Option<u64>,
        /// At most so many
        #[arg(long, default_value_t = 100)]
        limit: usize,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Show all that is known of one, as JSON
    Show {
        /// The upload
        id: UploadId,
    },
    /// End one that is not complete; all it left is removed
    Abort {
        /// The upload
        id: UploadId,
    },
}

pub(super) async fn run(config: Config, command: Uploads) -> anyhow::Result<ExitCode> {
    let app = App::builder(config).without_jobs().build().await?;
    let engine = app.engine();
    let done = carry_out(engine, command).await;
    engine.stop().await;
    done.map(|()| ExitCode::SUCCESS)
}

async fn carry_out(engine: &Engine, command: Uploads) -> anyhow::Result<()> {
    match command {
        Uploads::List {
            state,
            space,
            older_than_secs,
            limit,
            json,
        } => {
            let age = older_than_secs.map(Duration::from_secs);
            let filter = Filter {
                space,
                state,
                created_until: age.map(|age| Clock::system().now().before(age)),
                after: None,
            };
            list(engine, filter, limit, json).await
        }
        Uploads::Show { id } => {
            let snapshot = engine.inspect(id).await.context("it cannot be shown")?;
            let shown = serde_json::to_string_pretty(&DetailsJson::new(&snapshot))?;
            println!("{shown}");
            Ok(())
        }
        Uploads::Abort { id } => {
            let aborted = engine.abort_any(id).await;
            aborted.context("it cannot be aborted")?;
            println!("{id} is aborted");
            Ok(())
        }
    }
}

async fn list(engine: &Engine, mut filter: Filter, limit: usize, json: bool) -> anyhow::Result<()> {
    let mut left = limit;
    while left > 0 {
        let page = PAGE.min(u32::try_from(left).unwrap_or(PAGE));
        let uploads = engine.list(filter.clone(), page).await?;
        for upload in &uploads {
            if json {
                println!("{}", serde_json::to_string(&UploadJson::new(upload))?);
            } else {
                println!("{}", line(upload));
            }
        }
        let Some(last) = uploads.last() else { break };
        filter.after = Some(last.id);
        left -= uploads.len();
    }
    Ok(())
}

fn line(upload: &Upload) -> String {
    let length = upload
        .length
        .map_or("?".to_owned(), |length| length.to_string());
    let owner = &upload.owner;
    format!(
        "{}  {:<10}  {:<7}  {}  {:>12}  {}  {}",
        upload.id,
        upload.state.name(),
        upload.protocol.name(),
        upload.created_at,
        length,
        owner.space,
        owner
            .subject
            .as_ref()
            .map_or("-", |subject| subject.as_str()),
    )
}
