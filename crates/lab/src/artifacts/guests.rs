//! The guests, and the archive in which the image finds them.
