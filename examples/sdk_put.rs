//! The yardstick for writing to S3: parts of 8 MiB from memory, four at a time, with the AWS SDK alone.
//!
//! Makes a multipart upload, puts the parts, aborts it, and tells the rate and its own CPU seconds per GiB. A server that
//! writes to the same S3 can be no cheaper than this. Takes the S3 from `JUMAR_TEST_S3_*`; `scripts/dev-s3` makes one.
//!
//! ```text
//! cargo run --release --example sdk_put -- --mib 1024
//! ```

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context as _;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{
    BehaviorVersion, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    StalledStreamProtectionConfig,
};
use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use clap::Parser;
use futures_util::{StreamExt as _, TryStreamExt as _};

/// The size of a part.
const PART: usize = 8 << 20;
/// What is put is this many random bytes, repeated. A prime, so that no two blocks are the same: some stores keep equal blocks
/// once, and would have less to do.
const PERIOD: usize = 33_554_393;
/// The most parts that a multipart upload has.
const MOST_PARTS: u64 = 10_000;

/// What to put.
#[derive(Debug, Parser)]
#[command(about = "Puts parts from memory to S3 with the AWS SDK alone, as a yardstick")]
struct Options {
    /// How many MiB, in parts of 8 MiB.
    #[arg(long, default_value_t = 1024)]
    mib: u64,
    /// How many parts at once.
    #[arg(long, default_value_t = 4)]
    parallel: usize,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("sdk_put: no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sdk_put: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options) -> anyhow::Result<()> {
    let client = client()?;
    let bucket = variable("BUCKET")?;
    let key = format!("sdk-put-{}", std::process::id());
    let count = (options.mib * (1 << 20))
        .div_ceil(PART as u64)
        .clamp(1, MOST_PARTS);
    let mut content = vec![0; PERIOD];
    getrandom::fill(&mut content).context("no randomness")?;
    content.extend_from_within(..PART);
    let content = Bytes::from(content);

    let begun = client
        .create_multipart_upload()
        .bucket(&bucket)
        .key(&key)
        .send()
        .await
        .context("CreateMultipartUpload")?;
    let upload = begun.upload_id().context("an upload without an id")?;

    let cpu = cpu_seconds()?;
    let started = Instant::now();
    let outcome = put(
        &client,
        &bucket,
        &key,
        upload,
        &content,
        count,
        options.parallel,
    )
    .await;
    let seconds = started.elapsed().as_secs_f64();
    let cpu = cpu_seconds()? - cpu;

    client
        .abort_multipart_upload()
        .bucket(&bucket)
        .key(&key)
        .upload_id(upload)
        .send()
        .await
        .context("AbortMultipartUpload")?;
    outcome?;

    let mib = f64::from(u32::try_from(count)?) * 8.0;
    println!(
        "{mib:.0} MiB in {count} parts, {} at a time, in {seconds:.2} s: {:.1} MB/s, {cpu:.2} CPU s, {:.2} CPU s/GiB",
        options.parallel,
        mib * 1.048_576 / seconds,
        cpu / (mib / 1024.0),
    );
    Ok(())
}

async fn put(
    client: &Client,
    bucket: &str,
    key: &str,
    upload: &str,
    content: &Bytes,
    count: u64,
    parallel: usize,
) -> anyhow::Result<()> {
    futures_util::stream::iter(1..=count)
        .map(|number| {
            let client = client.clone();
            async move {
                let start = usize::try_from(number)? * PART % PERIOD;
                let part = content.slice(start..start + PART);
                client
                    .upload_part()
                    .bucket(bucket)
                    .key(key)
                    .upload_id(upload)
                    .part_number(i32::try_from(number)?)
                    .body(ByteStream::from(part))
                    .customize()
                    .disable_payload_signing()
                    .send()
                    .await
                    .with_context(|| format!("UploadPart {number}"))?;
                anyhow::Ok(())
            }
        })
        .buffer_unordered(parallel.max(1))
        .try_collect()
        .await
}

fn client() -> anyhow::Result<Client> {
    let credentials = Credentials::new(
        variable("ACCESS_KEY_ID")?,
        variable("SECRET_ACCESS_KEY")?,
        None,
        None,
        "environment",
    );
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(variable("ENDPOINT")?)
        .region(Region::new(variable("REGION")?))
        .credentials_provider(credentials)
        .force_path_style(true)
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .build();
    Ok(Client::from_conf(config))
}

fn variable(name: &str) -> anyhow::Result<String> {
    let name = format!("JUMAR_TEST_S3_{name}");
    std::env::var(&name).with_context(|| format!("{name} is not set; see scripts/dev-s3"))
}

/// The CPU time of this process so far.
fn cpu_seconds() -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").context("/proc/self/stat")?;
    let (_, after) = stat.rsplit_once(')').context("/proc/self/stat")?;
    let mut ticks = 0;
    for field in after.split_whitespace().skip(11).take(2) {
        ticks += field.parse::<u32>().context("/proc/self/stat")?;
    }
    Ok(f64::from(ticks) / 100.0)
}
