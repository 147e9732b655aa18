//! Turns fuzzer bytes into zstd frames of a request; refusing is fine, too much memory is not.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    ingest::decode::zstd::fuzz::no_more_comes_out_than_was_claimed(data);
});
