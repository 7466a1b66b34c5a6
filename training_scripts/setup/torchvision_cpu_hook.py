"""Makes a CUDA build of torchvision importable with a CPU build of PyTorch.

PyPI has torchvision as a CUDA build only. Without CUDA libraries its compiled operators do not load, and its Python
code fails on the missing operators `torchvision::nms` and `torchvision::qnms`, which this project does not use. Their
schemas have to be declared just before torchvision is imported, in every process; so `create_venv.sh` copies this
module into site-packages with a `.pth` file that imports it at start-up, where torchvision does not import without it.
"""

import sys

_libraries = []  # torch forgets a schema when its Library object is collected


def declare_operators():
    import torch

    if torch.version.cuda is None:
        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _libraries.append(library)


class _DeclareOperators:
    """A meta path finder without results: it acts once, at the first import of `torchvision`."""

    @classmethod
    def find_spec(cls, name, *_):
        if name == "torchvision":
            sys.meta_path.remove(cls)
            declare_operators()


sys.meta_path.insert(0, _DeclareOperators)
