//! See `rtm_gateway_fuzz::peers`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| rtm_gateway_fuzz::peers::check(data));
