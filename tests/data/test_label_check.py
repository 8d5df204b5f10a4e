"""What label images may hold. (The checks of whole data sets: tests/engine/test_semantic_setup.py.)"""

import numpy as np
import pytest

from panomask.data.label_check import check_label_range
from panomask.errors import InputError


@pytest.mark.parametrize("label", [-1, 3, 254])
def test_a_label_of_no_class_is_named(label):
    labels = np.array([[0, 2], [label, 255]], dtype=np.int32)
    with pytest.raises(InputError, match=rf"a\.png: label {label}, but there are 3 classes .* 0 to 2 are"):
        check_label_range("a.png", labels, 3, 255)
    check_label_range("a.png", labels, None, 255)  # nothing is known of the classes
    check_label_range("a.png", labels[:1], 3, 255)
    check_label_range("a.png", np.zeros((0, 0), dtype=np.uint8), 3, 255)


def test_the_ignored_label_may_be_any():
    check_label_range("a.png", np.array([[0, -1], [1, 2]]), 3, -1)
    check_label_range("a.png", np.array([[0, 1], [1, 2]]), 2, 2)
