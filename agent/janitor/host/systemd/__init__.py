"""systemd: its units, networkd, and what it is told."""
