//! Sockets: a fixed pool of threads that does HTTP with ureq and holds nothing of PostgreSQL.
