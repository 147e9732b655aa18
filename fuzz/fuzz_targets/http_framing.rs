//! Turns fuzzer bytes into what a peer sends; refusing is fine, panicking and not ending are not.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| ingest::fuzz::http_framing(data));
