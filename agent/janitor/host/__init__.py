"""Everything that touches the node. One resource per file; a reader returns frozen values, or Unknown with a reason."""
