"""``hub:ID``: data sets of the Hugging Face hub.

The hub is asked once whether a repository is available, and for the commit that its revision names, before ``datasets``
starts: without a network that library retries for half a minute. With HF_HUB_OFFLINE=1 nothing is asked, and what an
earlier run has kept is used.
"""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import datasets
from datasets import Dataset, Value
from huggingface_hub import HfApi, constants, get_token
from huggingface_hub.errors import GatedRepoError

from spec_repro.base import errors
from spec_repro.data.identity import with_pictures
from spec_repro.data.local import class_column, standard_names
from spec_repro.data.registry import dataset_loader

OFFLINE = "is not in the local cache, and HF_HUB_OFFLINE=1 is set; unset it to download"


def gated(name: str) -> errors.GatedData:
    """The error for a repository whose terms must be accepted first."""
    why = ", and this token has no access" if get_token() else ""
    return errors.GatedData(f"{name} is gated{why}: accept its terms there, then set HF_TOKEN.")


@contextmanager
def transfer(name: str) -> Iterator[None]:
    """Surrounds what asks the hub: clients and readers raise errors of no common class, which become typed ones."""
    try:
        yield
    except errors.SpecError:
        raise
    except GatedRepoError as error:
        raise gated(name) from error
    except Exception as error:
        if getattr(error, "errno", None) == errno.ENOSPC or "Not enough disk space" in str(error):
            raise errors.DiskFull(f"no room for {name}: {error}. Free some; what was read is whole.") from error
        again = f"does not load: {errors.brief(error)}. Run it again: what is whole stays"
        said = f"{OFFLINE} ({errors.brief(error)})" if constants.HF_HUB_OFFLINE else again
        raise errors.DataMissing(f"{name} {said}.") from error


def commit(repository: str, revision: str | None = None, kind: str = "dataset") -> str:
    """The commit that ``revision`` (None: the default branch) of a hub repository names; one request, no retries.

    ``kind`` is "dataset" or "model". Raises GatedData if its terms must be accepted first, DataMissing otherwise.
    """
    not_here(repository)
    name = f"the {kind} {repository}@{revision or 'main'} of the Hugging Face hub"
    with transfer(name):
        info = HfApi().repo_info(repository, revision=revision, repo_type=kind, timeout=10)
        if info.gated and not get_token():
            raise gated(name)
        if info.gated:
            HfApi().auth_check(repository, repo_type=kind)
    return info.sha


def not_here(repository: str) -> None:
    """Raises DataMissing where a local folder has the name of a hub repository: libraries would read it instead."""
    if Path(repository).exists():
        hint = "and would be read in its place. Start elsewhere, rename it, or read it as folder:, text: or csv:."
        raise errors.DataMissing(
            f"the folder {errors.shown(Path(repository).absolute())} has the name of a hub repository, {hint}"
        )


@dataset_loader("hub:")
def hub(spec: str, *, split: str = "train") -> Dataset:
    """``OWNER/NAME[/FOLDER][:CONFIG][@REVISION]``; give a commit as REVISION to have the same rows later, too.

    Columns are named by ``standard_names``; a ``label`` of plain values becomes classes, the other columns stay as they
    are. ``id`` is the repository's own column of that name if it is unique, else the row number.
    """
    repository, folder, config, revision = _parts(spec)
    not_here(repository)
    if not constants.HF_HUB_OFFLINE:
        revision = commit(repository, revision)
    with transfer(repository):
        dataset = datasets.load_dataset(repository, config, data_dir=folder, split=split, revision=revision)
    dataset = dataset.rename_columns(standard_names(dataset.features))
    if isinstance(dataset.features.get("label"), Value):
        values = dataset["label"][:]
        if None in values:
            raise errors.UnreadableItem(f"hub:{spec} has no label in row {values.index(None) + 1:,}.")
        values, feature = class_column([str(value) for value in values])
        dataset = dataset.remove_columns("label").add_column("label", values, feature=feature)
    ids, about = [], f"Read from hub:{repository} at revision {revision}."
    if "id" in dataset.column_names:
        ids = ["" if value is None else str(value) for value in dataset["id"][:]]
        dataset = dataset.remove_columns("id")
    if len(set(ids)) < len(dataset) or "" in ids:
        about += " Its column id is not unique or not complete: rows are numbered." if ids else ""
        ids = [f"{i:07d}" for i in range(len(dataset))]
    dataset = with_pictures(dataset.add_column("id", ids, feature=Value("string")))
    dataset.info.description = about
    return dataset


def _parts(spec: str) -> tuple[str, str | None, str | None, str | None]:
    parts = re.fullmatch(r"([\w.-]+/[\w.-]+)(?:/([^:@]+))?(?::([^@]+))?(?:@(.+))?", spec, re.ASCII)
    if not parts or {".", ".."} & set(re.split("[/:@]", spec)):
        raise errors.InvalidInput(f"hub: takes OWNER/NAME[/FOLDER][:CONFIG][@REVISION], found {spec!r}.")
    return parts.groups()
