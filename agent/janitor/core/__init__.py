"""Values and decisions. Pure: nothing here reads a file, a clock or a socket, and nothing prints."""
