//! See `rtm_gateway_fuzz::answers`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| rtm_gateway_fuzz::answers::check(data));
