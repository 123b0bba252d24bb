//! See `rtm_gateway_fuzz::route`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| rtm_gateway_fuzz::route::check(data));
