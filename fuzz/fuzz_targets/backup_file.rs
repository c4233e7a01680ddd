#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| queuewarden::fuzzing::backup_file(data));
