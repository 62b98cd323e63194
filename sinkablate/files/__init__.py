"""Reading and writing files: atomic writes, YAML that rejects repeated keys, suggestions for misspelled names."""
