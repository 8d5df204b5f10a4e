"""`CityscapesInstanceEvaluator` from predicted masks and an image of instance ids to numbers."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from panomask.data import MetadataCatalog
from panomask.errors import InputError
from panomask.evaluation import CityscapesInstanceEvaluator
from panomask.structures import Instances

FILE = "leftImg8bit/val/ulm/ulm_000001_000019_leftImg8bit.png"


@pytest.fixture
def evaluator(monkeypatch, tmp_path):
    """Of one image, 40 x 60: road with a car (class 2), a group of persons and the ego vehicle (void)."""
    monkeypatch.setenv("PANOMASK_DATASETS", str(tmp_path))
    folder = tmp_path / "cityscapes/gtFine/val/ulm"
    folder.mkdir(parents=True)
    ids = np.full((40, 60), 7, dtype=np.uint16)
    ids[5:20, 5:25] = 26000
    ids[5:25, 30:50] = 24
    ids[35:] = 1
    Image.fromarray(ids).save(folder / "ulm_000001_000019_gtFine_instanceIds.png")
    return CityscapesInstanceEvaluator("cityscapes_fine_instance_seg_val")


def predict(evaluator, *found, size=(40, 60)):
    """`found`: (class, (y0, y1, x0, x1), score)."""
    instances = Instances(size)
    instances.pred_masks = torch.zeros(len(found), *size, dtype=torch.bool)
    for mask, (_, (y0, y1, x0, x1), _) in zip(instances.pred_masks, found, strict=True):
        mask[y0:y1, x0:x1] = True
    instances.pred_classes = torch.tensor([each[0] for each in found], dtype=torch.int64)
    instances.scores = torch.tensor([each[2] for each in found])
    evaluator.process([{"file_name": FILE}], [{"instances": instances}])


CAR = (2, (5, 20, 5, 25), 0.8)


def test_what_lies_on_groups_and_void_is_no_error(evaluator):
    predict(evaluator, CAR, (0, (5, 20, 30, 50), 0.9), (2, (35, 40, 0, 60), 0.9))
    metrics = evaluator.evaluate()["segm"]
    assert [metrics[key] for key in ("AP", "AP50", "AP-car")] == pytest.approx([100] * 3)
    assert math.isnan(metrics["AP-person"])


@pytest.mark.parametrize(("number", "ap"), [(29, 100), (29000, 25)])
def test_numbered_objects_of_classes_that_are_not_scored_are_no_void(evaluator, tmp_path, number, ap):
    """A caravan by itself (29000) is no car, as cityscapesscripts counts; a group (29) is void."""
    (path,) = (tmp_path / "cityscapes/gtFine/val/ulm").iterdir()
    ids = np.array(Image.open(path))
    ids[22:30, 5:25] = number
    Image.fromarray(ids).save(path)
    predict(evaluator, CAR, (2, (22, 30, 5, 25), 0.9))
    assert evaluator.evaluate()["segm"]["AP50"] == pytest.approx(ap)


def test_an_error_and_a_mask_that_fits_by_three_quarters(evaluator):
    """15 of 20 columns: IoU 0.75, right at 0.5 to 0.7 (5 of 10 thresholds, as it must be above)."""
    predict(evaluator, (2, (5, 20, 5, 20), 0.8))
    metrics = evaluator.evaluate()["segm"]
    assert (metrics["AP"], metrics["AP50"]) == (pytest.approx(50), pytest.approx(100))
    evaluator.reset()
    predict(evaluator, CAR, (2, (22, 30, 5, 25), 0.9))
    assert evaluator.evaluate()["segm"]["AP50"] == pytest.approx(25)


def test_nothing_predicted(evaluator):
    assert evaluator.evaluate() == {}
    predict(evaluator)
    assert evaluator.evaluate()["segm"]["AP"] == 0


def test_errors_are_one_line(evaluator, tmp_path):
    with pytest.raises(InputError, match=r"masks are of \(40, 50\) pixels and the truth of \(40, 60\)"):
        predict(evaluator, (2, (0, 1, 0, 1), 0.5), size=(40, 50))
    with pytest.raises(InputError, match=r"predicted class 8, but .* has 8 classes"):
        predict(evaluator, (8, (0, 1, 0, 1), 0.5))
    with pytest.raises(InputError, match=r"MODEL\.MASK_ON"):
        evaluator.process([{"file_name": FILE}], [{"instances": Instances((40, 60))}])
    path = tmp_path / "cityscapes/gtFine/val/ulm/ulm_000001_000019_gtFine_instanceIds.png"
    path.write_bytes(b"no image")
    with pytest.raises(InputError, match=r"instanceIds\.png: cannot be read"):
        predict(evaluator, CAR)
    Image.new("RGB", (60, 40)).save(path)
    with pytest.raises(InputError, match=r"instanceIds\.png: has 3 colours"):
        predict(evaluator, CAR)
    path.unlink()
    with pytest.raises(InputError, match=r"instanceIds\.png: file does not exist"):
        predict(evaluator, CAR)
    with pytest.raises(InputError, match="does not say where its truth lies"):
        CityscapesInstanceEvaluator("without_truth")
    MetadataCatalog.get("without_truth").set(gt_dir="x")
    with pytest.raises(InputError, match="which labels its classes are"):
        CityscapesInstanceEvaluator("without_truth")
    MetadataCatalog.remove("without_truth")
