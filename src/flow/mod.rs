//! Flow keys, hashing and ownership.
