"""Every key of the config with its default, except those below MODEL, which are in `model_defaults.py`.

Keys and values are Detectron2's, so its config files mean here what they mean there; keys of our own say so.
A key that this version does not obey yet is listed in `validation.py` and refused when it is set.
"""

from panomask.config.model_defaults import MODEL
from panomask.config.node import CfgNode

_C = CfgNode()

_C.VERSION = 2  # of the key names; files of VERSION 1 (before October 2019) are refused
_C.MODEL = MODEL

# ------------------------------------------------------------------------------------------------------------
# INPUT: from an image file to what the model sees
# ------------------------------------------------------------------------------------------------------------
_C.INPUT = CfgNode()
# Training: the shorter side is drawn from these ("choice"), or from the range between the two given
# ("range"); then the image is shrunk again if its longer side exceeds MAX_SIZE_TRAIN. Pixels.
_C.INPUT.MIN_SIZE_TRAIN = (800,)
_C.INPUT.MIN_SIZE_TRAIN_SAMPLING = "choice"
_C.INPUT.MAX_SIZE_TRAIN = 1333
_C.INPUT.MIN_SIZE_TEST = 800  # 0: images are not resized in testing
_C.INPUT.MAX_SIZE_TEST = 1333
_C.INPUT.RANDOM_FLIP = "horizontal"  # "horizontal", "vertical" or "none"; training only
_C.INPUT.FORMAT = "BGR"  # channel order, of the image and of MODEL.PIXEL_MEAN and PIXEL_STD
_C.INPUT.MASK_FORMAT = "polygon"  # "polygon" or "bitmask": how masks travel from the mapper to the mask head

# A random crop before the resizing, training only. TYPE: "relative" (SIZE is the fraction of height and
# width), "relative_range" (fractions drawn between SIZE and 1), "absolute" (SIZE in pixels), "absolute_range"
# (pixels drawn between SIZE[0] and SIZE[1], and never beyond the image). SIZE is (height, width).
_C.INPUT.CROP = CfgNode({"ENABLED": False})
_C.INPUT.CROP.TYPE = "relative_range"
_C.INPUT.CROP.SIZE = [0.9, 0.9]

# Ours. Large-scale jitter (Ghiasi et al. 2021), training only, in place of MIN_SIZE_TRAIN and MAX_SIZE_TRAIN:
# the image is scaled to fit into SIZE (height, width; pixels) times a number drawn between both scales, and
# cut or padded to SIZE.
_C.INPUT.LSJ = CfgNode({"ENABLED": False})
_C.INPUT.LSJ.MIN_SCALE = 0.1
_C.INPUT.LSJ.MAX_SCALE = 2.0
_C.INPUT.LSJ.SIZE = [1024, 1024]

# ------------------------------------------------------------------------------------------------------------
# DATASETS, DATALOADER: what is read, and in which order
# ------------------------------------------------------------------------------------------------------------
_C.DATASETS = CfgNode()
_C.DATASETS.TRAIN = ()  # names in the DatasetCatalog; several are concatenated
_C.DATASETS.TEST = ()  # each is evaluated by itself
# Precomputed proposals, one file for each data set, and how many of each image's best are used.
_C.DATASETS.PROPOSAL_FILES_TRAIN = ()
_C.DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TRAIN = 2000
_C.DATASETS.PROPOSAL_FILES_TEST = ()
_C.DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TEST = 1000
# Ours. A user's own data sets: DATASETS.REGISTER.<name>.ANNOTATIONS (COCO JSON) and .IMAGES (folder). For
# keypoints also .KEYPOINT_FLIP_PAIRS, [[name, name], ...] that a mirror swaps (empty: told from left and
# right in the names), and .KEYPOINT_SIGMAS, one for each (empty: the category's "sigmas", or COCO's own 17).
# A panoptic set: also .PANOPTIC_ROOT (folder of PNG files), and ANNOTATIONS is the panoptic JSON file. A
# semantic set: .SEM_SEG_ROOT (folder of label PNG files), .IMAGES, .STUFF_CLASSES (names of the classes 0, 1,
# ...), and no ANNOTATIONS. Both may have .IGNORE_LABEL (of pixels in no class).
_C.DATASETS.REGISTER = CfgNode.table(
    *("ANNOTATIONS", "IMAGES", "PANOPTIC_ROOT", "SEM_SEG_ROOT"),
    STUFF_CLASSES=[],
    IGNORE_LABEL=255,
    KEYPOINT_FLIP_PAIRS=[],
    KEYPOINT_SIGMAS=[],
)
# Ours. An annotation that cannot be used (polygon with fewer than 3 points, box without area): "refuse" stops
# with the entry's place, "drop" leaves it out.
_C.DATASETS.ON_BAD_ANNOTATION = "refuse"

_C.DATALOADER = CfgNode()
_C.DATALOADER.NUM_WORKERS = 4  # processes that load training images, for each training process; 0: none
_C.DATALOADER.ASPECT_RATIO_GROUPING = True  # no batch mixes wide and tall images: less padding
_C.DATALOADER.SAMPLER_TRAIN = "TrainingSampler"  # or "RepeatFactorTrainingSampler"
_C.DATALOADER.REPEAT_THRESHOLD = 0.0  # repeat factor: categories in a smaller share of images are repeated
_C.DATALOADER.REPEAT_SQRT = True  # repeat factor: root of threshold / frequency (LVIS), not the ratio itself
_C.DATALOADER.FILTER_EMPTY_ANNOTATIONS = True  # training skips images without a non-crowd object

