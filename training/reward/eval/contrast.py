# SPDX-License-Identifier: Apache-2.0
"""Contrast sets: does a reward model read the instruction? One picture, minimal pairs of texts, labels from the state.

The texts of a picture differ in one thing from the episode's own instruction (``lrm_ros.sim.instructions``); for each
the simulator's state says how far it is. In a pair of the own text and another one of which one is done, the done one
must have the higher p(done); where progress differs by 0.3 or more, the further one the higher progress. Equal answers
count half: a model that does not read has 50 %. Other wordings of the own text must change nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrm_ros.progress import progress_bar
from lrm_ros.reward.models import RewardModel
from lrm_ros.sim.instructions import KINDS
from lrm_ros.training.reward.data.sources.episode import BadEpisode, Entry
from lrm_ros.training.reward.eval.blind import blind_images, blind_task
from lrm_ros.training.reward.eval.metrics import bootstrap, roc_auc
from lrm_ros.types import Frame, RewardQuery, Unscored

FRAMES = 4  # of an episode: the first, the last, and others drawn
PROGRESS_GAP = 0.3  # smallest difference of progress in a pair
FALSE_ALARMS = 0.05  # share of what is not done that may be called done where found states are counted
_BATCH = 64


@dataclass(frozen=True)
class ContrastSet:
    """Pictures and what is asked of each.

    Attributes:
        images: (F, H, W, 3) uint8 of each picture, maybe of several sizes.
        picture: (N,) which picture a row asks about.
        texts: (N,) the text of a row.
        kinds: (N,) its kind, of ``lrm_ros.sim.instructions.KINDS``.
        first: (N,) bool, the first wording.
        sources: (N,) name of the source.
        episode: (N,) number of the episode.
        progress: (N,) label in [0, 1] for this text; NaN: not known.
        done: (N,) label 1 or 0 for this text; NaN: not known.
    """

    images: Sequence[NDArray[np.uint8]]
    picture: NDArray[np.int64]
    texts: NDArray
    kinds: NDArray
    first: NDArray[np.bool_]
    sources: NDArray
    episode: NDArray[np.int64]
    progress: NDArray[np.float64]
    done: NDArray[np.float64]


@dataclass(frozen=True)
class Answers:
    """A model's answers to the rows of a contrast set: progress (N,) in [0, 1] and p(done) (N,)."""

    progress: NDArray[np.float64]
    done: NDArray[np.float64]


def make_contrast_set(entries: Iterable[Entry], seed: int = 0, frames: int = FRAMES) -> ContrastSet:
    """Return the contrast set of generated episodes; those that name no other instructions are left out.

    Args:
        entries: of ``lrm_ros.training.reward.data.sources.generated.read_generated``.
        seed: draws the pictures of an episode.
        frames: pictures of an episode, the first and the last among them.

    Raises:
        ValueError: no episode says what else could be asked.
    """
    rng = np.random.default_rng(seed)
    images: list[NDArray[np.uint8]] = []
    rows: list[tuple[int, str, str, bool, str, int, float, float]] = []
    for number, entry in enumerate(entries):
        try:
            episode = entry.open()
        except BadEpisode:
            continue
        if episode.asked is None:
            continue
        inner = rng.permutation(np.arange(1, episode.length - 1))[: max(0, frames - 2)]
        chosen = sorted({0, episode.length - 1, *inner.tolist()})
        for index, image in zip(chosen, episode.read(chosen), strict=True):
            for instruction, (progress, done) in zip(
                episode.asked.instructions, episode.asked.labels[index].tolist(), strict=True
            ):
                wordings = instruction.wordings if instruction.kind == "own" else instruction.wordings[:1]
                for place, text in enumerate(wordings):
                    rows.append((len(images), text, instruction.kind, place == 0, entry.source, number, progress, done))
            images.append(image)
    if not rows:
        raise ValueError(
            "no episode says what else could be asked of its scene; make shards that do with 'python -m "
            "lrm_ros.training.reward.data.generate' or 'python -m lrm_ros.sim.twin.generate'"
        )
    picture, texts, kinds, first, sources, episodes, progress_labels, done_labels = zip(*rows, strict=True)
    return ContrastSet(
        images,
        np.array(picture),
        np.array(texts, object),
        np.array(kinds, object),
        np.array(first),
        np.array(sources, object),
        np.array(episodes),
        np.array(progress_labels, float),
        np.array(done_labels, float),
    )


