//! Folder.
