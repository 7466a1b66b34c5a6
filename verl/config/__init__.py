"""The configuration of a run: its sections, how they are loaded, and what is refused before any model is loaded."""

from verl.config.loading import load_config
from verl.config.schema import Config, ConfigError, override
from verl.registry import nearest

__all__ = ["Config", "ConfigError", "load_config", "nearest", "override"]
