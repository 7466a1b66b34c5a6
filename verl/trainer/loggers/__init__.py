"""Loggers by name (`trainer.logger`): console, tensorboard, wandb, swanlab, mlflow. One of your own is a subclass of
`Logger`, chosen as `package.module:name`. metrics.jsonl is written whatever is chosen.
"""

from verl.trainer.loggers.base import ConsoleLogger, Logger

__all__ = ["ConsoleLogger", "Logger"]
