# SPDX-License-Identifier: Apache-2.0
"""Collect keyframes for reward models from data sets, journals and simulators: ``lrm reward data``.

Every path is one source; generated shards can hold several. Sources give equally many episodes until they are
exhausted. OUT then holds shards (``shard-00000.parquet``, ...) and ``manifest.json``. The same command resumes an
interrupted one. Simulators generate the training tasks; with --zero-shot those held out for evaluation.
"""

from __future__ import annotations

import argparse
import json
import re
import zlib
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from lrm_ros import seeds
from lrm_ros.config_files import real_path
from lrm_ros.options import whole
from lrm_ros.programs import exit_code
from lrm_ros.training.reward.data.keyframes import write_keyframes
from lrm_ros.training.reward.data.sources.episode import Entry
from lrm_ros.training.reward.data.sources.generated import generated_sources, read_generated

PATHS = {
    "lerobot": "a LeRobotDataset, v2.0 to v3.0; the source is named after its folder",
    "libero": "a folder of LIBERO's *_demo.hdf5, or one of them",
    "robocasa": "a folder of RoboCasa's data sets, LeRobot or HDF5",
    "oxe": "an Open X-Embodiment data set: ROOT/NAME/VERSION",
    "journals": "a folder of journals (*.mcap)",
    "hoi4d": "HOI4D's folder of ZY2021080000*, with task_definitions.csv in it",
    "egodex": "EgoDex, or a part of it",
    "roboreward": "a split of RoboReward, e.g. its folder train",
    "robometer": "a folder of data sets in Robometer's form",
}
GENERATED = (
    "a folder of shards of 'python -m lrm_ros.sim.twin.generate' or 'python -m lrm_ros.training.reward.data.generate'"
)
NAMED = ("lerobot", "robocasa", "journals")  # their sources can be given a name
SIMULATORS = ("twin", "maniskill", "metaworld")


def read_source(option: str, path: Path, name: str) -> Iterable[Entry]:
    """Return the entries of a source.

    Args:
        option: one of ``PATHS``.
        path: its data.
        name: name of the source, if the option is one of ``NAMED``.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it cannot be read.
        ImportError: it needs a package that is not installed.
    """
    if option == "lerobot":
        from lrm_ros.training.reward.data.sources.lerobot import read_lerobot

        return read_lerobot(path, source=name)
    if option == "libero":
        from lrm_ros.training.reward.data.sources.libero import read_libero

        return read_libero(path)
    if option == "robocasa":
        from lrm_ros.training.reward.data.sources.robocasa import read_robocasa

        return read_robocasa(path, source=name)
    if option == "oxe":
        from lrm_ros.training.reward.data.sources.oxe import read_oxe

        return read_oxe(path)
    if option == "journals":
        from lrm_ros.training.reward.data.sources.journals import read_journals

        return read_journals(path, source=name)
    if option == "hoi4d":
        from lrm_ros.training.reward.data.sources.hoi4d import read_hoi4d

        return read_hoi4d(path)
    if option == "egodex":
        from lrm_ros.training.reward.data.sources.egodex import read_egodex

        return read_egodex(path)
    if option == "roboreward":
        from lrm_ros.training.reward.data.sources.roboreward import read_roboreward

        return read_roboreward(path)
    from lrm_ros.training.reward.data.sources.robometer import read_robometer

    return read_robometer(path)


def shuffled(entries: Iterable[Entry], buffer_size: int, seed: int) -> Iterator[Entry]:
    """Yield entries through a shuffle buffer of ``buffer_size`` entries (1: in their own order)."""
    rng, waiting = np.random.default_rng(seed), []
    for entry in entries:
        waiting.append(entry)
        if len(waiting) >= buffer_size:
            yield waiting.pop(int(rng.integers(len(waiting))))
    while waiting:
        yield waiting.pop(int(rng.integers(len(waiting))))


