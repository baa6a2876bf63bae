//! Promotion and the roles: facts → decide → one action.

pub mod checklist;
pub mod handover;
pub mod machine;
