//! Faulty.
