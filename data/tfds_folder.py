"""Folders of tensorflow-datasets in array_record, read and written with no TensorFlow installed."""

import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

from glm_jax.data import writing
from glm_jax.errors import InputError

_BATCH = 256
_TEXTS = (
    "category", "language", "annotator", "prompt_id", "chosen_id", "rejected_id", "task",
)  # fmt: skip
_NUMBERS = ("margin", "strength", "weight", "milliseconds")


def is_one(folder: Path) -> bool:
    """Other programs describe other things in files of the same name."""
    splits = _info(folder).get("splits")
    return isinstance(splits, list) and all(
        isinstance(split, Mapping) and isinstance(split.get("name"), str) for split in splits
    )


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a data set's one split, or of the split that the last part of the path names."""
    folder, split = (path, None) if path.is_dir() else (path.parent, path.name)
    info = _info(folder)
    splits = [found["name"] for found in info.get("splits", [])]
    if info.get("fileFormat") != "array_record":
        raise InputError(
            f"{path}: prepared as {info.get('fileFormat', 'tfrecord')}, which takes TensorFlow to "
            f"read; prepare it so: tfds build {info.get('name', 'NAME')} --file_format=array_record"
        )
    if split is None and len(splits) > 1:
        raise InputError(f"{path}: name one of its splits: {_names(folder, splits)}")
    if not splits or split not in (None, *splits):
        raise InputError(f"{path}: no such split; there are {_names(folder, splits) or 'none'}")

    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(folder)
    source = builder.as_data_source(split or splits[0])
    for start in range(0, len(source), _BATCH):
        for row in source.__getitems__(range(start, min(start + _BATCH, len(source)))):
            plain = _plain(row, builder.info.features)
            yield {name: value for name, value in plain.items() if not _absent(name, value)}


def write(path: str | Path, pairs: Iterable[Mapping[str, Any]]) -> None:
    """Writes rows of our own layout to a folder for `tfds.builder_from_directory`, split `train`.

    What a pair does not have is an empty text, not a number, or votes of -1.
    """
    import tensorflow_datasets as tfds

    if Path(path).exists():
        raise InputError(f"{path}: is there already; a folder is never written over")
    features = tfds.features
    text, number = features.Text(), features.Scalar(np.float64)
    known = features.FeaturesDict(
        {
            "id": text,
            "prompt": features.Sequence({"role": text, "content": text}),
            "chosen": text,
            "rejected": text,
            "tie": features.Scalar(np.bool_),
            "votes": {name: features.Scalar(np.int64) for name in ("chosen", "rejected", "tie")},
            **dict.fromkeys(_TEXTS, text),
            **dict.fromkeys(_NUMBERS, number),
        }
    )

    class Pairs(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        """Preference pairs."""

        name = "pairs"
        VERSION = tfds.core.Version("1.0.0")
        url_infos: dict = {}  # noqa: RUF012  nothing is downloaded

        def _info(self) -> Any:
            return tfds.core.DatasetInfo(builder=self, features=known, disable_shuffling=True)

        def _split_generators(self, dl_manager: Any) -> Any:
            return {"train": enumerate(map(_filled, pairs))}

        def _generate_examples(self) -> None:
            raise NotImplementedError  # tfds wants the method; splits bring their examples along

    tfds.disable_progress_bar()
    with writing.unfinished(Path(path)) as part, open(os.devnull, "w") as nowhere:
        builder = Pairs(data_dir=part / "data", file_format="array_record")
        with redirect_stdout(nowhere):  # tells of a download
            builder.download_and_prepare(download_dir=part / "downloads")
        whole = part.with_name(part.name + ".whole")
        os.replace(builder.data_dir, whole)
        shutil.rmtree(part)
        os.replace(whole, part)


def _info(folder: Path) -> Mapping[str, Any]:
    """What describes the folder; nothing if that is not there, or no object."""
    file = folder / "dataset_info.json"
    found = json.loads(file.read_text()) if file.is_file() else {}
    return found if isinstance(found, Mapping) else {}


def _filled(row: Mapping[str, Any]) -> dict[str, Any]:
    nothing = {
        **dict.fromkeys(_TEXTS, ""),
        **dict.fromkeys(_NUMBERS, math.nan),
        "votes": {"chosen": -1, "rejected": -1, "tie": -1},
    }
    task = {"task": json.dumps(row["task"], ensure_ascii=False)} if "task" in row else {}
    return nothing | row | task


def _absent(name: str, value: Any) -> bool:
    """What `_filled` put there, which also is how others say that they have none."""
    if name in _TEXTS:
        return value == ""
    if name in _NUMBERS:
        return value != value
    return name == "votes" and isinstance(value, Mapping) and -1 in value.values()


def _plain(value: Any, feature: Any) -> Any:
    """An example as a JSON object; tfds has an object of lists where we have a list of objects."""
    inner = getattr(feature, "feature", None)  # of a sequence
    if inner is not None and isinstance(value, Mapping):
        entries = zip(*value.values(), strict=True)
        return [_plain(dict(zip(value, entry, strict=True)), inner) for entry in entries]
    if inner is not None:
        return [_plain(item, inner) for item in value]
    if isinstance(value, Mapping):
        return {name: _plain(item, feature[name]) for name, item in value.items()}
    if isinstance(value, bytes):
        return value.decode()
    return value.item() if hasattr(value, "item") else value


def _names(folder: Path, splits: list[str]) -> str:
    return ", ".join(str(folder / split) for split in splits)
