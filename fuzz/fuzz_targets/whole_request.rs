#![no_main]

use std::sync::{LazyLock, Mutex};

#[path = "../src/whole_request.rs"]
mod whole_request;

use whole_request::Ground;

static GROUND: LazyLock<Mutex<Ground>> = LazyLock::new(|| Mutex::new(Ground::start()));

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    GROUND.lock().expect("a panic ends the process").feed(data);
});