def ask(
    model: RewardModel, contrast: ContrastSet, readout: str = "forward", blind: str = "", name: str = ""
) -> Answers:
    """Return a model's answers to every row.

    Args:
        model: the reward model.
        contrast: pictures and texts.
        readout: ``forward`` or ``generate``.
        blind: what the model was trained without, of ``lrm_ros.training.reward.eval.blind.BLIND``; empty: nothing.
        name: for the progress bar.

    Raises:
        RuntimeError: a query got no answer.
    """
    values: dict[str, list[float]] = {"progress": [], "completion": []}
    with progress_bar(2 * len(contrast.texts), f"contrast {name}".strip(), "query") as bar:
        for at in range(0, len(contrast.texts), _BATCH):
            rows = range(at, min(at + _BATCH, len(contrast.texts)))
            shown = {
                number: Frame(number, "camera", blind_images(contrast.images[number], blind))
                for number in {int(contrast.picture[row]) for row in rows}
            }
            for head, answered in values.items():
                queries = [
                    RewardQuery(blind_task(contrast.texts[row], blind), head, (shown[int(contrast.picture[row])],))
                    for row in rows
                ]
                for answer in model.score(queries, readout):
                    if isinstance(answer, Unscored):
                        raise RuntimeError(f"head '{head}' gave no answer: {answer.reason}")
                    answered.append(answer.value)
                bar.update(len(queries))
    return Answers(np.array(values["progress"]), np.array(values["completion"]))


def _pairs(contrast: ContrastSet) -> NDArray[np.int64]:
    """Return (own, other) rows (M, 2): first wordings about one picture."""
    own = {int(contrast.picture[row]): row for row in np.flatnonzero(contrast.first & (contrast.kinds == "own"))}
    others = np.flatnonzero(contrast.first & (contrast.kinds != "own"))
    return np.array([(own[int(contrast.picture[row])], row) for row in others], np.int64).reshape(-1, 2)


def _right(pairs: NDArray, label: NDArray, answer: NDArray) -> NDArray[np.float64]:
    """Return 1 where the answers to a pair are in the order of its labels, 0.5 where they are equal."""
    a, b = pairs.T
    return (np.sign(answer[a] - answer[b]) * np.sign(label[a] - label[b]) + 1) / 2


def contrast_metrics(contrast: ContrastSet, answers: Answers, rounds: int = 0) -> dict[str, Any]:
    """Return what :func:`_metrics` returns for all rows, and for each source (``sources``).

    Args:
        contrast: pictures, texts and labels.
        answers: a model's.
        rounds: bootstrap rounds, over episodes, for the interval ``pairs_ci95``; 0: none.
    """
    found = _metrics(contrast, answers, np.ones(len(contrast.texts), bool), rounds)
    found["sources"] = {
        source: _metrics(contrast, answers, contrast.sources == source, rounds)
        for source in sorted(set(contrast.sources))
    }
    return found


