"""The policy at inference: a checkpoint served by vLLM in this process, many prompts at once."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL.Image import Image

from veason.checkpoints import resolve_model
from veason.errors import DataError
from veason.model_info import read_model_info

# Placeholders of pixels: an answer that held one would be read as an image that is not there.
VISION_TOKENS = ("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>")


@dataclass(frozen=True)
class ChatPrompt:
    """One prompt: chat messages with bare `{"type": "image"}` placeholders, and the RGB images in their order."""

    name: str  # the sample's id: named in errors, and mixed into its sampling seed
    messages: list[dict[str, Any]]
    images: list[Image]


class InferencePolicy(Protocol):
    """A model that answers prompts, such as `VLLMPolicy`."""

    def generate(self, prompts: Sequence[ChatPrompt]) -> list[str]: ...


@dataclass(frozen=True)
class SamplingOptions:
    """How answers are sampled; greedy by default."""

    temperature: float = 0.0
    top_p: float = 1.0
    repetition_penalty: float = 1.0  # Qwen2.5-VL's own generation config says 1.05; the policy is trained without
    max_tokens: int = 1024
    ignore_eos: bool = False  # always `max_tokens` tokens, for a measurement
    seed: int = 0  # a prompt's own seed is made of this and its name: neither order nor batch changes an answer


class VLLMPolicy:
    """A checkpoint (config, tokenizer, processor, safetensors) in an in-process vLLM engine.

    Args:
        path: the checkpoint's folder, or its name on the hub.
        sampling: greedy by default.
        dtype: "auto" is bfloat16 on CUDA and float32 on the CPU.
        max_prompt_tokens: a longer prompt is refused by name, never truncated.
        max_images: images of one prompt.
        gpu_memory_utilization: the share of the GPU's memory that the engine may take; the tracker is on the same GPU.

    Raises:
        DataError: no checkpoint at `path`, or one of an unknown kind of model.
    """

    def __init__(
        self,
        path: str | Path,
        sampling: SamplingOptions | None = None,
        dtype: str = "auto",
        max_prompt_tokens: int = 7100,
        max_images: int = 32,
        gpu_memory_utilization: float = 0.5,
        enforce_eager: bool | None = None,
        **engine_options: Any,
    ) -> None:
        path = resolve_model(path, weights=engine_options.get("load_format") != "dummy")
        on_gpu = torch.cuda.is_available()
        _set_environment(on_gpu)
        from vllm import LLM  # after the environment: vLLM reads it when it is imported

        self.model_info = read_model_info(path)
        self.sampling = sampling or SamplingOptions()
        self.max_prompt_tokens = max_prompt_tokens
        self.engine = LLM(
            model=path,
            dtype=("bfloat16" if on_gpu else "float32") if dtype == "auto" else dtype,
            max_model_len=max_prompt_tokens + self.sampling.max_tokens,
            limit_mm_per_prompt={"image": max_images, "video": 0},
            enforce_eager=not on_gpu if enforce_eager is None else enforce_eager,
            gpu_memory_utilization=gpu_memory_utilization,
            # `sampling` holds every parameter: the checkpoint's generation_config.json is not read
            generation_config="vllm",
            seed=self.sampling.seed,
            **engine_options,
        )
        from transformers import AutoProcessor

        self.processor = AutoProcessor.from_pretrained(path)
        tokenizer = self.processor.tokenizer
        known = tokenizer.get_vocab()
        self.logit_bias = {known[token]: float("-inf") for token in VISION_TOKENS if token in known}

    def generate(self, prompts: Sequence[ChatPrompt]) -> list[str]:
        """One answer per prompt, in order; special tokens are left out of the text.

        Raises:
            DataError: a prompt is longer than `max_prompt_tokens`, or its images do not match its placeholders.
        """
        inputs = [self._prompt(prompt) for prompt in prompts]
        outputs = self.engine.generate(inputs, [self._sampling_params(prompt) for prompt in prompts], use_tqdm=False)
        return [output.outputs[0].text for output in outputs]

    def stream(self, prompts: Sequence[ChatPrompt]) -> Iterator[list[str]]:
        """The answers so far to all prompts, after each step of the engine; the last ones are those of `generate`.

        An iterator that is closed early ends the generation.

        Raises:
            DataError: as `generate`.
        """
        from vllm.sampling_params import RequestOutputKind

        engine = self.engine.llm_engine
        rendered = engine.renderer.render_cmpl([self._prompt(prompt) for prompt in prompts])
        numbers: dict[str, int] = {}
        texts = [""] * len(prompts)
        try:
            for number, (prompt, request) in enumerate(zip(prompts, rendered, strict=True)):
                params = self._sampling_params(prompt)
                params.output_kind = RequestOutputKind.CUMULATIVE
                name = f"stream-{next(self.engine.request_counter)}"
                engine.add_request(name, request, params)
                numbers[name] = number
            while engine.has_unfinished_requests():
                for output in engine.step():
                    texts[numbers[output.request_id]] = output.outputs[0].text
                yield list(texts)
        finally:
            engine.abort_request(list(numbers))

    def _prompt(self, prompt: ChatPrompt) -> dict[str, Any]:
        placeholders = sum(part.get("type") == "image" for message in prompt.messages for part in message["content"])
        if placeholders != len(prompt.images):
            raise DataError(f"{prompt.name}: {placeholders} image placeholders and {len(prompt.images)} images")
        text = self.processor.apply_chat_template(prompt.messages, tokenize=False, add_generation_prompt=True)
        length = len(self.processor.tokenizer(text).input_ids) + sum(
            self._visual_tokens(image) - 1 for image in prompt.images
        )
        if length > self.max_prompt_tokens:
            raise DataError(f"{prompt.name}: the prompt has {length} tokens, the limit is {self.max_prompt_tokens}")
        return {"prompt": text, "multi_modal_data": {"image": list(prompt.images)}}

    def _visual_tokens(self, image: Image) -> int:
        """Tokens that one `<|image_pad|>` is expanded to."""
        processor = self.processor.image_processor
        return processor.get_number_of_image_patches(image.height, image.width, {}) // processor.merge_size**2

    def _sampling_params(self, prompt: ChatPrompt) -> Any:
        from vllm import SamplingParams

        sampling = self.sampling
        return SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            repetition_penalty=sampling.repetition_penalty,
            max_tokens=sampling.max_tokens,
            ignore_eos=sampling.ignore_eos,
            seed=_prompt_seed(sampling.seed, prompt.name) if sampling.temperature > 0 else None,
            logit_bias=self.logit_bias,
        )


def _prompt_seed(seed: int, name: str) -> int:
    return zlib.crc32(f"{seed}:{name}".encode())


def _set_environment(on_gpu: bool) -> None:
    """The engine in this process, nothing fetched from a hub; variables that are set already stay."""
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING" if on_gpu else "ERROR")
    if not on_gpu:
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")  # several policies share the cores
