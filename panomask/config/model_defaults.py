"""The keys below MODEL with their defaults; see `defaults.py`.

Feature names: "stem", "res2" ... "res5" (ResNet, timm), "s1" ... "s4" (RegNet), "p2" ... "p7" (feature
pyramid). NORM is "" (none), "BN", "SyncBN", "FrozenBN", "GN" and others of `panomask.layers.get_norm`.
"""

from panomask.config.node import CfgNode

MODEL = CfgNode()
MODEL.META_ARCHITECTURE = "GeneralizedRCNN"
MODEL.DEVICE = "cuda"  # without a GPU the CPU serves, which is said once
MODEL.CHANNELS_LAST = True  # ours: convolutions in memory format (N, H, W, C), as CPU and GPU prefer it
MODEL.COMPILE = False  # ours: torch.compile for backbone and heads; needs a C++ compiler on the CPU
MODEL.WEIGHTS = ""  # checkpoint to start from; "": random weights
MODEL.MASK_ON = False
MODEL.KEYPOINT_ON = False
MODEL.LOAD_PROPOSALS = False  # proposals come with the data set
# In the order of INPUT.FORMAT, on the scale 0-255. A deviation of 1 suits weights converted from Caffe;
# weights trained by torchvision want [57.375, 57.120, 58.395].
MODEL.PIXEL_MEAN = [103.530, 116.280, 123.675]
MODEL.PIXEL_STD = [1.0, 1.0, 1.0]

# ------------------------------------------------------------------------------------------------------------
# Backbones
# ------------------------------------------------------------------------------------------------------------
MODEL.BACKBONE = CfgNode()
# "build_resnet_backbone", "build_resnet_fpn_backbone", the same of "regnet", or "timm/<model>[.<tag>]": a
# model of the package timm, below MODEL.FPN unless FPN.IN_FEATURES is [], with the weights of the tag.
MODEL.BACKBONE.NAME = "build_resnet_backbone"
MODEL.BACKBONE.FREEZE_AT = 2  # stages that do not learn: 0 none, 1 the stem, 2 also res2, ...

MODEL.RESNETS = CfgNode()
MODEL.RESNETS.DEPTH = 50
MODEL.RESNETS.OUT_FEATURES = ["res4"]
MODEL.RESNETS.NORM = "FrozenBN"
MODEL.RESNETS.NUM_GROUPS = 1  # ResNeXt: groups in the 3 x 3 convolutions
MODEL.RESNETS.WIDTH_PER_GROUP = 64  # channels of each group in res2, doubled from stage to stage
MODEL.RESNETS.STRIDE_IN_1X1 = True  # stride in a block's first 1 x 1 (Caffe), not its 3 x 3 (torchvision)
MODEL.RESNETS.RES5_DILATION = 1  # 2: res5 keeps the resolution of res4
MODEL.RESNETS.STEM_OUT_CHANNELS = 64
MODEL.RESNETS.RES2_OUT_CHANNELS = 256  # doubled from stage to stage
MODEL.RESNETS.DEFORM_ON_PER_STAGE = [False, False, False, False]  # deformable 3 x 3 in res2, res3, res4, res5
MODEL.RESNETS.DEFORM_MODULATED = False  # with a learned weight for each sampling point (version 2)
MODEL.RESNETS.DEFORM_NUM_GROUPS = 1

# RegNetX and RegNetY (arXiv:2003.13678): block j is as wide as W_0 + W_A * j, rounded to a power of W_M times
# W_0. The defaults are RegNetX-4.0GF. Features are "stem", "s1" ... "s4".
MODEL.REGNET = CfgNode()
MODEL.REGNET.STEM = "SimpleStem"  # 3 x 3 of stride 2; or "ResStem"
MODEL.REGNET.STEM_WIDTH = 32
MODEL.REGNET.BLOCK = "ResBottleneckBlock"  # or "ResBasicBlock", "VanillaBlock"
MODEL.REGNET.DEPTH = 23  # blocks
MODEL.REGNET.W_A = 38.65
MODEL.REGNET.W_0 = 96
MODEL.REGNET.W_M = 2.43
MODEL.REGNET.GROUP_WIDTH = 40  # channels of a group in the 3 x 3 convolutions
MODEL.REGNET.BOTTLENECK_RATIO = 1.0  # width of the 3 x 3 convolution over that of the block
MODEL.REGNET.SE_RATIO = 0.0  # squeeze-and-excitation: its width over that of the block's input; 0: none
MODEL.REGNET.NORM = "FrozenBN"
MODEL.REGNET.OUT_FEATURES = ["s4"]

