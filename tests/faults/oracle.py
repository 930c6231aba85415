"""Runs in a child: one hostile call, judged against numpy in float64.

A recipe is JSON: ``x`` and ``y`` (see ``array``), ``call`` and ``options``. ``judge`` prints a verdict and why:
survived (the right value, or a SpecError in one line), untyped, or silent (a wrong value, or one for what has none).
"""

import json
import math
import os
import traceback

import numpy as np

CONTAINERS = [
    "float32", "float64", "float16", "bfloat16", "longdouble", "bigendian", "fortran", "strided", "reversed",
    "readonly", "memmap", "list", "matrix", "masked", "masked none", "DataFrame", "csr", "tensor", "grad",
    "requires meta", "sparse tensor", "complex", "int", "uint8", "bool", "object", "text", "1-d", "3-d", "0-d",
    "no columns", "no rows", "None", "dict", "structured", "quantized", "datetime", "generator",
]  # fmt: skip
VALUES = [
    "normal", "clusters", "equal", "placeholder", "outlier", "far", "offset", "huge", "tiny", "wide", "zero row",
    "nan", "inf", "ties", "duplicates", "one point", "denormal", "mixed scales",
]  # fmt: skip


def values(kind: str, n: int, d: int, seed: int, power: float) -> np.ndarray:
    """(n, d) float64 of a kind; ``power`` of ten is how far."""
    rng = np.random.default_rng(seed)
    z, far = rng.normal(size=(n, d)), 10.0**power
    group = rng.integers(0, 3, n)
    match kind:
        case "clusters":
            z = 4 * rng.normal(size=(3, d))[group] + z / 4
        case "equal":
            z[:] = z[:1]
        case "placeholder":
            z[: n // 2] = z[:1]
        case "outlier":
            z[-1:] = far
        case "far":
            z[: n // 2] += far
        case "offset":
            z += far
        case "huge":
            z *= 1e30
        case "tiny":
            z *= 1e-30
        case "wide":
            z *= far
        case "zero row":
            z[: 1 + n // 5] = 0
        case "nan":
            z[n // 2 :, :1] = np.nan
        case "inf":
            z[n // 2 :, -1:] = np.inf
        case "ties":
            z = np.eye(max(d, 3))[group][:, :d] * 5
        case "duplicates":
            z = z[np.arange(n) // 5]
        case "one point":
            z = np.zeros((n, d))
        case "denormal":
            z *= 1e-42
        case "mixed scales":
            z *= 10.0 ** rng.uniform(-power, power, (n, 1))
    return z


def array(recipe: dict):
    """What is given, and the numbers that it means ((n, d) float64; None if it means none)."""
    import torch

    z = values(recipe["values"], recipe["n"], recipe["d"], recipe["seed"], recipe["power"])
    kind = recipe["container"]
    with np.errstate(all="ignore"):
        f4 = z.astype("float32")
        simple = {
            "float32": lambda: f4, "float64": lambda: z, "float16": lambda: z.astype("float16"),
            "longdouble": lambda: z.astype(np.longdouble), "bigendian": lambda: z.astype(">f4"),
            "fortran": lambda: np.asfortranarray(f4), "strided": lambda: np.repeat(f4, 2, 0)[::2],
            "reversed": lambda: np.ascontiguousarray(f4[::-1])[::-1], "list": lambda: z.tolist(),
            "matrix": lambda: np.asmatrix(z), "int": lambda: np.nan_to_num(z * 10).astype(int),
            "uint8": lambda: np.nan_to_num(z * 10).astype("uint8"), "bool": lambda: z > 0,
            "tensor": lambda: torch.from_numpy(f4), "grad": lambda: torch.from_numpy(z).requires_grad_(),
            "bfloat16": lambda: torch.from_numpy(f4).bfloat16(), "masked none": lambda: np.ma.masked_array(f4),
        }  # fmt: skip
        if kind in simple:
            given = simple[kind]()
            plain = given.detach().double() if isinstance(given, torch.Tensor) else given
            return given, np.asarray(plain, dtype=float)
        if kind == "readonly":
            f4.setflags(write=False)
            return f4, f4.astype(float)
        if kind == "memmap" and f4.size:
            np.save("mapped.npy", f4)
            return np.load("mapped.npy", mmap_mode="r"), f4.astype(float)
        if kind in ("DataFrame", "csr"):
            import pandas
            import scipy.sparse

            return (pandas.DataFrame(z) if kind == "DataFrame" else scipy.sparse.csr_matrix(np.nan_to_num(z))), z
    odd = {
        "masked": lambda: np.ma.masked_array(f4, mask=np.arange(f4.size).reshape(f4.shape) % 7 == 0),
        "requires meta": lambda: torch.empty(f4.shape, device="meta"),
        "sparse tensor": lambda: torch.from_numpy(f4).to_sparse(),
        "complex": lambda: z.astype(complex), "object": lambda: z.astype(object), "text": lambda: z.astype(str),
        "1-d": lambda: f4.ravel(), "3-d": lambda: f4[None], "0-d": lambda: np.float32(1),
        "no columns": lambda: f4[:, :0], "no rows": lambda: f4[:0], "dict": lambda: {"x": f4},
        "generator": lambda: iter(f4),
        "structured": lambda: np.zeros(len(f4), dtype=[("a", "f4"), ("b", "f4")]),
        "quantized": lambda: torch.from_numpy(f4).to(torch.float8_e4m3fn),
        "datetime": lambda: f4.astype("int64").astype("M8[s]"),
    }  # fmt: skip
    return odd.get(kind, lambda: None)(), None


def kernel_matrix(z: np.ndarray, kernel) -> np.ndarray:
    """In float64, from differences of rows; rows are scaled before their norms are taken."""
    with np.errstate(all="ignore"):
        if hasattr(kernel, "sigma"):
            squares = (((z[:, None] - z) / kernel.sigma) ** 2).sum(-1)
            return np.exp(-squares / 2)
        unit = z / np.abs(z).max(axis=1, keepdims=True)
        unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
        return unit @ unit.T


def close(found, right, rho: float, double: bool, rounding: float = 0.0) -> bool:
    return np.allclose(found, right, rtol=0, atol=max(1e-5 * rho, 1e-9 if double else 2e-6, rounding))


def kernels_of(options: dict) -> list:
    from spec_repro import Cosine, Gaussian

    return [Cosine() if sigma == "cosine" else Gaussian(sigma) for sigma in options.pop("sigmas")]


def compare_call(x, y, plain, options):
    from spec_repro import compare

    kernels = kernels_of(options)
    found = compare(x, y, kernels, **options)
    if plain[0] is None or plain[1] is None:
        return "a result for what is no array of numbers"
    double, least = found.settings["precision"] == "float64", found.settings["rounding"]
    values = np.concatenate([found.x_only.eigenvalues, -found.y_only.eigenvalues])
    if not (np.isfinite(values).all() and (np.abs(values) <= 1 + 1e-5).all()):
        return f"eigenvalues {values}"
    if options.get("frequencies"):
        return ""
    right = np.linalg.eigvalsh(
        (kernel_matrix(plain[0], kernels[0]) - kernel_matrix(plain[1], kernels[1])) / len(plain[0])
    )
    rho = np.abs(right).max()
    for side, expected in ((found.x_only, right[::-1]), (found.y_only, -right)):
        told = np.asarray(side.eigenvalues, float)
        k = min(int(options.get("k", 10)), len(expected))
        known, missing = side.resolved, expected[len(told) : k]
        wrong = not close(told[known], expected[: len(told)][known], rho, double, least)
        wrong |= (np.abs(told / expected[: len(told)] - 1)[~known] > 0.03).any()  # of a continuum
        if wrong or (missing > 1e-4 + 1e-4 * rho).any():
            return f"{side.key} eigenvalues {told[:4]}, right {expected[: min(k, 4)]}"
    return "" if close(found.spec_diff, rho, rho, double, least) else f"SPEC-diff {found.spec_diff}, right {rho}"


def match_call(x, y, plain, options):
    from spec_repro import match_bandwidths

    found = match_bandwidths(x, y, **options)
    if plain[0] is None or plain[1] is None:
        return "a result for what is no array of numbers"
    told = [found.eigenvalue_x, found.eigenvalue_y]
    right = [np.linalg.eigvalsh(kernel_matrix(z, k))[-1] / len(z) for z, k in zip(plain, found[:2], strict=True)]
    if np.abs(np.subtract(told, right)).max() > 1e-3:
        return f"sigma {found.kernel_x.sigma}, {found.kernel_y.sigma}: levels {told}, right {right}"
    target = options.get("target", 0.15)
    if (options.get("sigma") is None and abs(right[0] - target) > 0.01) or abs(right[0] - right[1]) > 0.011:
        return f"levels {right} for target {target}"
    return ""


def loss_call(x, y, plain, options):
    from spec_repro.core.loss import spec_diff

    kernels = kernels_of(options)
    found = spec_diff(x, y, *kernels)
    if plain[0] is None or plain[1] is None:
        return "a result for what is no array of numbers"
    value = float(found.detach())
    right = np.linalg.eigvalsh(
        (kernel_matrix(plain[0], kernels[0]) - kernel_matrix(plain[1], kernels[1])) / len(plain[0])
    )
    rho = np.abs(right).max()
    double = "float64" in str(found.dtype)
    return "" if close(value, rho, rho, double) else f"spec_diff {value}, right {rho}"


def carry_call(x, y, plain, options):
    from spec_repro import compare
    from spec_repro.core.compare import carry

    rng, way = np.random.default_rng(1), options["way"]
    a, b = rng.normal(size=(30, 4)), rng.normal(size=(30, 3))
    found = compare(a, b, kernels_of(options), k=2)
    old = {"other": (a + 1e-3, b), "swapped": (b, a), "permuted": (a[::-1], b), "short": (a[:-1], b[:-1])}.get(
        way, (a, b)
    )
    new = (x, y) if way == "hostile" else (a, b)
    scores = carry(found, *old, *new)
    if way != "hostile":
        if way != "same":
            return f"scores for rows that found was not made of ({way})"
        right = found.x_only.eigenvectors
        return "" if np.allclose(scores[0], right, atol=1e-3) else "carried onto itself, not the eigenvectors"
    if plain[0] is None or plain[1] is None:
        return "scores for what is no array of numbers"
    return "" if all(np.isfinite(part).all() for part in scores) else "scores that are not finite"


def settings_call(x, y, plain, options):
    from spec_repro.align import AlignSettings

    made = AlignSettings.of(options)
    whole = ("batch_size", "epochs", "every", "evaluate_every", "warmup", "seed", "frozen_blocks", "workers")
    for name in (*whole, "steps", "subset"):
        value = getattr(made, name)
        if not (type(value) is int or (value is None and name in ("steps", "subset"))):
            return f"{name}={value!r} is taken"
    fine = all(
        type(v) in (int, float) and math.isfinite(v) and v >= 0 for v in (made.weight, made.lr, made.weight_decay)
    )
    if not fine or made.weight > 1 or made.lr <= 0 or type(made.mispaired) is not bool:
        return f"{made} is taken"
    towers = made.frozen_towers
    return (
        "" if isinstance(towers, tuple) and set(towers) <= {"image", "text"} else f"frozen_towers={towers!r} is taken"
    )


CALLS = {
    "compare": compare_call,
    "match": match_call,
    "spec_diff": loss_call,
    "carry": carry_call,
    "settings": settings_call,
}
NAMED = {
    "np.int64(2)": np.int64(2), "np.float32(2)": np.float32(2), "True": True, "nan": math.nan, "inf": math.inf,
    "2**70": 2**70, "set()": set(), "object()": object(), "b'2'": b"2", "array([2])": np.array([2]), "-inf": -math.inf,
    "np.array(2)": np.array(2), "lambda": len, "'\\n'": "\n", "(1, 2)": (1, 2),
}  # fmt: skip


def judge(recipe: dict) -> None:
    """Print the verdict on one recipe as JSON."""
    from spec_repro.base.errors import SpecError

    options = {k: NAMED.get(v, v) if isinstance(v, str) else v for k, v in recipe["options"].items()}
    try:
        (x, first), (y, second) = (array(recipe[name]) for name in ("x", "y"))
        wrong = CALLS[recipe["call"]](x, y, (first, second), options)
        verdict, why = ("silent", wrong) if wrong else ("survived", "right")
    except SpecError as error:
        text = str(error)
        verdict, why = (
            ("survived", text) if text.strip() and "\n" not in text.strip() else ("untyped", f"in lines: {text!r}")
        )
    except MemoryError as error:
        verdict, why = "memory", repr(error)
    except BaseException as error:
        places = [f for f in traceback.extract_tb(error.__traceback__) if "spec_repro" in f.filename]
        place = f" at {os.path.basename(places[-1].filename)}:{places[-1].lineno}" if places else " in the harness"
        verdict, why = "untyped", f"{type(error).__name__}: {str(error)[:150]}{place}"
    print(json.dumps([verdict, why]))
