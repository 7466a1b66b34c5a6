"""The configuration of a run: its sections, how they are loaded, and what is refused before any model is loaded."""

from verl.config.key_reference import help_text, read_key_groups, wants_help
from verl.config.loading import load_config
from verl.config.schema import Config, ConfigError, OptionError, override

__all__ = [
    "Config",
    "ConfigError",
    "OptionError",
    "help_text",
    "load_config",
    "override",
    "read_key_groups",
    "wants_help",
]
