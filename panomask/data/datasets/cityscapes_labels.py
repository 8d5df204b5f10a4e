"""The 35 labels of Cityscapes, as its authors number them (Cordts et al., CVPR 2016; cityscapesscripts)."""

from typing import NamedTuple


class CityscapesLabel(NamedTuple):
    """One label.

    Attributes:
        id: in `*_labelIds.png`, and times 1000 plus a number in `*_instanceIds.png`.
        train_id: 0..18 for the classes of the benchmark, 255 for what is not scored.
        has_instances: whether objects are told apart.
        is_ignored: whether the benchmark takes its pixels for void.
        color: RGB 0-255.
    """

    name: str
    id: int
    train_id: int
    has_instances: bool
    is_ignored: bool
    color: tuple[int, int, int]


_TABLE = """
unlabeled             0  255  -  void     0   0   0
ego vehicle           1  255  -  void     0   0   0
rectification border  2  255  -  void     0   0   0
out of roi            3  255  -  void     0   0   0
static                4  255  -  void     0   0   0
dynamic               5  255  -  void   111  74   0
ground                6  255  -  void    81   0  81
road                  7    0  -  eval   128  64 128
sidewalk              8    1  -  eval   244  35 232
parking               9  255  -  void   250 170 160
rail track           10  255  -  void   230 150 140
building             11    2  -  eval    70  70  70
wall                 12    3  -  eval   102 102 156
fence                13    4  -  eval   190 153 153
guard rail           14  255  -  void   180 165 180
bridge               15  255  -  void   150 100 100
tunnel               16  255  -  void   150 120  90
pole                 17    5  -  eval   153 153 153
polegroup            18  255  -  void   153 153 153
traffic light        19    6  -  eval   250 170  30
traffic sign         20    7  -  eval   220 220   0
vegetation           21    8  -  eval   107 142  35
terrain              22    9  -  eval   152 251 152
sky                  23   10  -  eval    70 130 180
person               24   11  +  eval   220  20  60
rider                25   12  +  eval   255   0   0
car                  26   13  +  eval     0   0 142
truck                27   14  +  eval     0   0  70
bus                  28   15  +  eval     0  60 100
caravan              29  255  +  void     0   0  90
trailer              30  255  +  void     0   0 110
train                31   16  +  eval     0  80 100
motorcycle           32   17  +  eval     0   0 230
bicycle              33   18  +  eval   119  11  32
license plate        -1   -1  -  void     0   0 142
"""
"""name, id, train id, has instances, scored or void, RGB colour"""


def _parse(line: str) -> CityscapesLabel:
    name, id_, train_id, instances, void, *color = line.rsplit(maxsplit=7)
    red, green, blue = (int(value) for value in color)
    return CityscapesLabel(
        name, int(id_), int(train_id), instances == "+", void == "void", (red, green, blue)
    )


CITYSCAPES_LABELS = tuple(_parse(line) for line in _TABLE.strip().splitlines())

SCORED_LABELS = tuple(label for label in CITYSCAPES_LABELS if not label.is_ignored)
"""The 19 classes of the benchmark, in the order of their train ids."""

INSTANCE_LABELS = tuple(label for label in SCORED_LABELS if label.has_instances)
"""The 8 classes whose objects are scored; their order is that of the contiguous class numbers."""
