//! The rules of the repository as tests: the layers of the modules, the form of the files, and the agreement of the
//! manual, the shipped configuration and the code.

mod markdown;
mod rust;

mod configuration;
mod documents;
mod examples;
mod files;
mod freeswitch_dialplan;
mod json_schema;
mod layers;
