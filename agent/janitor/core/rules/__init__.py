"""Policy rules: who owns them, which should exist, and who deleted them."""
