"""Reading and writing files: atomic writes, the rule for replacing files, strict YAML, suggestions."""
