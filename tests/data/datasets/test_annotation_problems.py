"""panomask.data.datasets.annotation_problems: refuse, or count."""

import logging

import pytest

from panomask.data.datasets.annotation_problems import AnnotationProblems
from panomask.data.datasets.coco_annotations import BadAnnotation
from panomask.errors import InputError

BAD = BadAnnotation("bad box", "[1]", "four numbers are needed")


def test_refuse_names_the_first():
    problems = AnnotationProblems("a.json", "refuse", 5)
    with pytest.raises(
        InputError, match=r"^a\.json: annotation 3: bad box: \[1\]; four .*ON_BAD_ANNOTATION drop"
    ):
        problems.add("annotation 3", BAD)


def test_drop_counts(caplog, tmp_path):
    problems = AnnotationProblems(tmp_path / "a.json", "drop", 5)
    problems.log_summary()
    for number in range(2):
        problems.add(f"annotation {number}", BAD)
    with caplog.at_level(logging.WARNING):
        problems.log_summary()
    (message,) = caplog.messages
    assert "2 of 5 annotations are bad and left out: 2 x bad box. The first: annotation 0" in message
    with caplog.at_level(logging.WARNING):
        problems.log_summary()  # the file is read for training, and at each evaluation
    assert len(caplog.messages) == 1
    with pytest.raises(InputError, match="all 5 annotations are bad"):
        problems.log_summary(nothing_left=True)


def test_no_annotation_at_all():
    problems = AnnotationProblems("a.json", "drop", 0)
    problems.add("image 1", BAD)
    with pytest.raises(InputError, match=r"there is no annotation\. The first: image 1: bad box"):
        problems.log_summary()


def test_other_rules_are_refused():
    with pytest.raises(InputError, match='allowed are "refuse" and "drop"'):
        AnnotationProblems("a.json", "skip")
