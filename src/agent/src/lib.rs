//! The node agent: pod lifecycle state machine, probes, volumes, logs, exec and port-forward server.
