//! The configuration: the file as written → [`settings::Settings`], where every invariant holds.
//!
//! ```text
//!  text ─► tree (untyped, with lines) ─► overrides (UNDERSTUDY_…) ─► typed (File) ─► settle ─► Settings
//! ```
//! Each step adds what it finds to one list of errors, so that a file is put right in one go.

pub mod errors;
mod file;
pub mod load;
mod overrides;
pub mod preset;
mod schema;
pub mod settings;
mod settle;
mod tree;
mod typed;

pub use errors::ConfigErrors;
pub use load::load;
pub use schema::schema;
