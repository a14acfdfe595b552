"""What touches the node. One resource a file; each reader returns frozen values, or Unknown with the reason."""
