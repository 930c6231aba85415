"""The two things that every score does first: check the members, read their rows."""

import numpy as np

from spec_repro.base.errors import InvalidInput

__all__ = ["checked_members", "rows"]


def checked_members(members: np.ndarray, n: int) -> np.ndarray:
    """``members`` as an integer array (k, m) of sample indices below n; InvalidInput where it is not one."""
    members = np.asarray(members)
    if members.ndim != 2 or members.size == 0 or members.dtype.kind not in "iu":
        raise InvalidInput(
            f"members: expected integer sample indices of shape (k, m), got {members.dtype} of shape {members.shape}. "
            "Pass what direction.top(m) returns."
        )
    if members.min() < 0 or members.max() >= n:
        raise InvalidInput(
            f"members: expected indices from 0 to {n - 1}, got {members.min()} to {members.max()}. "
            "The members must come from a comparison of these same rows."
        )
    return members


def rows(z: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Rows of an embedding in float32 or better; of a memmap no other rows are read."""
    found = np.asarray(z[index])
    return found if found.dtype.kind == "f" and found.dtype.itemsize >= 4 else found.astype(np.float32)
