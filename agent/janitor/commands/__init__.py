"""The commands: words in, sentences and exit codes out. What costs time to import is imported inside them."""
