"""sinkablate: train vision transformers and measure what their attention sinks compute.

The names in `__all__` are the public Python API, usually written `import sinkablate as sa`. Each is imported when it
is first used, so that `import sinkablate` itself loads neither PyTorch nor anything else.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sinkablate.api.create import create_model as create_model
    from sinkablate.api.evaluate import evaluate as evaluate
    from sinkablate.api.intervene import intervene as intervene
    from sinkablate.api.maps import attention_maps as attention_maps
    from sinkablate.api.maps import token_maps as token_maps
    from sinkablate.api.measure import measure as measure
    from sinkablate.api.registers import add_test_time_registers as add_test_time_registers
    from sinkablate.api.run import load_run as load_run
    from sinkablate.callbacks.sinks import SinkDiagnostics as SinkDiagnostics
    from sinkablate.compare.analysis import compare as compare
    from sinkablate.config.register_neurons import RegisterNeuronConfig as RegisterNeuronConfig
    from sinkablate.config.selection import SelectionConfig as SelectionConfig
    from sinkablate.config.thresholds import ThresholdConfig as ThresholdConfig
    from sinkablate.diagnostics.rules import Label as Label
    from sinkablate.errors import UserError as UserError

__version__ = "0.1.0"
_HOMES = {
    "Label": "diagnostics.rules",
    "RegisterNeuronConfig": "config.register_neurons",
    "SelectionConfig": "config.selection",
    "SinkDiagnostics": "callbacks.sinks",
    "ThresholdConfig": "config.thresholds",
    "UserError": "errors",
    "add_test_time_registers": "api.registers",
    "attention_maps": "api.maps",
    "compare": "compare.analysis",
    "create_model": "api.create",
    "evaluate": "api.evaluate",
    "intervene": "api.intervene",
    "load_run": "api.run",
    "measure": "api.measure",
    "token_maps": "api.maps",
}
"""Public name -> the module that defines it."""
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return sorted({*globals(), *_HOMES})


class _Package(ModuleType):
    """Keeps `sinkablate.compare`, `sinkablate.evaluate` and `sinkablate.intervene` the functions of the API.

    Importing a submodule makes it an attribute of its package, which would replace the function of the same name.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