MODEL.FPN = CfgNode()
MODEL.FPN.IN_FEATURES = []
MODEL.FPN.OUT_CHANNELS = 256
MODEL.FPN.NORM = ""
MODEL.FPN.FUSE_TYPE = "sum"  # of lateral and top-down maps: "sum" or "avg"

# ------------------------------------------------------------------------------------------------------------
# Anchors and proposals
# ------------------------------------------------------------------------------------------------------------
MODEL.ANCHOR_GENERATOR = CfgNode()
MODEL.ANCHOR_GENERATOR.NAME = "DefaultAnchorGenerator"
# One list for each feature map, or one for all of them. Sizes are square roots of areas, in input pixels;
# ratios are height / width.
MODEL.ANCHOR_GENERATOR.SIZES = [[32, 64, 128, 256, 512]]
MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS = [[0.5, 1.0, 2.0]]
MODEL.ANCHOR_GENERATOR.ANGLES = [[-90, 0, 90]]  # rotated anchors: degrees, counter-clockwise
MODEL.ANCHOR_GENERATOR.OFFSET = 0.0  # first anchor's centre from the image corner, in strides, in [0, 1)

MODEL.PROPOSAL_GENERATOR = CfgNode()
MODEL.PROPOSAL_GENERATOR.NAME = "RPN"
MODEL.PROPOSAL_GENERATOR.MIN_SIZE = 0  # proposals with a side not above this many input pixels are dropped

MODEL.RPN = CfgNode()
MODEL.RPN.HEAD_NAME = "StandardRPNHead"
MODEL.RPN.IN_FEATURES = ["res4"]
MODEL.RPN.CONV_DIMS = [-1]  # channels of the 3 x 3 convolutions before the predictions; -1: as the input
MODEL.RPN.BOUNDARY_THRESH = -1  # pixels an anchor may stick out of the image; -1: any
# An anchor whose best overlap with a true box is below the first threshold is labelled by the first label,
# between both by the second, above by the third: 0 background, -1 ignored, 1 object.
MODEL.RPN.IOU_THRESHOLDS = [0.3, 0.7]
MODEL.RPN.IOU_LABELS = [0, -1, 1]
MODEL.RPN.BATCH_SIZE_PER_IMAGE = 256  # anchors in the loss
MODEL.RPN.POSITIVE_FRACTION = 0.5  # of them objects, at most
MODEL.RPN.BBOX_REG_LOSS_TYPE = "smooth_l1"  # or "iou", "giou", "diou", "ciou"
MODEL.RPN.BBOX_REG_WEIGHTS = (1.0, 1.0, 1.0, 1.0)  # of dx, dy, dw, dh in the box coding
MODEL.RPN.SMOOTH_L1_BETA = 0.0  # 0: the L1 loss
MODEL.RPN.BBOX_REG_LOSS_WEIGHT = 1.0
MODEL.RPN.LOSS_WEIGHT = 1.0  # of both losses, on top of the weight above
# The best before suppression are taken from each feature map, the best after it from all together.
MODEL.RPN.PRE_NMS_TOPK_TRAIN = 12000
MODEL.RPN.PRE_NMS_TOPK_TEST = 6000
MODEL.RPN.POST_NMS_TOPK_TRAIN = 2000
MODEL.RPN.POST_NMS_TOPK_TEST = 1000
MODEL.RPN.NMS_THRESH = 0.7

# ------------------------------------------------------------------------------------------------------------
# RoI heads
# ------------------------------------------------------------------------------------------------------------
MODEL.ROI_HEADS = CfgNode()
MODEL.ROI_HEADS.NAME = "Res5ROIHeads"
MODEL.ROI_HEADS.NUM_CLASSES = 80  # without background
MODEL.ROI_HEADS.IN_FEATURES = ["res4"]
MODEL.ROI_HEADS.IOU_THRESHOLDS = [0.5]  # labels proposals as MODEL.RPN.IOU_THRESHOLDS labels anchors
MODEL.ROI_HEADS.IOU_LABELS = [0, 1]
MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 512  # proposals in the loss
MODEL.ROI_HEADS.POSITIVE_FRACTION = 0.25  # of them objects, at most
MODEL.ROI_HEADS.PROPOSAL_APPEND_GT = True  # in training the true boxes are proposals too
MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.05
MODEL.ROI_HEADS.NMS_THRESH_TEST = 0.5

