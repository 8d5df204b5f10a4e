"""Fixtures that several folders of tests use."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def golden_recipe() -> ModuleType:
    """The module golden_recipe.py beside this file: weights, images, annotations behind golden numbers."""
    path = Path(__file__).with_name("golden_recipe.py")
    spec = importlib.util.spec_from_file_location("golden_recipe", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
