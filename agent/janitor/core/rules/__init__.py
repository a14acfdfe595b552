"""Policy rules: whose they are, which should be there, and who deleted them."""
