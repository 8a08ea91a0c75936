//! The one thread that writes.
//!
//! It takes what is queued, runs each operation in a savepoint of its own inside one transaction, commits once, and
//! answers after the commit: the cost of making it durable is shared. An operation that fails takes only its own changes
//! back. If the transaction fails, so does all that was in it, and the thread goes on with what comes next.

use std::sync::Arc;
use std::time::Instant;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::error::unavailable;
use crate::catalog::{CatalogError, Result};
use crate::failpoints;

/// How many operations may wait. Whoever comes after waits for a place.
const QUEUE: usize = 1024;
/// The most operations that share a transaction, so that the first in it need not wait for ever.
const BATCH: usize = 256;

/// The way to the thread. Dropping it stops the thread after what is queued.
#[derive(Debug)]
pub(super) struct Writer {
    queue: mpsc::Sender<Box<dyn Job>>,
}

impl Writer {
    /// Starts the thread.
    pub(super) fn start(connection: Connection) -> std::io::Result<Self> {
        let (queue, jobs) = mpsc::channel(QUEUE);
        std::thread::Builder::new()
            .name("jumar-catalog".to_owned())
            .spawn(move || work(&connection, jobs))?;
        Ok(Self { queue })
    }

    /// Runs `operation` in a transaction that is durable when this returns `Ok`. Dropped, it is run or not.
    pub(super) async fn run<T, F>(&self, operation: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job = Box::new(Operation {
            work: Some(operation),
            result: None,
            reply,
        });
        let stopped = || unavailable("its thread has stopped");
        self.queue.send(job).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }
}

/// An operation of any result.
trait Job: Send {
    /// Runs it; whether it succeeded.
    fn run(&mut self, connection: &Connection) -> bool;
    /// Tells its caller: its own result if the transaction was committed, else why not.
    fn answer(self: Box<Self>, committed: std::result::Result<(), NotCommitted>);
}

struct Operation<T, F> {
    work: Option<F>,
    result: Option<Result<T>>,
    reply: oneshot::Sender<Result<T>>,
}

impl<T, F> Job for Operation<T, F>
where
    T: Send,
    F: FnOnce(&Connection) -> Result<T> + Send,
{
    fn run(&mut self, connection: &Connection) -> bool {
        self.result = self.work.take().map(|work| work(connection));
        matches!(self.result, Some(Ok(_)))
    }

    fn answer(self: Box<Self>, committed: std::result::Result<(), NotCommitted>) {
        let result = match committed {
            Ok(()) => self
                .result
                .unwrap_or_else(|| Err(unavailable("it was not run"))),
            Err(why) => Err(CatalogError::Unavailable(Box::new(why))),
        };
        // Whoever asked may have gone.
        let _ = self.reply.send(result);
    }
}

