//! What every engine is tested with: the suite that each must pass, and the model that it must agree with.

pub(in crate::store) mod conformance;
pub(crate) mod memory;
pub(in crate::store) mod model;
