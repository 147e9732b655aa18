//! Turns fuzzer bytes into configuration; refusing is fine, panicking is not.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &str| {
    config::fuzz::parse(data);
    config::fuzz::format(data);
    config::fuzz::evaluate(data);
    config::fuzz::decode(data);
    config::fuzz::yaml(data);
});
