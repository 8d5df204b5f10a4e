from collections.abc import Iterator

import pytest

from panomask.data import DatasetCatalog, MetadataCatalog


@pytest.fixture
def forgotten() -> Iterator[list[str]]:
    """A list for names of data sets, which are registered no more after the test."""
    names: list[str] = []
    yield names
    for name in set(names) & set(DatasetCatalog.list()):
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
