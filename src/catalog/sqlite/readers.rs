//! Connections that can only read, used beside the writer.
//!
//! A read is one transaction, so that what it sees is of one moment; it runs on a thread that may block.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::error::unavailable;
use super::open;
use crate::catalog::Result;

/// How many reads may run at once.
const READERS: usize = 4;

/// A pool of connections, each opened when it is first needed.
#[derive(Debug)]
pub(super) struct Readers {
    path: PathBuf,
    busy_timeout: Duration,
    turns: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<Connection>>>,
}

impl Readers {
    pub(super) fn new(path: PathBuf, busy_timeout: Duration) -> Self {
        Self {
            path,
            busy_timeout,
            turns: Arc::new(Semaphore::new(READERS)),
            idle: Arc::default(),
        }
    }

    /// Runs `read` in a transaction of its own.
    pub(super) async fn run<T, F>(&self, read: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        let stopped = || unavailable("the server is stopping");
        let turn = Arc::clone(&self.turns)
            .acquire_owned()
            .await
            .map_err(|_| stopped())?;
        let idle = Arc::clone(&self.idle);
        let path = self.path.clone();
        let busy_timeout = self.busy_timeout;
        tokio::task::spawn_blocking(move || {
            // Held in here: if the caller goes, the connection is in use all the same.
            let _turn = turn;
            let pooled = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut connection = match pooled {
                Some(connection) => connection,
                None => open::for_reading(&path, busy_timeout)?,
            };
            let result = {
                let transaction = connection.transaction()?;
                let result = read(&transaction);
                transaction.commit()?;
                result
            };
            idle.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(connection);
            result
        })
        .await
        .map_err(|_| stopped())?
    }
}
