"""The kernel: processes, namespaces, mounts, netlink, packet filter."""
