//! Turns fuzzer bytes into series records of a chunk.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| wal::inspect::fuzz::series_log_is_walked_to_its_end(data));
