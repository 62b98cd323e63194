"""timm's vision transformers and what is changed in them."""