/// Why a transaction was not committed.
#[derive(Debug, Clone, thiserror::Error)]
enum NotCommitted {
    #[error("the transaction failed")]
    Failed(#[from] Arc<rusqlite::Error>),
    #[error("SQLite took the transaction back")]
    TakenBack,
}

impl From<rusqlite::Error> for NotCommitted {
    fn from(error: rusqlite::Error) -> Self {
        Self::Failed(Arc::new(error))
    }
}

fn work(connection: &Connection, mut queue: mpsc::Receiver<Box<dyn Job>>) {
    while let Some(first) = queue.blocking_recv() {
        let mut batch = vec![first];
        while batch.len() < BATCH
            && let Ok(next) = queue.try_recv()
        {
            batch.push(next);
        }
        let started = Instant::now();
        let committed = transact(connection, &mut batch);
        metrics::histogram!("jumar_catalog_commit_duration_seconds")
            .record(started.elapsed().as_secs_f64());
        for job in batch {
            job.answer(committed.clone());
        }
    }
}

fn transact(
    connection: &Connection,
    batch: &mut [Box<dyn Job>],
) -> std::result::Result<(), NotCommitted> {
    let outcome = run_all(connection, batch);
    if outcome.is_err() && !connection.is_autocommit() {
        // Nothing to do if this fails too: the next BEGIN then fails, and we are back here.
        let _ = execute(connection, "ROLLBACK");
    }
    outcome
}

fn run_all(
    connection: &Connection,
    batch: &mut [Box<dyn Job>],
) -> std::result::Result<(), NotCommitted> {
    execute(connection, "BEGIN IMMEDIATE")?;
    for job in batch {
        execute(connection, "SAVEPOINT operation")?;
        let done = job.run(connection);
        // Some errors (a full disk, a failed read) end the whole transaction, with what the operations before have done.
        if connection.is_autocommit() {
            return Err(NotCommitted::TakenBack);
        }
        if !done {
            execute(connection, "ROLLBACK TO operation")?;
        }
        execute(connection, "RELEASE operation")?;
    }
    failpoints::commit(connection.path(), || execute(connection, "COMMIT"))?;
    Ok(())
}

fn execute(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute([]).map(drop)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::task::{Context, Waker};
    use std::time::Duration;

    use super::*;

    fn tables() -> Connection {
        let connection = Connection::open_in_memory().expect("opened");
        connection
            .execute_batch(
                "PRAGMA foreign_keys = ON;
                 CREATE TABLE parent (x PRIMARY KEY);
                 CREATE TABLE child (x REFERENCES parent (x) DEFERRABLE INITIALLY DEFERRED);",
            )
            .expect("made");
        connection
    }

    type Answer = oneshot::Receiver<Result<()>>;

    fn job(sql: &'static str, fails: bool) -> (Box<dyn Job>, Answer) {
        let (reply, answer) = oneshot::channel();
        let work = move |tx: &Connection| {
            tx.execute_batch(sql)?;
            if fails {
                Err(CatalogError::Stale)
            } else {
                Ok(())
            }
        };
        let job = Operation {
            work: Some(work),
            result: None,
            reply,
        };
        (Box::new(job), answer)
    }

    fn run(connection: &Connection, jobs: [(&'static str, bool); 3]) -> Vec<Result<()>> {
        let (mut batch, answers): (Vec<_>, Vec<_>) =
            jobs.into_iter().map(|(sql, fails)| job(sql, fails)).unzip();
        let committed = transact(connection, &mut batch);
        for job in batch {
            job.answer(committed.clone());
        }
        answers
            .into_iter()
            .map(|mut answer| answer.try_recv().expect("answered"))
            .collect()
    }

    fn parents(connection: &Connection) -> Vec<i64> {
        connection
            .prepare("SELECT x FROM parent ORDER BY x")
            .expect("prepared")
            .query_map([], |row| row.get(0))
            .expect("read")
            .collect::<rusqlite::Result<_>>()
            .expect("read")
    }

    #[test]
    fn one_that_fails_takes_only_its_own_changes_back() {
        let connection = tables();
        let answers = run(
            &connection,
            [
                ("INSERT INTO parent VALUES (1)", false),
                ("INSERT INTO parent VALUES (2)", true),
                ("INSERT INTO parent VALUES (3)", false),
            ],
        );
        assert!(matches!(
            answers[..],
            [Ok(()), Err(CatalogError::Stale), Ok(())]
        ));
        assert_eq!(parents(&connection), [1, 3]);
    }

    #[test]
    fn a_commit_that_fails_fails_them_all_and_the_next_one_works() {
        let connection = tables();
        let answers = run(
            &connection,
            [
                ("INSERT INTO parent VALUES (1)", false),
                ("INSERT INTO child VALUES (7)", false),
                ("INSERT INTO parent VALUES (3)", true),
            ],
        );
        for answer in answers {
            assert!(matches!(answer, Err(CatalogError::Unavailable(_))));
        }
        assert_eq!(parents(&connection), [0_i64; 0]);
        let answers = run(
            &connection,
            [
                ("INSERT INTO parent VALUES (1)", false),
                ("", false),
                ("", false),
            ],
        );
        assert!(answers.iter().all(Result::is_ok));
        assert_eq!(parents(&connection), [1]);
    }

    #[test]
    fn a_transaction_that_was_taken_back_fails_them_all() {
        let connection = tables();
        let answers = run(
            &connection,
            [
                ("INSERT INTO parent VALUES (1)", false),
                ("ROLLBACK", false),
                ("INSERT INTO parent VALUES (3)", false),
            ],
        );
        for answer in answers {
            let Err(CatalogError::Unavailable(why)) = answer else {
                panic!("{answer:?}");
            };
            assert_eq!(why.to_string(), NotCommitted::TakenBack.to_string());
        }
        assert_eq!(parents(&connection), [0_i64; 0]);
    }

    #[test]
    fn what_is_queued_is_run_when_the_writer_is_dropped() {
        let writer = Writer::start(tables()).expect("started");
        let (go_on, may_go_on) = channel::<()>();
        let (done, was_done) = channel::<()>();
        {
            let mut first = Box::pin(writer.run(move |_| {
                may_go_on.recv().expect("told to go on");
                Ok(())
            }));
            let mut second = Box::pin(writer.run(move |_| {
                done.send(()).expect("somebody listens");
                Ok(())
            }));
            let mut context = Context::from_waker(Waker::noop());
            assert!(first.as_mut().poll(&mut context).is_pending());
            assert!(second.as_mut().poll(&mut context).is_pending());
        }
        drop(writer);
        go_on.send(()).expect("it waits");
        was_done
            .recv_timeout(Duration::from_secs(30))
            .expect("it was run");
    }
}
