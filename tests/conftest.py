"""What every test folder shares: the small pipelines of ``models.py`` under the fixture
``tiny``.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"xhat_tests_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def tiny() -> ModuleType:
    """Builders of small random pipelines: ``tiny.sd()``, ``.sdxl()``, ``.sd3()``, ``.pixart()``."""
    torch.set_num_threads(1)  # tiny tensors: more threads only wait for each other
    return _load(Path(__file__).with_name("models.py"))


@pytest.fixture(scope="session")
def loops(tiny: ModuleType) -> ModuleType:
    """Builders of pipelines of other families: ``loops.BUILDERS[name](tiny, seed)``."""
    return _load(Path(__file__).with_name("loops.py"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Notebooks first: they take longest, and no worker should end on one alone."""
    items.sort(key=lambda item: "test_notebooks" not in item.nodeid)
