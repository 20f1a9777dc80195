//! kube::Client over an in-process service or mTLS, shared informers, leader election, events.
