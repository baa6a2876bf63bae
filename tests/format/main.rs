//! The stored bytes: whatever is done to them is noticed, no bytes harm who reads them.
//!
//! No server is needed: the repository is a folder, made and read by the library.

mod fixture;
mod fuzz;
mod make;
mod newer;
mod reader;
mod tamper;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;