MODEL.ROI_BOX_HEAD = CfgNode()
MODEL.ROI_BOX_HEAD.NAME = ""  # "FastRCNNConvFCHead"
MODEL.ROI_BOX_HEAD.POOLER_TYPE = "ROIAlignV2"
MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION = 14
MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO = 0  # samples along each side of a bin; 0: as the box's size demands
MODEL.ROI_BOX_HEAD.NUM_CONV = 0
MODEL.ROI_BOX_HEAD.CONV_DIM = 256
MODEL.ROI_BOX_HEAD.NUM_FC = 0
MODEL.ROI_BOX_HEAD.FC_DIM = 1024
MODEL.ROI_BOX_HEAD.NORM = ""
MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG = False  # one box for all classes
MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES = False  # mask and keypoint heads learn from the boxes predicted here
MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE = "smooth_l1"  # or "iou", "giou", "diou", "ciou"
MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_WEIGHT = 1.0
MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA = 0.0
MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE = False  # each class its own binary cross entropy
MODEL.ROI_BOX_HEAD.USE_FED_LOSS = False  # federated loss (Zhou et al. 2021, LVIS): some classes take part
MODEL.ROI_BOX_HEAD.FED_LOSS_NUM_CLASSES = 50
MODEL.ROI_BOX_HEAD.FED_LOSS_FREQ_WEIGHT_POWER = 0.5

MODEL.ROI_BOX_CASCADE_HEAD = CfgNode()  # one entry for each stage
MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS = (
    (10.0, 10.0, 5.0, 5.0),
    (20.0, 20.0, 10.0, 10.0),
    (30.0, 30.0, 15.0, 15.0),
)
MODEL.ROI_BOX_CASCADE_HEAD.IOUS = (0.5, 0.6, 0.7)

MODEL.ROI_MASK_HEAD = CfgNode()
MODEL.ROI_MASK_HEAD.NAME = "MaskRCNNConvUpsampleHead"
MODEL.ROI_MASK_HEAD.POOLER_TYPE = "ROIAlignV2"
MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION = 14
MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO = 0
MODEL.ROI_MASK_HEAD.NUM_CONV = 0  # before the up-sampling
MODEL.ROI_MASK_HEAD.CONV_DIM = 256
MODEL.ROI_MASK_HEAD.NORM = ""
MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK = False  # one mask for all classes

MODEL.ROI_KEYPOINT_HEAD = CfgNode()
MODEL.ROI_KEYPOINT_HEAD.NAME = "KRCNNConvDeconvUpsampleHead"
MODEL.ROI_KEYPOINT_HEAD.POOLER_TYPE = "ROIAlignV2"
MODEL.ROI_KEYPOINT_HEAD.POOLER_RESOLUTION = 14
MODEL.ROI_KEYPOINT_HEAD.POOLER_SAMPLING_RATIO = 0
MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS = (512,) * 8
MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS = 17
MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE = 1  # training skips images with fewer annotated ones
# The loss is divided by the number of visible keypoints; if not, by the number there would be if all were
# visible.
MODEL.ROI_KEYPOINT_HEAD.NORMALIZE_LOSS_BY_VISIBLE_KEYPOINTS = True
MODEL.ROI_KEYPOINT_HEAD.LOSS_WEIGHT = 1.0

# ------------------------------------------------------------------------------------------------------------
# Semantic and panoptic segmentation
# ------------------------------------------------------------------------------------------------------------
MODEL.SEM_SEG_HEAD = CfgNode()
MODEL.SEM_SEG_HEAD.NAME = "SemSegFPNHead"
MODEL.SEM_SEG_HEAD.IN_FEATURES = ["p2", "p3", "p4", "p5"]
MODEL.SEM_SEG_HEAD.IGNORE_VALUE = 255  # pixels of this label are in no loss
MODEL.SEM_SEG_HEAD.NUM_CLASSES = 54
MODEL.SEM_SEG_HEAD.CONVS_DIM = 128
MODEL.SEM_SEG_HEAD.COMMON_STRIDE = 4  # of the map that all inputs are brought to
MODEL.SEM_SEG_HEAD.NORM = "GN"
MODEL.SEM_SEG_HEAD.LOSS_WEIGHT = 1.0

