"""timm's vision transformers with registers and attention mechanisms."""
