//! Turns fuzzer bytes into files of a store; refusing is fine, panicking is not.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| wal::inspect::fuzz::a_broken_store_opens(data));
