"""Random samples: sizes, membership, and that every member is as likely."""

import torch

from panomask.modeling.sampling import subsample_indices, subsample_labels, subsample_masks

LABELS = torch.tensor([5, 5, 5, 5, 5, 5, 0, 1, 2, 0, -1, -1])  # background 5: six, foreground: four


def test_sizes():
    cases = {  # (sample size, part of foreground) -> (foreground, background)
        (4, 0.5): (2, 2),
        (8, 0.25): (2, 6),
        (100, 0.5): (4, 6),
        (6, 1.0): (4, 2),
        (5, 0.0): (0, 5),
        (3, 0.5): (1, 2),
    }
    for (size, fraction), (num_fg, num_bg) in cases.items():
        fg, bg = subsample_labels(LABELS, size, fraction, bg_label=5)
        assert (len(fg), len(bg)) == (num_fg, num_bg)
        assert set(fg.tolist()) <= {6, 7, 8, 9}
        assert set(bg.tolist()) <= {0, 1, 2, 3, 4, 5}


def test_masks_and_indices_agree():
    torch.manual_seed(3)
    masks = subsample_masks(LABELS, 4, 0.5, bg_label=5)
    torch.manual_seed(3)
    indices = subsample_labels(LABELS, 4, 0.5, bg_label=5)
    for mask, idx in zip(masks, indices, strict=True):
        assert mask.nonzero()[:, 0].tolist() == idx.tolist()


def test_indices_in_one_tensor_are_the_same():
    for labels in (LABELS, LABELS[:6], LABELS[6:], LABELS[-2:], LABELS[:0]):
        torch.manual_seed(3)
        together = subsample_indices(labels, 4, 0.5, bg_label=5)
        torch.manual_seed(3)
        assert together.tolist() == torch.cat(subsample_labels(labels, 4, 0.5, bg_label=5)).tolist()


def test_every_member_is_as_likely():
    torch.manual_seed(0)
    counts = sum(sum(x.int() for x in subsample_masks(LABELS, 4, 0.5, bg_label=5)) for _ in range(600))
    assert counts[10:].tolist() == [0, 0]
    assert (counts[6:10] - 300).abs().max() < 75  # 2 of 4; standard deviation 12
    assert (counts[:6] - 200).abs().max() < 75  # 2 of 6


def test_empty():
    fg, bg = subsample_labels(torch.zeros(0, dtype=torch.int64), 4, 0.5, bg_label=5)
    assert len(fg) == len(bg) == 0
    fg, bg = subsample_labels(torch.full((3,), 5), 4, 0.5, bg_label=5)
    assert (len(fg), len(bg)) == (0, 3)
