//! Composition: resolve, open layers, build the tree, serve.
