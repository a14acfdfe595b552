"""Container runtimes: their sockets, CRI, and containerd's own API."""
