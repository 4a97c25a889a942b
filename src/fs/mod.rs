//! The filesystem operations over a tree and its layers.
