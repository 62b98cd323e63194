"""The command line of `fit`, `validate`, `test` and `predict`, and the parser of all commands."""