MODEL.PANOPTIC_FPN = CfgNode()
MODEL.PANOPTIC_FPN.INSTANCE_LOSS_WEIGHT = 1.0
MODEL.PANOPTIC_FPN.COMBINE = CfgNode({"ENABLED": True})  # instances and semantic map become one panoptic map
MODEL.PANOPTIC_FPN.COMBINE.OVERLAP_THRESH = 0.5  # an instance covered more by better ones is dropped
MODEL.PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT = 4096  # smaller stuff is dropped; pixels
MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH = 0.5

# ------------------------------------------------------------------------------------------------------------
# Dense detectors
# ------------------------------------------------------------------------------------------------------------
MODEL.RETINANET = CfgNode()
MODEL.RETINANET.NUM_CLASSES = 80
MODEL.RETINANET.IN_FEATURES = ["p3", "p4", "p5", "p6", "p7"]
MODEL.RETINANET.NUM_CONVS = 4  # in each of both branches
MODEL.RETINANET.NORM = ""
MODEL.RETINANET.PRIOR_PROB = 0.01  # foreground score of an untrained model
MODEL.RETINANET.IOU_THRESHOLDS = [0.4, 0.5]  # as for MODEL.RPN
MODEL.RETINANET.IOU_LABELS = [0, -1, 1]
MODEL.RETINANET.BBOX_REG_WEIGHTS = (1.0, 1.0, 1.0, 1.0)
MODEL.RETINANET.BBOX_REG_LOSS_TYPE = "smooth_l1"  # or "iou", "giou", "diou", "ciou"
MODEL.RETINANET.SMOOTH_L1_LOSS_BETA = 0.1
MODEL.RETINANET.FOCAL_LOSS_GAMMA = 2.0
MODEL.RETINANET.FOCAL_LOSS_ALPHA = 0.25
MODEL.RETINANET.SCORE_THRESH_TEST = 0.05
MODEL.RETINANET.TOPK_CANDIDATES_TEST = 1000  # of each feature map, before suppression
MODEL.RETINANET.NMS_THRESH_TEST = 0.5

# Ours, by the names that AdelaiDet gave them where it has them. The defaults are Detectron2's FCOS.
MODEL.FCOS = CfgNode()
MODEL.FCOS.NUM_CLASSES = 80
MODEL.FCOS.IN_FEATURES = ["p3", "p4", "p5", "p6", "p7"]
MODEL.FCOS.TOP_LEVELS = 2  # of IN_FEATURES above what MODEL.FPN.IN_FEATURES gives: p6 and p7; 0, 1 or 2
MODEL.FCOS.NUM_CLS_CONVS = 4
MODEL.FCOS.NUM_BOX_CONVS = 4
MODEL.FCOS.NORM = "GN"
MODEL.FCOS.PRIOR_PROB = 0.01  # score of every class of an untrained model
MODEL.FCOS.CENTERNESS_ON_REG = True  # centre-ness from the tower for boxes, not from that for classes
MODEL.FCOS.USE_SCALE = False  # a learnable factor of the distances for each feature map
MODEL.FCOS.NORM_REG_TARGETS = True  # distances are learnt in strides, not as logarithms of pixels
# A point learns an object if the largest of its distances to the four sides, in pixels, lies between the
# bounds of its feature map: up to the first for the finest, from the first to the second for the next, ...
MODEL.FCOS.SIZES_OF_INTEREST = [64, 128, 256, 512]
MODEL.FCOS.CENTER_SAMPLE = True  # points that learn an object lie near its centre, not only inside
MODEL.FCOS.POS_RADIUS = 1.5  # how near, along x and y; strides
MODEL.FCOS.LOSS_ALPHA = 0.25  # of the focal loss
MODEL.FCOS.LOSS_GAMMA = 2.0
MODEL.FCOS.LOC_LOSS_TYPE = "giou"  # or "iou", "diou", "ciou"
MODEL.FCOS.INFERENCE_TH_TEST = 0.2  # of the root of class score times centre-ness
MODEL.FCOS.PRE_NMS_TOPK_TEST = 1000  # of each feature map, before suppression
MODEL.FCOS.NMS_TH = 0.6
