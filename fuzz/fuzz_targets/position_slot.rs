//! Turns fuzzer bytes into a position file.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| wal::inspect::fuzz::position_slot_is_found_or_not(data));
