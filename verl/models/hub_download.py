"""A model by its name on the Hugging Face hub: each host finds it in its own cache, or downloads it there."""

from __future__ import annotations

from pathlib import Path

MODEL_PATH_KEY, TOKENIZER_PATH_KEY = "worker.actor.model.model_path", "worker.actor.model.tokenizer_path"
FILES = ("*.json", "*.txt", "*.jinja", "*.model", "*.safetensors", "*.py")  # of a repository that are downloaded


PREFIX = "hf://"  # of a folder in a repository, hf://owner/name/folder: without it, it would be a path


def is_hub_name(path: str) -> bool:
    """Whether a path that is no file here is `owner/name`, or `hf://owner/name/folder`, on the hub."""
    parts = path.removeprefix(PREFIX).split("/")
    if path.startswith(PREFIX):
        return len(parts) >= 2 and all(parts)
    plain = not path.startswith(("/", ".", "~")) and len(parts) == 2 and all(parts)
    return plain and not Path(path).exists() and not Path(parts[0]).exists()


def local_model_folder(path: str, download: bool = True) -> str:
    """The folder of a hub name's files on this host; a path that is no hub name as it is.

    Offline (HF_HUB_OFFLINE=1, or no network), or without `download`, the cache is used.

    Raises:
        OSError, or an error of huggingface_hub: neither on the hub nor in the cache.
    """
    if not is_hub_name(path):
        return path
    from huggingface_hub import snapshot_download

    owner, name, *inside = path.removeprefix(PREFIX).split("/")
    patterns = ["/".join([*inside, pattern]) for pattern in FILES]
    folder = snapshot_download(f"{owner}/{name}", allow_patterns=patterns, local_files_only=not download)
    return str(Path(folder, *inside))
