//! Turns fuzzer bytes into a comparison of the remote-write 2.0 scanner with prost.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    ingest::decode::remote_write_v2::fuzz::scan_agrees_with_prost(data);
});
