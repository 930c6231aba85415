"""Products of float32 matrices on a CPU, by oneDNN, which torch has for the code that it compiles.

torch's own are those of MKL, which keeps a processor of AMD to AVX2 and gives a product with a thin block half the rate
of a square one. With AVX-512 oneDNN takes about half of the time. ``ATEN_CPU_CAPABILITY=avx2`` turns it off.
"""

import math

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.nn.functional import linear
from torch.overrides import TorchFunctionMode

# An operator that torch itself makes use of, and documents nowhere: it may be gone in another version.
_onednn = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
# What torch.utils.flop_counter is to count for one: two operations for each multiply-add.
OPERATIONS = {_onednn: lambda x, weight, *_, **__: 2 * math.prod(x) * weight[0]} if _onednn else {}
FAST = _onednn is not None and torch.backends.cpu.get_cpu_capability().startswith("AVX512")


def product(left: Tensor, right: Tensor, bias: Tensor | None = None) -> Tensor:
    """``left @ right + bias``, of ``(n, d)``, ``(d, m)`` and ``(m,)``; what oneDNN does not take, torch does."""
    if min(*left.shape, *right.shape) < 2 or not _taken(left, right, bias):  # a vector is no faster
        return left @ right if bias is None else torch.addmm(bias, left, right)
    thin = right.shape[1] <= 64  # copied into the layout that takes four fifths of the time of the other
    if bias is None and not left.is_contiguous() and left.T.is_contiguous():
        # Ten times as fast as if what is on the left is transposed.
        return _linear(right.T.contiguous() if thin else right.T, left).T
    return _linear(left, right.contiguous().T if thin else right.T, bias)


class LinearLayers(TorchFunctionMode):
    """While it is entered, the linear layers of models are such products."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is linear and not kwargs and args[0].dim() > 1 and _taken(*args):
            return _linear(*args)
        return function(*args, **(kwargs or {}))


def _taken(*matrices: Tensor | None) -> bool:
    """Whether oneDNN has a product of these, and no gradient is asked of it."""
    given = [z for z in matrices if z is not None]
    trained = torch.is_grad_enabled() and any(z.requires_grad for z in given)
    return FAST and not trained and not torch.is_autocast_enabled("cpu") and all(map(_plain, given))


def _plain(z: Tensor) -> bool:
    """Whether it is what it seems: weights that are stored in other ways have types or layouts of their own."""
    known = type(z) in (Tensor, Parameter) and z.layout == torch.strided
    return known and z.dtype == torch.float32 and z.device.type == "cpu" and z.numel() > 0


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x @ weight.T + bias``; other layouts than these of a matrix would take a thousand times as long."""
    x, weight = (z if z.is_contiguous() or z.mT.is_contiguous() else z.contiguous() for z in (x, weight))
    return _onednn(x, weight, None if bias is None else bias.contiguous(), "none", [], "")
