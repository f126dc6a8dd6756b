//! End-to-end tests: a real server, a real worker, real receivers.
