//! Capture: objects read from a hub at one instant.

pub mod candidates;
pub mod clean;
pub mod cut;
pub mod discovery;
pub mod page_size;
pub mod rules;
pub mod select;
pub mod survey;
pub mod versions;
