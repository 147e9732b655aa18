//! Turns fuzzer bytes into a segment of a Prometheus; refusing is fine, panicking is not.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| ingest::prometheus_wal::fuzz::reading_ends_in_order(data));
