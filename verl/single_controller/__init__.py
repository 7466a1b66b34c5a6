"""One process per GPU, led by one driver: a group of Ray actors that are called together and fail together."""

from verl.single_controller.cluster import ClusterError, connect_ray
from verl.single_controller.remote_worker import RemoteWorker
from verl.single_controller.worker_group import WorkerError, WorkerGroup, WorkerSpec

__all__ = ["ClusterError", "RemoteWorker", "WorkerError", "WorkerGroup", "WorkerSpec", "connect_ray"]
