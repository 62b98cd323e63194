"""The command line of `fit`, `validate`, `test`, `predict` and `plan`, and the parser of all commands."""
