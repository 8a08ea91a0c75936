//! `never_back` and `told_once`, killed between any two system calls that matter, with and without a power cut.
//!
//! The server dies at a failpoint that chance picks, is started again to die at another, and so on, while clients upload.
//! Only with the feature `failpoints`: `scripts/test` and `scripts/soak crash` run these.

use crate::harness::{Server, Settings, rounds};
use crate::kill::clients_of;
use crate::random::Random;

/// How often the server dies in a round; then it is left alone.
const DEATHS: u64 = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    Process,
    Power,
}

async fn killed_between_calls(settings: Settings, cut: Cut, rounds: u64) {
    let mut random = Random::new();
    let mut server = Server::start(settings).await;
    let mut deaths = 0;
    for round in 0..rounds {
        server.kill().await;
        server.spawn_to_die(failpoint(&mut random), cut == Cut::Power);
        let mut clients = clients_of(server.main, &mut random);
        let mut sessions = Vec::new();
        let mut left = DEATHS;
        while !clients.is_empty() {
            tokio::select! {
                session = clients.join_next() => {
                    let session = session.expect("there is one");
                    sessions.push(session.unwrap_or_else(|error| panic!("in round {round}: {error}")));
                }
                () = server.dies() => {
                    deaths += 1;
                    left -= 1;
                    if left == 0 {
                        server.spawn();
                    } else {
                        server.spawn_to_die(failpoint(&mut random), cut == Cut::Power);
                    }
                }
            }
        }
        server.kill().await;
        server.launch().await;
        for session in &sessions {
            let (status, _) = session.status().await;
            assert_eq!(status["state"], "completed", "never_back: {status}");
            session.complete().await;
            session.verify().await;
        }
    }
    assert!(deaths > 0, "no failpoint was reached in {rounds} rounds");
    println!("{rounds} rounds, {deaths} deaths");
}

/// A small number as often as a large one: starting takes a few failpoints, a file some thousand.
fn failpoint(random: &mut Random) -> u64 {
    1 + (random.within(0..4096) >> random.within(0..12))
}

macro_rules! killed_between_calls {
    ($($name:ident: $settings:expr, $cut:ident, $share:literal;)*) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            killed_between_calls($settings, Cut::$cut, rounds().div_ceil($share)).await;
        })*
    };
}

fn by_content(settings: Settings) -> Settings {
    settings.with("store", "key", r#""{sha256}""#)
}

killed_between_calls! {
    never_back_between_calls_folder: Settings::folder(), Process, 2;
    never_back_between_calls_folder_by_content: by_content(Settings::folder()), Process, 5;
    never_back_between_calls_s3: Settings::s3(), Process, 2;
    never_back_between_calls_s3_by_content: by_content(Settings::s3()), Process, 5;
    never_back_power_cut_folder: Settings::folder(), Power, 1;
    never_back_power_cut_folder_by_content: by_content(Settings::folder()), Power, 5;
    never_back_power_cut_spool: Settings::s3(), Power, 1;
}
