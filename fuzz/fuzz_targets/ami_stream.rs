#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| queuewarden::fuzzing::ami_stream(data));
