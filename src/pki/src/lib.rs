//! Certificates, keys and tokens of the cluster: issued, verified, renewed in place.
