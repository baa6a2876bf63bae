//! One-off restore, the everyday job: someone deleted it. What a person chose out of a backup is put
//! onto a hub, as a plan that can be kept and carried out later, or not at all.
//!
//! ```text
//!  backup ─► pick ─► contents of the chosen, under the keys of this hub ─► plan ─► check ─► execute
//!            present: what stands there, and whether it differs ─┘   └─► steps ─► saved
//! ```
//!
//! What is restored so is nobody's: it carries no label of ours, so that no later sync updates or
//! deletes it. Nothing is deleted by it, and what exists is only replaced when that was asked for and
//! nobody has changed it since the plan.

pub mod pick;
pub mod present;
pub mod rehome;
pub mod saved;
pub mod steps;
mod write;

pub(super) use write::write;
