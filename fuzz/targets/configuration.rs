//! See `rtm_gateway_fuzz::configuration`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| rtm_gateway_fuzz::configuration::check(data));
