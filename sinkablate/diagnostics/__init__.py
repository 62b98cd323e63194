"""The tap, the quantities of attention sinks, the rules, and the tables made from them.

The hooks of `tap.py` capture each block of a forward pass (`capture.py`, `visibility.py`) and pass a `view.py` of it to
a consumer. `recorder.py` is the main one: it sums the N x N weights of each block (`weight_sums.py`,
`softmax_sums.py`, in `chunks.py`) and computes everything else for several blocks at once (`routing.py`,
`head_tensors.py`, `heads.py`, `updates.py`, `norms.py`, `activations.py`). The result is a `records.py`, from which
rules (`rules.py`, `labels.py`), tables and findings are derived. `probe.py` measures a set of images;
`measurement.py` holds all results.
"""
