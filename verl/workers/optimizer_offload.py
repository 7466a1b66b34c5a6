"""The optimizer's moments on the host: a step brings them to the GPU in chunks."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.optim import Optimizer

from verl.workers.offload import CPUOffloader
from verl.workers.sharded_state import local_rows

MOMENTS = ("exp_avg", "exp_avg_sq")  # of AdamW
CHUNK_BYTES = 1 << 30


class OptimizerOffloader:
    """Keeps AdamW's moments in host memory, except for those of one chunk of parameters during a step.

    A step takes what offloading between phases takes, one copy in each direction, and no more GPU memory than a chunk:
    weights, gradients and moments are never there together. AdamW updates each element by itself, so the result is that
    of one step over all parameters, to the bit.

    Args:
        optimizer: with one parameter group.
        chunk_bytes: moments of consecutive parameters that are moved together; a larger parameter is a chunk.
        make: makes the offloader of one chunk.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        chunk_bytes: int = CHUNK_BYTES,
        make: Callable[[], CPUOffloader] = CPUOffloader,
    ) -> None:
        self.optimizer = optimizer
        (group,) = optimizer.param_groups
        self._chunks: list[tuple[list[nn.Parameter], CPUOffloader]] = []
        held = chunk_bytes
        for parameter in group["params"]:
            size = len(MOMENTS) * local_rows(parameter).nbytes
            if held + size > chunk_bytes:
                self._chunks.append(([], make()))
                held = 0
            self._chunks[-1][0].append(parameter)
            held += size

    def step(self) -> None:
        """One step of the optimizer over all parameters."""
        (group,) = self.optimizer.param_groups
        parameters = group["params"]
        try:
            for chunk, offloader in self._chunks:
                offloader.load_to_device()
                group["params"] = chunk
                self.optimizer.step()
                self._offload(chunk, offloader)
        finally:
            group["params"] = parameters

    def read(self, tensor: Tensor) -> Tensor:
        """This rank's rows of any tensor, without a copy; of an offloaded moment they are on the host."""
        found = (offloader.read(tensor) for _, offloader in self._chunks)
        return next((rows for rows in found if rows is not None), local_rows(tensor))

    def moments_loaded(self, parameter: nn.Parameter) -> None:
        """To be called for each parameter in turn when its moments have been replaced, as a checkpoint is read: what
        was on the host is forgotten, and a chunk is offloaded when it is whole.
        """
        for chunk, offloader in self._chunks:
            if parameter is chunk[0]:
                offloader.discard()
            if parameter is chunk[-1]:
                self._offload(chunk, offloader)

    def _offload(self, chunk: list[nn.Parameter], offloader: CPUOffloader) -> None:
        states = [self.optimizer.state[parameter] for parameter in chunk if parameter in self.optimizer.state]
        offloader.offload([state[moment] for state in states for moment in MOMENTS], empty_cache=False)
