//! Turns fuzzer bytes into log frames; refusing is fine, panicking is not.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| wal::fuzz::frame_decode_never_panics(data));
