"""Training on several ranks: sharded parameters and synchronized batch norm."""
