"""Files that Git LFS has not downloaded."""

POINTER = b"version https://git-lfs.github.com/spec/"
"""The beginning of the small file that Git LFS leaves in place of one that was not downloaded."""
