"""The commands: arguments in, text and exit codes out. Modules that are slow to import are imported inside them."""
