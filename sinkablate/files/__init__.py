"""Files that are written completely or not at all, and YAML that refuses repeated keys."""