# ------------------------------------------------------------------------------------------------------------
# SOLVER: optimizer and schedule
# ------------------------------------------------------------------------------------------------------------
_C.SOLVER = CfgNode()
_C.SOLVER.IMS_PER_BATCH = 16  # images in one step, over all processes
# If not 0: the number of processes for which batch size, learning rate and iterations below are meant; with
# another number they are scaled linearly (Goyal et al. 2017, section 2.1).
_C.SOLVER.REFERENCE_WORLD_SIZE = 0

_C.SOLVER.OPTIMIZER = "SGD"  # ours: "SGD" or "ADAMW"
_C.SOLVER.BASE_LR = 0.001
_C.SOLVER.MOMENTUM = 0.9  # SGD
_C.SOLVER.NESTEROV = False  # SGD
_C.SOLVER.ADAMW_BETAS = (0.9, 0.999)  # ours
_C.SOLVER.WEIGHT_DECAY = 0.0001
_C.SOLVER.WEIGHT_DECAY_NORM = 0.0  # for the parameters of normalisation layers
_C.SOLVER.BIAS_LR_FACTOR = 1.0  # biases learn at BASE_LR times this
_C.SOLVER.WEIGHT_DECAY_BIAS = None  # a number for all biases; None: as for other parameters

_C.SOLVER.LR_SCHEDULER_NAME = "WarmupMultiStepLR"  # or "WarmupCosineLR", "WarmupStepWithFixedGammaLR"
_C.SOLVER.MAX_ITER = 40000
_C.SOLVER.STEPS = (30000,)  # multi-step: iterations at which the rate is multiplied by GAMMA
_C.SOLVER.GAMMA = 0.1  # multi-step and fixed gamma
_C.SOLVER.NUM_DECAYS = 3  # fixed gamma: this many decays at equal distances
_C.SOLVER.BASE_LR_END = 0.0  # cosine: rate at the end
_C.SOLVER.WARMUP_METHOD = "linear"  # from WARMUP_FACTOR of the rate; "constant": at WARMUP_FACTOR of the rate
_C.SOLVER.WARMUP_FACTOR = 1.0 / 1000
_C.SOLVER.WARMUP_ITERS = 1000
_C.SOLVER.RESCALE_INTERVAL = False  # True: the schedule is squeezed into what the warm-up leaves

_C.SOLVER.CHECKPOINT_PERIOD = 5000  # iterations

# Clips the gradient of every parameter by itself: each element ("value"), or its norm ("norm").
_C.SOLVER.CLIP_GRADIENTS = CfgNode({"ENABLED": False})
_C.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = "value"
_C.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = 1.0  # the largest magnitude, or the largest norm
_C.SOLVER.CLIP_GRADIENTS.NORM_TYPE = 2.0  # "norm": the p of the norm; may be inf

_C.SOLVER.AMP = CfgNode({"ENABLED": False})  # mixed precision
_C.SOLVER.AMP.PRECISION = "float16"  # ours: of the fast operations on a GPU, or "bfloat16"; CPU: always that

# ------------------------------------------------------------------------------------------------------------
# TEST
# ------------------------------------------------------------------------------------------------------------
_C.TEST = CfgNode()
_C.TEST.EVAL_PERIOD = 0  # iterations; 0: evaluate after the last one only
_C.TEST.DETECTIONS_PER_IMAGE = 100  # the best this many are kept
# What the evaluation must give: [[task, metric, value, tolerance], ...], checked after training and with
# --eval-only.
_C.TEST.EXPECTED_RESULTS = []
_C.TEST.KEYPOINT_OKS_SIGMAS = []  # one for each keypoint; empty: the data set's own, COCO's for COCO's 17
_C.TEST.BOUNDARY_IOU = False  # ours: measure the IoU of boundaries too, in semantic evaluations
_C.TEST.PRECISION = "float32"  # ours: of convolutions and products in inference, or "bfloat16", "float16"
_C.TEST.SAVE_PANOPTIC = False  # ours: write the panoptic predictions of an evaluation, as COCO's JSON and PNG
_C.TEST.SHEET_IMAGES = 8  # ours: images on the sheet of truth beside prediction after training; 0: no sheet

# Test-time augmentation: every image at these sizes, also mirrored.
_C.TEST.AUG = CfgNode({"ENABLED": False})
_C.TEST.AUG.MIN_SIZES = (400, 500, 600, 700, 800, 900, 1000, 1100, 1200)
_C.TEST.AUG.MAX_SIZE = 4000
_C.TEST.AUG.FLIP = True

# Batch-norm statistics measured anew over this many batches before an evaluation.
_C.TEST.PRECISE_BN = CfgNode({"ENABLED": False})
_C.TEST.PRECISE_BN.NUM_ITER = 200

# ------------------------------------------------------------------------------------------------------------
# The run
# ------------------------------------------------------------------------------------------------------------
_C.OUTPUT_DIR = "./output"
_C.SEED = -1  # negative: a new one each time; else a run repeats itself bit for bit on the CPU
_C.LOG_PERIOD = 20  # ours: iterations between lines on the console and in metrics.json
_C.VIS_PERIOD = 0  # iterations between pictures in the event file; 0: none
_C.CUDNN_BENCHMARK = False  # measure convolution algorithms; worth it when image sizes hardly vary
_C.FLOAT32_PRECISION = ""  # of matrix products: "highest", "high", "medium"; "": as torch has it
_C.PROJECT = ""  # ours: the project whose code the run uses; set from the place of the config file
_C.GLOBAL = CfgNode({"HACK": 1.0})  # Detectron2's scratch value for experiments


def get_cfg() -> CfgNode:
    """A fresh copy of the default config."""
    return _C.clone()
