"""The command `plan`: what a `fit` or a sweep would need, predicted from its configuration."""