def sources_of(args: argparse.Namespace) -> dict[str, Iterable[Entry]]:
    """Return the sources that the command line names.

    Raises:
        FileNotFoundError: one is not there.
        ValueError: one cannot be read, two have the same name, or a simulator has no such task.
        ImportError: one needs a package that is not installed.
    """
    found: dict[str, Iterable[Entry]] = {}

    def add(name: str, entries: Iterable[Entry], buffer_size: int) -> None:
        if name in found:
            raise ValueError(f"two sources are called '{name}'; give NAME=PATH where the option allows it, or one only")
        found[name] = shuffled(entries, buffer_size, zlib.crc32(f"{args.seed} {name}".encode()))

    for option in PATHS:
        for given in getattr(args, option):
            name, path = _named(option, given)
            add(name, read_source(option, path, name), args.shuffle)
    # A folder of generated shards can hold many sources, and several folders the same ones.
    generated: dict[str, list[Iterator[Entry]]] = {}
    for given in args.generated:
        for name in generated_sources(Path(given)):
            generated.setdefault(name, []).append(read_generated(Path(given), name))
    for name, parts in generated.items():
        # A shard is read as a whole, so its episodes stay together; their order is drawn already.
        add(name, chain.from_iterable(parts), 1)
    for path, task in args.robomimic:
        from lrm_ros.training.reward.data.sources.robomimic import read_robomimic

        name = f"robomimic_{real_path(path).with_suffix('').name}"
        add(name, read_robomimic(Path(path), task, source=name), args.shuffle)
    for simulator in SIMULATORS:
        episodes = getattr(args, simulator)
        if episodes:
            from lrm_ros.training.reward.data.generate import HELD_OUT, SOURCES, play_source

            names = [name for name in SOURCES if name.split("/")[0] == simulator]
            names = [name for name in names if (name in HELD_OUT) == args.zero_shot]
            if not names:
                raise ValueError(f"--zero-shot: no task of --{simulator} is held out; leave out --{simulator}")
            first = seeds.GENERATED.take(args.seed, episodes).start
            for name in names:
                add(name, play_source(name, episodes, first), 1)
    return found


def _named(option: str, given: str) -> tuple[str, Path]:
    """Return the name of a source and its path, from ``PATH`` or ``NAME=PATH``."""
    match = re.fullmatch(r"([\w.-]+)=(.+)", given)
    if match and option in NAMED:
        return match[1], Path(match[2])
    path = Path(given)
    if option in ("lerobot", "libero"):
        return real_path(path).name, path
    return (real_path(path).parent.name if option == "oxe" else option), path


def table(manifest: dict[str, Any]) -> str:
    """Return the counts of each source as text."""
    width = max(len(name) for name in [*manifest["counts"], "source"])
    columns = ("episodes", "keyframes", "train", "val", "duplicates")
    lines = [f"{'source':{width}s}" + "".join(f"{name:>12s}" for name in columns) + "  skipped"]
    for name, count in manifest["counts"].items():
        skipped = ", ".join(f"{number} {reason}" for reason, number in sorted(count["skipped"].items()))
        lines.append(f"{name:{width}s}" + "".join(f"{count[key]:12d}" for key in columns) + f"  {skipped or '-'}")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Run ``lrm reward data``."""
    parser = argparse.ArgumentParser(
        prog="lrm reward data", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the keyframes")
    for option, text in PATHS.items():
        metavar = "[NAME=]PATH" if option in NAMED else "PATH"
        parser.add_argument(f"--{option}", action="append", default=[], metavar=metavar, help=text)
    parser.add_argument("--generated", action="append", default=[], metavar="PATH", help=GENERATED)
    parser.add_argument(
        "--robomimic", action="append", default=[], nargs=2, metavar=("PATH", "TASK"), help="robomimic's HDF5, its task"
    )
    for simulator in SIMULATORS:
        parser.add_argument(
            f"--{simulator}", type=whole(0), default=0, metavar="N", help="generate N episodes of each task"
        )
    parser.add_argument("--zero-shot", action="store_true", help="use the simulators' held-out tasks instead")
    parser.add_argument("--per-source", type=whole(1), metavar="N", help="maximum number of episodes of each source")
    parser.add_argument(
        "--shuffle",
        type=whole(1),
        default=1000,
        metavar="N",
        help="shuffle buffer in episodes; 1: the source's order",
    )
    parser.add_argument("--seed", type=whole(0), default=0, help="seed of the shuffle and the simulators' start poses")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the manifest and the throughput to this file")
    args = parser.parse_args(argv)
    settings = {key: value for key, value in vars(args).items() if key not in ("out", "json", "per_source")}
    settings = {key: value for key, value in settings.items() if value or key == "seed"}
    try:
        manifest = write_keyframes(sources_of(args), args.out, args.per_source, {"options": settings})
    except (ValueError, FileNotFoundError, ImportError) as error:
        parser.exit(exit_code(error), f"lrm reward data: {error}\n")
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(manifest, indent=1) + "\n")
    print(table(manifest))
    if manifest["seconds"]:
        print(f"{args.out}: {manifest['seconds']:.0f} s, {manifest['keyframes_per_s']:.0f} keyframes/s")
    else:
        print(f"{args.out}: complete, nothing to do")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
