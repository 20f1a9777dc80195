//! Binds pods to nodes: a snapshot of the cluster, filter and score plugins, the binding loop.
