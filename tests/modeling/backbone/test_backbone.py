"""The promise of a backbone."""

import pytest

from panomask.modeling import Backbone


def test_defaults():
    class _Plain(Backbone):
        def forward(self, x):
            return {"all": x}

    backbone = _Plain()
    assert (backbone.size_divisibility, backbone.padding_constraints) == (0, {})
    with pytest.raises(TypeError):
        Backbone()
