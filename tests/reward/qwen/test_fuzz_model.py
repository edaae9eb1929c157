# SPDX-License-Identifier: Apache-2.0
"""Reward models of which hypothesis has damaged a file: a whole model that judges, or one line with folder and cure."""

from __future__ import annotations

import json
import shutil
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("hypothesis")

from fuzzing import bounded, check_refusal, fuzz, other_bytes, other_file, other_json  # type: ignore[import-not-found]
from hypothesis import given
from hypothesis import strategies as st
from model_folders import ADAPTER, FRAME, WEIGHTS, write  # type: ignore[import-not-found]
from safetensors.torch import load_file, save_file

from lrm_ros.reward.load import load_model
from lrm_ros.reward.models import TINY_FOLDER
from lrm_ros.types import Reward, RewardQuery

HEAD_SIZE = struct.Struct("<Q")


def in_shards(folder: Path) -> None:
    """Store the weights in two files with an index."""
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    places = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(sorted(tensors))}
    for file in set(places.values()):
        part = {name: value for name, value in tensors.items() if places[name] == file}
        save_file(part, folder / file, metadata={"format": "pt"})
    index = {"metadata": {"total_size": 1}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """A whole model, one in two files, and an adapter; to be read only."""
    root = tmp_path_factory.mktemp("models")
    kept = shutil.ignore_patterns("metrics.json", "training.json", "README.md")
    found = {kind: Path(shutil.copytree(TINY_FOLDER, root / kind, ignore=kept)) for kind in ("whole", "shards")}
    in_shards(found["shards"])
    return {**found, "adapter": write(root / "adapter")}


@st.composite
def other_weights(draw: Callable[..., Any], content: bytes) -> bytes:
    """Weights of which the header says something else, or with other bytes anywhere."""
    if draw(st.booleans()):
        return draw(other_bytes(content))
    (size,) = HEAD_SIZE.unpack(content[:8])
    header, data = content[8 : 8 + size], content[8 + size :]
    kind = draw(st.sampled_from(["values", "values", "bytes", "type", "size"]))
    if kind == "values":
        header = draw(other_json(header))
    elif kind == "bytes":
        header = draw(other_bytes(header))
    elif kind == "type":
        dtypes = st.sampled_from([b"F16", b"BF16", b"I8", b"F64", b"U8", b"BOOL", b"F8_E4M3", b"Q4"])
        header = header.replace(b"F32", draw(dtypes), draw(st.integers(1, 40)))
    else:
        size = draw(st.integers(0, 2**64 - 1))
    size = len(header) if kind != "size" else size
    return HEAD_SIZE.pack(size) + header + data


@pytest.mark.parametrize("kind", ["whole", "shards", "adapter"])
def test_fuzz_of_reward_models(folders, kind):
    good = folders[kind]
    names = sorted(path.relative_to(good).as_posix() for path in good.rglob("*") if path.is_file())
    query = RewardQuery("lift it", "completion", (FRAME,))
    (wanted,) = load_model(str(good), "cpu").score([query])

    @fuzz
    @given(data=st.data(), name=st.sampled_from(names), missing=st.integers(0, 19))
    def check(data: st.DataObject, name: str, missing: int) -> None:
        with tempfile.TemporaryDirectory() as scratch, bounded():
            folder = Path(shutil.copytree(good, Path(scratch) / "model"))
            content = (good / name).read_bytes()
            if missing == 0:
                (folder / name).unlink()
            elif name.endswith(".safetensors"):
                (folder / name).write_bytes(data.draw(other_weights(content)))
            else:
                (folder / name).write_bytes(data.draw(other_file(good / name)))
            try:
                model = load_model(str(folder), "cpu")
            except (ValueError, FileNotFoundError) as error:
                check_refusal(error, folder)
            else:
                check_whole(folder, good, missing == 0 and name.endswith(".safetensors"))
                (answer,) = model.score([query])
                assert not isinstance(answer, Reward) or 0.0 <= answer.value <= 1.0
                if (folder / name).is_file() and (folder / name).read_bytes() == content:
                    assert answer.value == pytest.approx(wanted.value, abs=1e-6)

    check()


def check_whole(folder: Path, good: Path, removed: bool) -> None:
    """A folder that is loaded has all weights that the good one has."""
    assert not removed
    files = sorted(path.name for path in good.glob("*.safetensors"))
    shapes = [
        {name: value.shape for file in files for name, value in load_file(root / file).items()}
        for root in (good, folder)
    ]
    assert shapes[0] == shapes[1] and (ADAPTER in files or len(shapes[0]) > 10)
