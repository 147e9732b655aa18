//! Turns fuzzer bytes into what other agents of a cluster say.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    cluster::fuzz::an_agent_goes_on(data);
});
