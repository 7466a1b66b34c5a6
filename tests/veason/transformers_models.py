"""Small trackers of transformers with random weights, and their masks by transformers' own sessions and processor."""

from __future__ import annotations

import sys

import torch
import torch.nn.functional as F
from sam2_models import SIZES, THREE_MASKS

from veason.tracking.sam2.preprocessing import preprocess_frames
from veason.tracking.sam2.transformers_names import POSITIONS, to_sam2_names
from veason.tracking.transformers.loading import PIXELS

SIDE = 112  # pixels of the small SAM 3: 8 x 8 patches of 14
LETTERS = [
    *map(chr, range(97, 123)),
    *(f"{chr(each)}</w>" for each in range(97, 123)),
    "<|startoftext|>",
    "<|endoftext|>",
]
WIDTH = 128  # twice the channels of a memory, as transformers needs it


def randomize(model, seed=0):
    """Weights on which masks depend on prompts and memories; objects are there on some frames."""
    randomize_parameters(model, seed)
    model.mask_decoder.pred_obj_score_head.proj_out.weight.data.mul_(4)
    model.shared_image_embedding.positional_embedding.copy_(model.prompt_encoder.shared_embedding.positional_embedding)
    return model.eval().requires_grad_(False)


def randomize_parameters(model, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for name, value in model.named_parameters():
        fan_in = value[0].numel() if value.ndim > 1 else 1
        if "norm" in name and name.endswith("weight"):
            value.data.fill_(1.0)
        elif value.ndim > 1:
            value.data.normal_(0, fan_in**-0.5, generator=generator)
        else:
            value.data.normal_(0, 0.2, generator=generator)


def sam2_video(sam2, size=128, several=False):
    """`Sam2VideoModel` with the sizes of `SIZES[size]` and the weights of `sam2`, the sam2 package's model."""
    from transformers import Sam2VideoConfig, Sam2VideoModel
    from transformers.models.sam2_video.configuration_sam2_video import Sam2VideoMaskDecoderConfig

    sizes = SIZES[size]
    third, blocks = sizes.trunk_blocks[0] + sizes.trunk_blocks[1], sizes.trunk_blocks
    backbone = {
        "hidden_size": sizes.trunk_size,
        "image_size": [size, size],
        "blocks_per_stage": list(blocks),
        "embed_dim_per_stage": [sizes.trunk_size * 2**stage for stage in range(4)],
        "num_attention_heads_per_stage": [1, 2, 4, 8],
        "global_attention_blocks": list(range(third + 1, third + blocks[2])),
        "window_size_per_stage": [8, 4, 8, 4],
        "model_type": "sam2_hiera_det_model",
    }
    vision = {
        "backbone_config": backbone,
        "backbone_channel_list": [sizes.trunk_size * 2**stage for stage in (3, 2, 1, 0)],
        "backbone_feature_sizes": [[size // 4] * 2, [size // 8] * 2, [size // 16] * 2],
        "fpn_hidden_size": sizes.hidden_size,
        "model_type": "sam2_vision_model",
    }
    config = Sam2VideoConfig(
        vision_config=vision,
        prompt_encoder_config={"hidden_size": sizes.hidden_size, "image_size": size},
        mask_decoder_config=Sam2VideoMaskDecoderConfig(hidden_size=sizes.hidden_size),
        image_size=size,
        num_maskmem=sizes.memory_frames,
        max_object_pointers_in_encoder=sizes.object_pointers,
        **{key: value for key, value in THREE_MASKS.items() if several and key != "use_multimask_token_for_obj_ptr"},
        **({} if several else {"multimask_output_in_sam": False}),
        **memory_sizes(sizes.hidden_size, size // 16, sizes.memory_layers),
    )
    model = Sam2VideoModel(config)
    load_sam2_weights(model, sam2)
    return model.eval().requires_grad_(False)


def load_sam2_weights(model, sam2):
    """The conversion that is under test, the other way round."""
    state = model.state_dict()
    tags = {key: torch.tensor([float(number)]) for number, key in enumerate(state)}
    points = "prompt_encoder.point_embed.weight"
    tags[points], tags["shared_image_embedding.positional_embedding"] = torch.zeros(0, 1), tags[POSITIONS]
    names, theirs = list(state), sam2.state_dict()
    for ours, tag in to_sam2_names(tags).items():
        state[names[int(tag)]] = theirs[ours]
    state["shared_image_embedding.positional_embedding"] = state[POSITIONS]
    state[points] = torch.cat([theirs[f"sam_prompt_encoder.point_embeddings.{n}.weight"] for n in range(4)])
    model.load_state_dict(state)


def memory_sizes(width, side, layers):
    return {
        "memory_attention_hidden_size": width,
        "memory_attention_feed_forward_hidden_size": 4 * width,
        "memory_attention_num_layers": layers,
        "memory_attention_rope_feat_sizes": [side, side],
        "memory_encoder_hidden_size": width,
        "mask_downsampler_embed_dim": width,
        "memory_fuser_embed_dim": width,
        "memory_fuser_intermediate_dim": 4 * width,
    }


def sam3_tracker_config():
    from transformers import Sam3TrackerVideoConfig

    return Sam3TrackerVideoConfig(
        vision_config=sam3_vision(),
        image_size=SIDE,
        prompt_encoder_config={"hidden_size": WIDTH},
        mask_decoder_config={"hidden_size": WIDTH},
        num_maskmem=5,
        max_cond_frame_num=2,
        **memory_sizes(WIDTH, SIDE // 14, 2),
    )


def sam3_vision():
    backbone = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "window_size": 4,
        "global_attn_indexes": [1],
        "pretrain_image_size": SIDE // 2,
        "image_size": SIDE,
    }
    return {"backbone_config": backbone, "fpn_hidden_size": WIDTH}


def sam3_tracker(seed=0):
    from transformers import Sam3TrackerVideoModel

    return randomize(Sam3TrackerVideoModel(sam3_tracker_config()), seed)


def sam3_tokenizer():
    """CLIP's tokenizer with letters for tokens."""
    from transformers import CLIPTokenizer

    return CLIPTokenizer(vocab={token: number for number, token in enumerate(LETTERS)}, merges=[])


def sam3_text(seed=0, **thresholds):
    """`sam3_video` with a detector whose scores, about 0.3, depend on the frame and on the text."""
    model = sam3_video(seed)
    randomize_parameters(model.detector_model, seed)
    chosen = {"score_threshold_detection": 0.27, "new_det_thresh": 0.3, "high_conf_thresh": 0.3, "high_iou_thresh": 0.5}
    for name, value in (chosen | thresholds).items():
        setattr(model, name, value)
        setattr(model.config, name, value)  # for a checkpoint
    return model


def sam3_video(seed=0):
    """The whole of SAM 3: a detector of what a text names, and the tracker on the detector's image encoder."""
    from transformers import Sam3VideoConfig, Sam3VideoModel

    width = {"hidden_size": WIDTH, "num_attention_heads": 4}
    layers = {**width, "num_layers": 1, "intermediate_size": 64}
    detector = {
        "model_type": "sam3",
        "vision_config": sam3_vision(),
        "text_config": {
            "model_type": "clip_text_model",
            "vocab_size": 100,
            "hidden_size": 32,
            "intermediate_size": 64,
            "projection_dim": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "max_position_embeddings": 32,
            "bos_token_id": len(LETTERS) - 2,
            "eos_token_id": len(LETTERS) - 1,
        },
        "geometry_encoder_config": layers,
        "detr_encoder_config": layers,
        "detr_decoder_config": {**layers, "num_queries": 6},
        "mask_decoder_config": width,
    }
    config = Sam3VideoConfig(
        detector_config=detector, tracker_config=sam3_tracker_config().to_dict(), low_res_mask_size=4 * SIDE // 14
    )
    config.image_size = SIDE
    torch.manual_seed(seed)
    model = Sam3VideoModel(config)
    model.tracker_model.load_state_dict(sam3_tracker(seed).state_dict(), strict=False)
    return model.eval().requires_grad_(False)


def edgetam(seed=0):
    """EdgeTAM's memory with SAM 2's small image encoder; its own is one of timm's."""
    from transformers import EdgeTamVideoConfig, EdgeTamVideoModel

    vision = sam2_vision_of_edgetam()
    sizes = memory_sizes(WIDTH, 8, 2)
    sizes["memory_attention_mlp_hidden_size"] = sizes.pop("memory_attention_feed_forward_hidden_size")
    config = EdgeTamVideoConfig(
        vision_config=vision,
        image_size=128,
        prompt_encoder_config={"hidden_size": WIDTH, "image_size": 128},
        mask_decoder_config={"hidden_size": WIDTH},
        memory_attention_rope_k_sizes=[4, 4],
        perceiver_resampler_num_latents=16,
        perceiver_resampler_num_latents_2d=16,
        **sizes,
    )
    return randomize(EdgeTamVideoModel(config), seed)


def sam2_vision_of_edgetam():
    backbone = {
        "hidden_size": 16,
        "image_size": [128, 128],
        "blocks_per_stage": [1, 1, 2, 1],
        "embed_dim_per_stage": [16, 32, 64, 128],
        "num_attention_heads_per_stage": [1, 2, 4, 8],
        "global_attention_blocks": [3],
        "window_size_per_stage": [8, 4, 8, 4],
        "model_type": "sam2_hiera_det_model",
    }
    return {
        "backbone_config": backbone,
        "backbone_channel_list": [128, 64, 32, 16],
        "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
        "fpn_hidden_size": WIDTH,
        "model_type": "sam2_vision_model",
    }


def own_sessions(model, frames, objects):
    """Mask logits [T, K, H, W] as transformers' documentation computes them: a session of the clip for each object."""
    height, width = frames[0].shape[:2]
    size = model.image_size if isinstance(model.image_size, int) else model.image_size[0]
    kind = type(model).__name__.removesuffix("Model") + "InferenceSession"
    pixels = preprocess_frames(frames, size, torch.device("cpu"), PIXELS[type(model).__name__])
    logits = torch.zeros(len(frames), len(objects), height, width)
    for number, item in enumerate(objects):
        session = getattr(sys.modules[type(model).__module__], kind)(
            video=pixels, video_height=height, video_width=width, dtype=torch.float32
        )
        index, factors = session.obj_id_to_idx(1), torch.tensor([size / width, size / height])
        for given in sorted(item, key=lambda each: each.frame):
            points, labels = map(torch.from_numpy, given.corners_and_points)
            inputs = {"point_coords": (points * factors).float()[None, None], "point_labels": labels.int()[None, None]}
            session.add_point_inputs(index, given.frame, inputs)
            session.obj_with_new_inputs = [1]
            model(session, frame_idx=given.frame)
        first = min(given.frame for given in item)
        for reverse in (False, True):
            for found in model.propagate_in_video_iterator(session, start_frame_idx=first, reverse=reverse):
                masks = F.interpolate(found.pred_masks, (height, width), mode="bilinear", align_corners=False)
                logits[found.frame_idx, number] = masks[0, 0]
    return logits