def _metrics(contrast: ContrastSet, answers: Answers, chosen: NDArray[np.bool_], rounds: int) -> dict[str, Any]:
    """Return the metrics of some rows; ``None`` where one is not defined.

    Returns:
        ``pairs`` and ``progress_pairs``: share of pairs in the right order (p(done), progress), with their numbers;
        ``kinds``: the same and ``roc_auc`` of p(done) over the pairs' rows, by kind; ``found``: share of the done
        states of the own texts that are above what 5 % of their states that are not done reach, ``found_any`` of all
        texts; ``paraphrase``: mean |change of p(done)| by another wording.
    """
    pairs = _pairs(contrast)
    pairs = pairs[chosen[pairs[:, 1]]]
    own, other = pairs.T
    with np.errstate(invalid="ignore"):
        clear = pairs[np.abs(contrast.done[own] - contrast.done[other]) == 1]
        apart = pairs[np.abs(contrast.progress[own] - contrast.progress[other]) >= PROGRESS_GAP]
    by_done, by_progress = (
        _right(clear, contrast.done, answers.done), _right(apart, contrast.progress, answers.progress)
    )  # fmt: skip
    kinds: dict[str, dict[str, Any]] = {}
    for kind in KINDS[1:]:
        mine, near = contrast.kinds[clear[:, 1]] == kind, contrast.kinds[apart[:, 1]] == kind
        if not mine.any() and not near.any():
            continue
        rows = clear[mine].flatten()
        kinds[kind] = {
            "pairs": _mean(by_done[mine]),
            "n": int(mine.sum()),
            "progress_pairs": _mean(by_progress[near]),
            "progress_n": int(near.sum()),
            "roc_auc": roc_auc(contrast.done[rows] == 1, answers.done[rows]) if len(rows) else None,
        }
    first = chosen & contrast.first
    wordings = np.flatnonzero(chosen & ~contrast.first & (contrast.kinds == "own"))
    start = {int(contrast.picture[row]): row for row in np.flatnonzero(first & (contrast.kinds == "own"))}
    change = np.array(
        [abs(answers.done[row] - answers.done[start[int(contrast.picture[row])]]) for row in wordings], float
    )
    found: dict[str, Any] = {
        "pairs": _mean(by_done),
        "n": len(clear),
        "progress_pairs": _mean(by_progress),
        "progress_n": len(apart),
        "kinds": kinds,
        "found": found_states(contrast.done, answers.done, first & (contrast.kinds == "own")),
        "found_any": found_states(contrast.done, answers.done, first),
        "paraphrase": _mean(change),
        "paraphrase_n": len(change),
        "pictures": len(start),
    }
    if rounds and len(clear):
        found["pairs_ci95"] = bootstrap(
            contrast.episode[clear[:, 1]], lambda draw: float(by_done[draw].mean()), rounds=rounds
        )
    return found


def found_states(done: NDArray, answer: NDArray, chosen: NDArray[np.bool_]) -> float | None:
    """Return the share of done states whose p(done) is above that of all but 5 % of those not done.

    Args:
        done: (N,) 1, 0, or NaN.
        answer: (N,) p(done).
        chosen: (N,) which rows.

    Returns:
        ``None`` if there is no row of one of the two.
    """
    yes, no = answer[chosen & (done == 1)], answer[chosen & (done == 0)]
    if not len(yes) or not len(no):
        return None
    return float((yes > np.quantile(no, 1 - FALSE_ALARMS)).mean())


def _mean(values: NDArray) -> float | None:
    return float(values.mean()) if len(values) else None


def contrast_table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a table for a terminal: a row for each kind and the totals, a column for each model.

    Args:
        found: name of a model -> what :func:`contrast_metrics` returned.
    """
    names = list(found)
    lines = [f"{'pairs right':24s}" + "".join(f"{name:>18s}" for name in names)]

    def line(title: str, values: Iterable[float | None]) -> None:
        lines.append(
            f"{title:24s}" + "".join(f"{'-' if value is None else format(value, '.3f'):>18s}" for value in values)
        )

    kinds = dict.fromkeys(kind for part in found.values() for kind in part["kinds"])
    for kind in kinds:
        line(f"  {kind}", (part["kinds"].get(kind, {}).get("pairs") for part in found.values()))
    titles = {
        "pairs": "all kinds",
        "progress_pairs": "by progress",
        "found": "done found at 5 %",
        "found_any": "  of any text",
        "paraphrase": "change by wording",
    }
    for key, title in titles.items():
        line(title, (part[key] for part in found.values()))
    for source in dict.fromkeys(source for part in found.values() for source in part["sources"]):
        line(f"{source}", (part["sources"][source]["pairs"] for part in found.values()))
    return "\n".join(lines)
