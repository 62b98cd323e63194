"""One run on disk: its directory, its checkpoints, and what later commands read from it.

`directory.py` knows the files of a run and protects them. `resume.py` decides which checkpoint a command loads;
`checkpoints.py` finds and checks checkpoints, `checkpoint_io.py` writes them, from copies of the state that
`staging.py` makes. `cells.py` identifies a run within a sweep. `reading.py` and `schema.py` read and check the files of
runs that other people may have made; `trust.py` refuses configurations that would execute something.
"""
