//! Packets in the forms of the command line: options, JSON, forms of bytes, and defects on purpose.

mod build;
mod data;
pub(crate) mod defect;
mod draft;
pub(crate) mod form;
mod named;

pub(crate) use data::Data;
pub(crate) use draft::{Connect, Draft};
pub(crate) use named::Named;
