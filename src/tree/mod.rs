//! The merged image filesystem.
