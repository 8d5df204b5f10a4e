"""The evaluator of a data set is that of its `evaluator_type`."""

import pytest

from panomask.config import get_cfg
from panomask.data import MetadataCatalog
from panomask.engine.evaluators import build_evaluator
from panomask.errors import InputError
from panomask.evaluation import (
    CityscapesInstanceEvaluator,
    COCOEvaluator,
    LVISEvaluator,
    PascalVOCDetectionEvaluator,
)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("coco_2017_val", COCOEvaluator),
        ("keypoints_coco_2017_val", COCOEvaluator),
        ("lvis_v1_val", LVISEvaluator),
        ("lvis_v0.5_val_cocofied", LVISEvaluator),
        ("voc_2007_test", PascalVOCDetectionEvaluator),
        ("cityscapes_fine_instance_seg_val", CityscapesInstanceEvaluator),
    ],
)
def test_built_in_sets(name, kind):
    assert type(build_evaluator(get_cfg(), name)) is kind


def test_an_unknown_type_names_the_known_ones():
    MetadataCatalog.get("odd").set(evaluator_type="pascal_vok")
    with pytest.raises(
        InputError, match=r"'odd' has evaluator_type 'pascal_vok'; .*mean 'pascal_voc'\?"
    ) as e:
        build_evaluator(get_cfg(), "odd")
    MetadataCatalog.remove("odd")
    assert "'lvis'" in str(e.value)
