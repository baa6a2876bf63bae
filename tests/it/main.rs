//! The promises, on real API servers and a real S3 server; one module a promise.

mod storage;
