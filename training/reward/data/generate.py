# SPDX-License-Identifier: Apache-2.0
"""Generate labelled frames of simulated tasks: ``python -m lrm_ros.training.reward.data.generate``.

The shards are those of ``lrm_ros.sim.twin.generate`` (``shard_0000.npz``: frames, progress, success, episode, kind,
tasks, labels), with the source of each episode beside its task. What else could be asked of the scene stands there, too
(``instructions``: [kind, wordings] of each, ``lrm_ros.sim.instructions``), with the progress and done of each frame in
``labels`` (N, K, 2). The same command keeps finished shards.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from lrm_ros import seeds
from lrm_ros.files import claim_folder, replacing
from lrm_ros.options import number, whole
from lrm_ros.programs import exit_code
from lrm_ros.sim.behaviour import KINDS as BEHAVIOURS
from lrm_ros.sim.instructions import instructions_json, joined_labels
from lrm_ros.sim.maniskill.tasks import TASKS as MANISKILL
from lrm_ros.sim.metaworld.tasks import TASKS as METAWORLD
from lrm_ros.sim.seen import joined_seen, nothing_seen
from lrm_ros.sim.tabletop.fixture_scenes import FAMILIES as FIXTURES
from lrm_ros.sim.tabletop.scenes import FAMILIES
from lrm_ros.sim.twin.expert import KINDS as TWIN_KINDS
from lrm_ros.sim.twin.expert import MISTAKES
from lrm_ros.training.reward.data.sources.episode import BadEpisode, Entry
from lrm_ros.training.reward.data.sources.maniskill import play_maniskill
from lrm_ros.training.reward.data.sources.metaworld import play_metaworld
from lrm_ros.training.reward.data.sources.rollouts import SHUFFLED
from lrm_ros.training.reward.data.sources.tabletop import play_fixtures, play_tabletop
from lrm_ros.training.reward.data.sources.twin import SOURCES as TWIN
from lrm_ros.training.reward.data.sources.twin import play_twin

SHARD = 100  # episodes a file
# Tasks that no training episode may come from: what the model says of them is zero-shot. Those for tuning have been
# looked at while models were made, and choose settings.
TUNING_HELD_OUT = (
    "maniskill/StackCube-v1",
    "maniskill/PullCube-v1",
    "metaworld/button-press-topdown-v3",
    "metaworld/faucet-close-v3",
)
# Those for the final figures are asked once a model that ships. They were drawn before any training without them, from
# the other names in alphabetical order by numpy's default_rng(19): one of ManiSkill's with a Panda, five of
# Meta-World's. A model that was trained before has seen them.
FINAL_HELD_OUT = (
    "maniskill/PlaceSphere-v1",
    "metaworld/stick-push-v3",
    "metaworld/window-close-v3",
    "metaworld/drawer-close-v3",
    "metaworld/faucet-open-v3",
    "metaworld/door-open-v3",
)
HELD_OUT = (*TUNING_HELD_OUT, *FINAL_HELD_OUT)
SOURCES = (
    *TWIN,
    *(f"maniskill/{task}" for task in MANISKILL),
    *(f"tabletop/{family}" for family in FAMILIES),
    *(f"fixtures/{family}" for family in FIXTURES),
    *(f"metaworld/{task}" for task in METAWORLD),
)
# Index of a behaviour in the shards' array ``kind``; the first are lrm_ros.sim.twin.generate's.
KINDS = (*TWIN_KINDS, "failed", *MISTAKES, SHUFFLED)


def play_source(name: str, episodes: int, seed: int, keep: float = 1.0, kind: str = "") -> Iterator[Entry]:
    """Return the entries of a generated source.

    Args:
        name: one of ``SOURCES``.
        episodes: how many.
        seed: first seed, >= 0.
        keep: share of the frames to keep; the twin keeps all.
        kind: the behaviour of all episodes; empty: drawn, which is all that the twin does.

    Raises:
        ValueError: unknown source or kind.
    """
    simulator, _, task = name.partition("/")
    if name in TWIN:
        return play_twin(episodes, seed, name, kind == SHUFFLED)
    if simulator == "maniskill":
        return play_maniskill(task, episodes, seed, keep, kind)
    if simulator == "tabletop":
        return play_tabletop(task, episodes, seed, keep, kind)
    if simulator == "fixtures":
        return play_fixtures(task, episodes, seed, keep, kind)
    if simulator == "metaworld":
        return play_metaworld(task, episodes, seed, keep, kind)
    raise ValueError(f"no generated source '{name}'; there are: {', '.join(SOURCES)}")


def generate(
    names: Sequence[str], out: Path, episodes: int, seed: int = seeds.GENERATED.first, keep: float = 1.0, kind: str = ""
) -> Counter[str]:
    """Write shards of labelled episodes; finished shards are kept when it is called again with the same arguments.

    Args:
        names: sources, of ``SOURCES``; episodes are numbered through all of them.
        out: folder of the shards.
        episodes: how many of each source, unusable ones included.
        seed: first seed of each source.
        keep: share of the frames to keep; the twin keeps all.
        kind: the behaviour of all episodes; empty: drawn, which is all that the twin does.

    Returns:
        How many episodes of each kind were written, and ``"frames"``; unusable ones are counted by their reason.

    Raises:
        ValueError: unknown source, or the folder holds shards of other settings.
    """
    settings = {"source": list(names), "episodes": episodes, "seed": seed, "keep": keep, "kind": kind}
    claim_folder(out, settings, "*.npz", "shards")
    numbered = enumerate(itertools.chain.from_iterable(play_source(name, episodes, seed, keep, kind) for name in names))
    start, total = time.monotonic(), Counter[str]()
    for shard in range(-(-len(names) * episodes // SHARD)):
        entries = list(itertools.islice(numbered, SHARD))
        path = out / f"shard_{shard:04d}.npz"
        if not path.exists():
            total += _write(path, entries)
            print(f"{path.name}: {total['frames']} frames, {time.monotonic() - start:.0f} s", flush=True)
    return total


def _write(path: Path, entries: list[tuple[int, Entry]]) -> Counter[str]:
    """Simulate some episodes and write them to a file."""
    columns: dict[str, list[np.ndarray]] = {name: [] for name in ("frames", "progress", "success", "episode", "kind")}
    tasks, labels, seen, counts = [], [], [], Counter[str]()
    for index, entry in entries:
        try:
            episode = entry.open()
        except BadEpisode as reason:
            counts[f"left out: {reason}"] += 1
            continue
        if episode.progress is None or episode.done is None:
            raise ValueError(f"episode {entry.episode_id} of source '{entry.source}' has no labels from the state")
        count = episode.length
        columns["frames"].append(np.stack(list(episode.frames())))
        columns["progress"].append(episode.progress)
        columns["success"].append(episode.done.astype(np.uint8))
        columns["episode"].append(np.full(count, index, np.int32))
        columns["kind"].append(np.full(count, KINDS.index(episode.kind), np.int8))
        info = {"episode": index, "task": episode.task, "kind": episode.kind, "source": entry.source}
        if episode.asked is not None:
            info["instructions"] = instructions_json(episode.asked.instructions)
        if episode.seen is not None:
            info["things"] = list(episode.seen.things)
        seen.append(episode.seen or nothing_seen(count))
        labels.append(np.zeros((count, 0, 2)) if episode.asked is None else episode.asked.labels)
        tasks.append(json.dumps(info | {"episode_id": entry.episode_id, "fps": round(episode.fps, 3)}))
        counts.update({episode.kind: 1, "frames": count})
    if tasks:
        merged = {name: np.concatenate(parts) for name, parts in columns.items()}
        merged["labels"] = joined_labels(labels)
        merged["cells"], merged["where"] = joined_seen(seen)
        with replacing(path) as stream:
            np.savez_compressed(stream, allow_pickle=False, tasks=np.array(tasks), **merged)
    return counts


def main(argv: list[str] | None = None) -> int:
    """Command line: ``python -m lrm_ros.training.reward.data.generate --source maniskill/PickCube-v1 --out DIR``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True, help="folder for the shards")
    parser.add_argument(
        "--source",
        action="append",
        required=True,
        metavar="NAME",
        help="a source, several times for several; 'train': all but those held out, 'others': these without the twin, "
        "'tabletop', 'fixtures': their families, 'zero-shot': those held out for the final figures, "
        f"'zero-shot-tuning': those for choosing settings. Sources: {', '.join(SOURCES)}",
    )
    parser.add_argument("--episodes", type=whole(1), default=80, help="of each source")
    parser.add_argument(
        "--seed", type=whole(0), default=seeds.GENERATED.first, help="first of each source (default %(default)s)"
    )
    parser.add_argument(
        "--keep", type=number(above=True), default=1.0, help="share of the frames to keep; the twin keeps all"
    )
    parser.add_argument("--kind", default="", help=f"behaviour of all episodes but the twin's: {', '.join(BEHAVIOURS)}")
    args = parser.parse_args(argv)
    if warning := seeds.held_out_warning(args.seed, args.episodes):
        print(f"warning: {warning}", file=sys.stderr)
    trained = [name for name in SOURCES if name not in HELD_OUT]
    groups = {
        "train": trained,
        "others": [name for name in trained if name not in TWIN],
        **{room: [name for name in trained if name.startswith(f"{room}/")] for room in ("tabletop", "fixtures")},
        "zero-shot": list(FINAL_HELD_OUT),
        "zero-shot-tuning": list(TUNING_HELD_OUT),
    }
    names = [name for asked in args.source for name in groups.get(asked, [asked])]
    unknown = [name for name in names if name not in SOURCES]
    if unknown:
        parser.error(f"no generated source '{unknown[0]}'; there are: {', '.join(SOURCES)}")
    try:
        total = generate(names, args.out, args.episodes, args.seed, args.keep, args.kind)
    except ValueError as error:
        parser.exit(exit_code(error), f"lrm_ros.training.reward.data.generate: {error}\n")
    for name, count in sorted(total.items()):
        print(f"{count:8d}  {name}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
