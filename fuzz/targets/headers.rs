//! See `rtm_gateway_fuzz::headers`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| rtm_gateway_fuzz::headers::check(data));
