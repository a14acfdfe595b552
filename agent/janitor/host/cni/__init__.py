"""CNI: configuration, libcni's cache, host-local's leases and locks, and DEL."""
