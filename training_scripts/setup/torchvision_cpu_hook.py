"""Lets a CUDA build of torchvision import beside a CPU build of PyTorch.

PyPI carries torchvision as a CUDA build only; without CUDA libraries its compiled operators do not load, and its Python
code then fails on the missing operators `torchvision::nms` and `torchvision::qnms`. This project calls neither.
Declaring their schemas just before torchvision is imported is enough, and it must also happen in every child process,
so `create_venv.sh` copies this module into the environment's site-packages with a `.pth` file that imports it at
start-up. It is not installed where torchvision imports by itself.
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
    """A finder that finds nothing: it acts once, when `torchvision` is first looked for."""

    @classmethod
    def find_spec(cls, name, *_):
        if name == "torchvision":
            sys.meta_path.remove(cls)
            declare_operators()


sys.meta_path.insert(0, _DeclareOperators)
