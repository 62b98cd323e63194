"""The public names, and that importing the package imports nothing heavy."""

import subprocess
import sys

import pytest

import sinkablate as sa

CONTRACT = {
    "Label",
    "RegisterNeuronConfig",
    "SelectionConfig",
    "SinkDiagnostics",
    "ThresholdConfig",
    "UserError",
    "add_test_time_registers",
    "attention_maps",
    "compare",
    "create_model",
    "evaluate",
    "intervene",
    "load_run",
    "measure",
    "token_maps",
}


def test_the_public_names_are_these() -> None:
    assert set(sa.__all__) == CONTRACT
    assert set(dir(sa)) >= CONTRACT
    assert all(getattr(sa, name).__name__ == name for name in CONTRACT)
    with pytest.raises(AttributeError, match="no_such_name"):
        sa.no_such_name  # noqa: B018
    assert issubclass(sa.UserError, ValueError)


def test_importing_the_package_is_light_and_submodules_do_not_shadow_functions() -> None:
    code = (
        "import sys; before = set(sys.modules); import sinkablate as sa;"
        "print(*{name.split('.')[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names));"
        "import sinkablate.compare.statistics; print(sa.compare.__module__);"
        "from sinkablate import compare; print(compare is sa.compare)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=600)
    assert done.stdout.splitlines() == ["sinkablate", "sinkablate.compare.analysis", "True"]
