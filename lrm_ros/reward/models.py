# SPDX-License-Identifier: Apache-2.0
"""Interface of a reward model, and the folder behind a model's name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit, urlunsplit

from lrm_ros.config import READOUTS as READOUTS
from lrm_ros.config_files import given_path
from lrm_ros.types import HEADS, VIDEO_HEADS, Reward, RewardQuery, Unscored

TINY_FOLDER = Path(__file__).parent.parent / "models" / "tiny"
MODES = (*HEADS, "tri", *VIDEO_HEADS)  # how a stream of frames is scored


class RewardModel(Protocol):
    """Anything that answers reward queries in batches."""

    name: str

    def score(self, queries: Sequence[RewardQuery], readout: str = "forward") -> list[Reward | Unscored]:
        """Answer every query, in order; a query that got no answer is Unscored with the reason."""
        ...


def other_head(name: str, heads: Sequence[str], asked: str) -> str:
    """Return why the model ``name``, which answers ``heads``, does not answer head ``asked``."""
    return f"model '{name}' answers {', '.join(heads)}; head '{asked}' needs its own weights"


def trusted(answer: Reward | Unscored, min_mass: float) -> Reward | Unscored:
    """Return an answer; Unscored if all that its head can answer has less than ``min_mass`` probability together.

    A distribution over answers that the model would not give says nothing, however sharp it is.
    """
    if isinstance(answer, Unscored) or answer.mass is None or answer.mass >= min_mass:
        return answer
    return Unscored(
        answer.stamp_ns,
        answer.head,
        f"all answers of head '{answer.head}' have {answer.mass:.1g} probability together, {min_mass:g} is the least "
        f"(min_mass): model '{answer.model}' would say something else; readout 'reason' or 'generate' lets it write",
    )


def too_long(tokenizer: Any, length: int, task: str) -> str:
    """Return why a question of ``length`` tokens cannot be asked, empty if it can.

    Args:
        tokenizer: of the model; knows how many it takes.
        length: of the whole question and its answer.
        task: what a person wrote of it.
    """
    most = tokenizer.model_max_length
    if length <= most:
        return ""
    return f"the question has {length} tokens, the model takes {most}: shorten the task text of {len(task)} characters"


def not_an_lrm(name: str, what: str, mode: str) -> ValueError:
    """Return the error of weights of the baseline ``mode`` that are given for an LRM; ``what`` says what they are."""
    return ValueError(
        f"'{name}' holds {what}, not an LRM; use it in mode '{mode}': mode:={mode} of the reward node, --modes {mode} "
        f"of 'lrm reward openloop', --reward {mode} of 'lrm ppo'; other modes need an LRM or a plain Qwen3-VL"
    )


def public_name(name: str) -> str:
    """Return a model's name as it is shown and compared: of a server's address without who asks and the token."""
    if not name.startswith(("http://", "https://")):
        return name
    parts = urlsplit(name)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/"), "", ""))


def split_load(name: str) -> tuple[str, str]:
    """Return a model's name and how its weights are held: ``runs/lrm?load=4bit`` is ``runs/lrm`` and ``4bit``.

    Raises:
        ValueError: another option, or another value of it.
    """
    from lrm_ros.reward.qwen.quantized import LOADS

    if "?" not in name or name.startswith(("http://", "https://", "openai:")) or given_path(name).is_dir():
        return name, ""
    plain, _, option = name.partition("?")
    key, _, load = option.partition("=")
    if key != "load" or load not in LOADS[1:]:
        raise ValueError(f"model '{name}': '?{option}' is unknown; give ?load= with one of {', '.join(LOADS[1:])}")
    return plain, load


def find_model(name: str) -> Path:
    """Return the folder behind a model name (without ``?load=``); downloads nothing.

    Raises:
        FileNotFoundError: no such folder, and no such name in the local Hugging Face cache.
    """
    if name == "tiny":
        return TINY_FOLDER
    folder = given_path(name)
    if name and folder.is_dir():
        return folder
    if name.count("/") != 1 or name.startswith((".", "/", "~")) or "?" in name:
        raise FileNotFoundError(
            f"model folder '{name}' does not exist; use 'tiny' (shipped), an existing folder, or a Hugging Face name "
            "such as 'Qwen/Qwen3-VL-8B-Instruct'"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, local_files_only=True))
    except LocalEntryNotFoundError:
        raise FileNotFoundError(
            f"model '{name}' is neither a folder nor in the local Hugging Face cache; on a machine with network run "
            f"'hf download {name} --local-dir FOLDER', copy FOLDER here and give its path"
        ) from None
