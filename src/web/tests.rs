//! The endpoints over a model that says what a test wants.
