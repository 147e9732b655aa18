//! Turns fuzzer bytes into a scrape body (text) that has to be read or refused.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    use ingest::decode::exposition::{Format, fuzz};
    fuzz::a_body_is_read_or_refused(data, Format::Text);
});
