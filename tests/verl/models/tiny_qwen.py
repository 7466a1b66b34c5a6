"""A tiny random Qwen2.5-VL and random groups for it."""

from __future__ import annotations

import torch
from transformers import Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLConfig

from verl.models.families import load_family
from verl.models.packing import TokenizedGroup

IMAGE, VIDEO, START, END = 250, 251, 252, 253
PATCH_DIM = 3 * 2 * 4 * 4


def tiny_config(tied: bool = True) -> Qwen2_5_VLConfig:
    """Two language layers with grouped heads of 32, three vision blocks of which the last attends over whole frames."""
    text = {
        "vocab_size": 256,
        "hidden_size": 128,
        "intermediate_size": 160,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "rope_parameters": {"rope_type": "default", "mrope_section": [4, 6, 6], "rope_theta": 1000000.0},
    }
    vision = {
        "depth": 3,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_heads": 2,
        "patch_size": 4,
        "window_size": 16,
        "out_hidden_size": 128,
        "fullatt_block_indexes": [2],
    }
    return Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        vision_start_token_id=START,
        vision_end_token_id=END,
        tie_word_embeddings=tied,
    )


FAMILY = load_family(tiny_config())
LORA_VISION = r"model\.visual\.blocks\.\d+\.(attn\.(qkv|proj)|mlp\.(gate|up|down)_proj)"
LORA_LANGUAGE_AND_VISION = f"{FAMILY.lora_target_pattern}|{LORA_VISION}"


def tiny_model(seed: int = 0, tied: bool = True) -> Qwen2_5_VLForConditionalGeneration:
    """Weights large enough that attention, positions and images all matter to the output."""
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration._from_config(tiny_config(tied), attn_implementation="sdpa").eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(
                    std=0.06 if "embed_tokens" in name or "lm_head" in name else 1.5 * parameter[0].numel() ** -0.5
                )
            elif name.endswith("bias"):
                parameter.normal_(std=0.2)
    return model


def random_group(responses: list[int], grids: list[tuple[int, int, int]], seed: int, text: int = 5) -> TokenizedGroup:
    """A prompt of `text` words before, between and after its images, and responses of these lengths."""
    draw = torch.Generator().manual_seed(seed)

    def words(count: int) -> list[int]:
        return torch.randint(0, 240, (count,), generator=draw).tolist()

    prompt = words(text)
    for t, h, w in grids:
        prompt += [START, *[IMAGE] * (t * h * w // 4), END, *words(text)]
    patches = sum(t * h * w for t, h, w in grids)
    return TokenizedGroup(
        torch.tensor(prompt),
        [torch.tensor(words(length), dtype=torch.int64) for length in responses],
        torch.randn(patches, PATCH_DIM, generator=draw) if grids else None,
        torch.tensor(grids) if grids else None,
    )


def alone(model: Qwen2_5_VLForConditionalGeneration, group: TokenizedGroup, pad_to: int) -> list[torch.Tensor]:
    """Log-probabilities of each response by transformers: one sequence at a time, right-padded to `pad_to`."""
    scores = []
    device = model.device
    for response in group.response_ids:
        ids = torch.cat([group.prompt_ids, response])
        padding = pad_to - len(ids)
        mask = torch.cat([torch.ones(len(ids)), torch.zeros(padding)])[None].long().to(device)
        ids = torch.cat([ids, torch.zeros(padding, dtype=torch.int64)])[None].to(device)
        images = {}
        if group.pixel_values is not None and group.image_grid_thw is not None:
            images = {"pixel_values": group.pixel_values.to(device), "image_grid_thw": group.image_grid_thw.to(device)}
        logits = model(input_ids=ids, attention_mask=mask, mm_token_type_ids=(ids == IMAGE).int(), **images).logits[0]
        prompt = len(group.prompt_ids)
        log_probs = logits.float().log_softmax(-1)[prompt - 1 : prompt - 1 + len(response)]
        scores.append(log_probs.gather(-1, response.to(device)[:, None])[:, 0])
    return scores
