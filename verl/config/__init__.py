"""The configuration of a run: its sections, how they are loaded, and what is refused before any model is loaded."""

from verl.config.loading import load_config
from verl.config.reference import help_text, read_groups, wants_help
from verl.config.schema import Config, ConfigError, OptionError, override
from verl.registry import nearest

__all__ = [
    "Config",
    "ConfigError",
    "OptionError",
    "help_text",
    "load_config",
    "nearest",
    "override",
    "read_groups",
    "wants_help",
]
