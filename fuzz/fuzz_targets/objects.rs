#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| jumar::fuzzing::run("objects", data));
