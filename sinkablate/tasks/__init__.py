"""LightningModules for classification and LeJEPA, with optimizers and checkpoint checks."""
