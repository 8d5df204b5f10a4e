"""Give the weights of a file the names of a model, by the endings of names.

A backbone trained by itself says `res2.0.conv1.weight`; in a detector that is
`backbone.bottom_up.res2.0.conv1.weight`.
"""

from collections.abc import Collection, Mapping

import torch

from panomask.checkpoint.caffe2_names import convert_c2_detectron_names
from panomask.errors import InputError


def match_by_suffix(model_keys: Collection[str], keys: Collection[str]) -> dict[str, str]:
    """Which key of a file belongs to which of the model: the longest that ends it at a dot.

    Keys that say too little end no other: `weight`, `0.weight`.

    Returns:
        {key of the file: key of the model}, for those that have one.

    Raises:
        InputError: a key of the file is the longest ending of two keys of the model.
    """
    telling = {key for key in keys if "." in key and not key[0].isdigit()}
    found: dict[str, str] = {}
    for own in sorted(model_keys):
        parts = own.split(".")
        endings = (".".join(parts[i:]) for i in range(len(parts)))
        key = next((end for end in endings if end in telling or (end == own and end in keys)), None)
        if key is None:
            continue
        if key in found:
            raise InputError(
                f"weight {key!r} belongs to two weights of the model, {found[key]!r} and {own!r}; "
                "name it as one of them (tools/convert_weights.py writes a file that you can edit)"
            )
        found[key] = own
    return found


def align_and_update_state_dicts(
    model_state_dict: Mapping[str, torch.Tensor],
    ckpt_state_dict: Mapping[str, torch.Tensor],
    c2_conversion: bool = True,
) -> dict[str, torch.Tensor]:
    """The weights of a file under the model's names.

    Args:
        model_state_dict: of the model to be filled.
        ckpt_state_dict: names may lack what stands in front in the model.
        c2_conversion: first translate names of Caffe2.

    Returns:
        What fits by the model's names; what does not, in name or shape, by the file's.

    Raises:
        InputError: see `match_by_suffix`.
    """
    state = dict(ckpt_state_dict)
    if c2_conversion:
        state, _ = convert_c2_detectron_names(state)
    names = match_by_suffix(model_state_dict, state)
    fitting = {key for key, own in names.items() if state[key].shape == model_state_dict[own].shape}
    aligned = {names[key]: state[key] for key in state if key in fitting}
    return aligned | {key: value for key, value in state.items() if key not in fitting}
