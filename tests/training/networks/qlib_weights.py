"""Weights of Qlib's Transformer under the names of ours."""

from torch import Tensor, nn

NAMES = {
    "self_attn.in_proj_": "attention.qkv.",
    "self_attn.out_proj.": "attention.out.",
    "linear1.": "feedforward.widen.",
    "linear2.": "feedforward.narrow.",
}


def from_qlib(network: nn.Module) -> dict[str, Tensor]:
    """The state of a `qlib.contrib.model.pytorch_transformer_ts.Transformer` for a `Transformer`."""
    state = {}
    for name, value in network.state_dict().items():
        if name.startswith(("pos_encoder.", "encoder_layer.")):  # a constant, and a layer that is copied but never run
            continue
        ours = name.replace("transformer_encoder.layers.", "layers.").replace("feature_layer.", "embedding.project.")
        ours = ours.replace("decoder_layer.", "head.")
        for theirs, replacement in NAMES.items():
            ours = ours.replace(theirs, replacement)
        state[ours] = value
    return state
