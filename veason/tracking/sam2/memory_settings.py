"""SAM 2's memory, as arguments of sam2's modules for hydra's `instantiate`; what all its sizes share is fixed here."""

from __future__ import annotations

from typing import Any

# of `SAM2Base`: on in every SAM 2.1 and 3
SWITCHES = dict.fromkeys(
    (
        "use_mask_input_as_output_without_sam",
        "directly_add_no_mem_embed",
        "use_high_res_features_in_sam",
        "iou_prediction_use_sigmoid",
        "use_obj_ptrs_in_encoder",
        "add_tpos_enc_to_obj_ptrs",
        "proj_tpos_enc_in_obj_ptrs",
        "use_signed_tpos_enc_to_obj_ptrs",
        "only_obj_ptrs_in_the_past_for_eval",
        "pred_obj_scores",
        "pred_obj_scores_mlp",
        "fixed_no_obj_ptr",
        "use_mlp_for_obj_ptr_proj",
    ),
    True,
)


def sine_positions(channels: int) -> dict[str, Any]:
    """Positions of a feature map."""
    return {
        "_target_": "sam2.modeling.position_encoding.PositionEmbeddingSine",
        "num_pos_feats": channels,
        "normalize": True,
        "scale": None,
        "temperature": 10000,
    }


def memory_attention(
    width: int,
    memory: int,
    side: int,
    layers: int,
    feed_forward: int,
    heads: int = 1,
    downsample: int = 1,
    rope_theta: float = 10000.0,
) -> dict[str, Any]:
    """Attention of a frame to itself and to the memory.

    Args:
        width, memory: channels of the frame's features and of the memory's.
        side: of the feature map, in cells.
        downsample: factor by which an attention layer is narrower than `width`.
    """

    def attention(**extra: Any) -> dict[str, Any]:
        return {
            "_target_": "sam2.modeling.sam.transformer.RoPEAttention",
            "rope_theta": rope_theta,
            "feat_sizes": [side, side],
            "embedding_dim": width,
            "num_heads": heads,
            "downsample_rate": downsample,
            "dropout": 0.0,
            **extra,
        }

    layer = {
        "_target_": "sam2.modeling.memory_attention.MemoryAttentionLayer",
        "activation": "relu",
        "dim_feedforward": feed_forward,
        "dropout": 0.0,
        "d_model": width,
        "pos_enc_at_attn": False,
        "pos_enc_at_cross_attn_keys": True,
        "pos_enc_at_cross_attn_queries": False,
        "self_attention": attention(),
        "cross_attention": attention(rope_k_repeat=True, kv_in_dim=memory),
    }
    return {
        "_target_": "sam2.modeling.memory_attention.MemoryAttention",
        "d_model": width,
        "pos_enc_at_input": True,
        "layer": layer,
        "num_layers": layers,
    }


def memory_encoder(
    width: int, memory: int, downsampler: dict[str, Any], fuser: dict[str, Any], fuser_layers: int
) -> dict[str, Any]:
    """The encoder of a frame's features and masks.

    Args:
        width, memory: channels of the frame's features and of the memory's.
        downsampler, fuser: arguments of the masks' convolutions, and of a block of the fuser.
    """
    block = {"_target_": "sam2.modeling.memory_encoder.CXBlock", **fuser, "use_dwconv": True}
    return {
        "_target_": "sam2.modeling.memory_encoder.MemoryEncoder",
        "in_dim": width,
        "out_dim": memory,
        "position_encoding": sine_positions(memory),
        "mask_downsampler": {"_target_": "sam2.modeling.memory_encoder.MaskDownSampler", **downsampler},
        "fuser": {"_target_": "sam2.modeling.memory_encoder.Fuser", "layer": block, "num_layers": fuser_layers},
    }
