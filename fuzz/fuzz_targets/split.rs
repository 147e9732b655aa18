//! Turns fuzzer bytes into a request that is cut into parts, and back.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    ingest::share::split::fuzz::nothing_is_lost(data);
});
