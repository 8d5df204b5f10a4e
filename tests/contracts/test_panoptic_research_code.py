"""Panoptic research code for Detectron2 runs unmodified: its own mapper, model and evaluation."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from panomask.panoptic_png import write_segment_ids

IDS = np.array([[7, 7, 300, 300], [8, 8, 300, 0], [70000, 70000, 70000, 0]])
CATEGORIES = [
    {"id": 3, "name": "dog", "isthing": 1, "color": [200, 0, 0]},
    {"id": 5, "name": "sky", "isthing": 0, "color": [0, 0, 200]},
    {"id": 6, "name": "cat", "isthing": 1, "color": [0, 200, 0]},
]
SEGMENTS = [
    {"id": 7, "category_id": 3, "iscrowd": 0},
    {"id": 8, "category_id": 6, "iscrowd": 0},
    {"id": 300, "category_id": 5, "iscrowd": 0},
    {"id": 70000, "category_id": 3, "iscrowd": 0},
]

RESEARCH_CODE = """
import json, sys
import numpy as np
import torch
from torch import nn
from detectron2.config import configurable, get_cfg
from detectron2.data import MetadataCatalog, build_detection_test_loader, build_detection_train_loader
from detectron2.data import detection_utils as utils, transforms as T
from detectron2.data.datasets import register_coco_panoptic
from detectron2.evaluation import COCOEvaluator, COCOPanopticEvaluator, DatasetEvaluators, SemSegEvaluator
from detectron2.evaluation import inference_on_dataset
from detectron2.modeling import META_ARCH_REGISTRY, build_model
from detectron2.modeling.postprocessing import sem_seg_postprocess
from detectron2.structures import BitMasks, Instances
from detectron2.utils.visualizer import ColorMode, Visualizer


def segment_ids(path):
    colors = utils.read_image(path, "RGB").astype(np.int64)
    return colors[..., 0] + 256 * colors[..., 1] + 65536 * colors[..., 2]


class PanopticMapper:
    @configurable
    def __init__(self, is_train=True, *, augmentations, image_format):
        self.augmentations, self.image_format = augmentations, image_format

    @classmethod
    def from_config(cls, cfg, is_train=True):
        return {"augmentations": [T.ResizeShortestEdge(6, 8)], "image_format": cfg.INPUT.FORMAT}

    def __call__(self, dataset_dict):
        image = utils.read_image(dataset_dict["file_name"], format=self.image_format)
        image, transforms = T.apply_transform_gens(self.augmentations, image)
        colors = utils.read_image(dataset_dict["pan_seg_file_name"], "RGB")
        ids = transforms.apply_segmentation(colors).astype(np.int64) @ [1, 256, 65536]
        instances = Instances(image.shape[:2])
        segments = dataset_dict["segments_info"]
        instances.gt_classes = torch.tensor([s["category_id"] for s in segments])
        instances.gt_masks = BitMasks(np.stack([ids == s["id"] for s in segments]))
        image = torch.as_tensor(np.ascontiguousarray(image.transpose(2, 0, 1)))
        return {**dataset_dict, "image": image, "instances": instances}


@META_ARCH_REGISTRY.register()
class Copyist(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.metadata = MetadataCatalog.get(cfg.DATASETS.TEST[0])
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, batch):
        if self.training:
            masks = [x["instances"].gt_masks.tensor.float() for x in batch]
            return {"loss_mask": self.scale * sum(mask.mean() for mask in masks)}
        return [self.copy(x) for x in batch]

    def copy(self, x):
        ids, segments = segment_ids(x["pan_seg_file_name"]), x["segments_info"]
        masks = torch.stack([torch.from_numpy(ids == s["id"]) for s in segments])
        classes = torch.tensor([s["category_id"] for s in segments])
        thing_classes = self.metadata.thing_dataset_id_to_contiguous_id.values()
        things = torch.tensor([s["category_id"] in thing_classes for s in segments])
        semantic = torch.zeros(3, *ids.shape).index_add(0, classes, masks.float())
        numbers = torch.arange(1, len(segments) + 1)[:, None, None]
        infos = [
            {"id": i, "isthing": bool(t), "category_id": int(c)}
            for i, (t, c) in enumerate(zip(things, classes), 1)
        ]
        instances = Instances(ids.shape, pred_masks=masks[things], pred_classes=classes[things])
        instances.pred_boxes = BitMasks(masks[things]).get_bounding_boxes()
        instances.scores = torch.ones(int(things.sum()))
        semantic = sem_seg_postprocess(semantic, ids.shape, *ids.shape)
        panoptic = ((masks * numbers).sum(0).int(), infos)
        return {"sem_seg": semantic, "panoptic_seg": panoptic, "instances": instances}


folder = sys.argv[1]
categories = json.load(open(f"{folder}/panoptic.json"))["categories"]
names, ids = [c["name"] for c in categories], {c["id"]: i for i, c in enumerate(categories)}
metadata = {
    "thing_classes": names,
    "stuff_classes": names,
    "thing_dataset_id_to_contiguous_id": {c["id"]: ids[c["id"]] for c in categories if c["isthing"]},
    "stuff_dataset_id_to_contiguous_id": {c["id"]: ids[c["id"]] for c in categories if not c["isthing"]},
}
register_coco_panoptic("pets", metadata, folder, folder, f"{folder}/panoptic.json", None)
cfg = get_cfg()
cfg.MODEL.META_ARCHITECTURE = "Copyist"
cfg.merge_from_list(["MODEL.DEVICE", "cpu", "DATALOADER.NUM_WORKERS", 0])
cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = ("pets",)
cfg.SOLVER.IMS_PER_BATCH = 1
model = build_model(cfg)
batch = next(iter(build_detection_train_loader(cfg, mapper=PanopticMapper(cfg, True))))
assert batch[0]["instances"].gt_masks.tensor.shape == (4, 6, 8)
sum(model(batch).values()).backward()
assert abs(model.scale.grad - 40 / 48 / 4) < 1e-6
evaluators = [
    SemSegEvaluator("pets", output_dir=folder),
    COCOPanopticEvaluator("pets", folder),
    COCOEvaluator("pets", output_dir=folder),
]
results = inference_on_dataset(model, build_detection_test_loader(cfg, "pets"), DatasetEvaluators(evaluators))
print(json.dumps([results["panoptic_seg"]["PQ"], results["sem_seg"]["mIoU"], results["segm"]["AP"]]))
output = model.eval()(batch)[0]
image = utils.read_image(batch[0]["file_name"], "RGB")
picture = Visualizer(image, MetadataCatalog.get("pets"), instance_mode=ColorMode.IMAGE)
picture.draw_panoptic_seg_predictions(*output["panoptic_seg"]).save(f"{folder}/drawn.png")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    image = {"id": 1, "file_name": "1.jpg", "height": 3, "width": 4}
    annotation = {"image_id": 1, "file_name": "1.png", "segments_info": SEGMENTS}
    content = {"images": [image], "annotations": [annotation], "categories": CATEGORIES}
    (tmp_path / "panoptic.json").write_text(json.dumps(content))
    Image.fromarray(np.zeros((3, 4, 3), dtype=np.uint8)).save(tmp_path / "1.jpg")
    write_segment_ids(tmp_path / "1.png", IDS)
    return tmp_path


def test_research_code_trains_evaluates_and_draws(folder: Path):
    code = "import panomask\npanomask.install_as_detectron2()\n" + RESEARCH_CODE
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(folder)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert [100.0, 100.0, 100.0] == json.loads(done.stdout.strip().splitlines()[-1])
    assert (folder / "drawn.png").is_file()
