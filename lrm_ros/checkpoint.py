# SPDX-License-Identifier: Apache-2.0
"""A policy's folder as LeRobot leaves it: is it one, and for which robot was it made: joints, order, units, cameras.

LeRobot's files tell shapes and camera names. Order and units of the joints are in ``contract.json``: in the folder,
else in the data set that the policy was trained on, if that is still where ``train_config.json`` says. Else somebody
must say so: a policy that answers in degrees must not move an arm as if in rad.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lrm_ros.config import RobotContract
from lrm_ros.contract import CONTRACT_FILE, contract_differences, implausible, joint_names, load_contract

FILES = ("config.json", "model.safetensors", "policy_preprocessor.json", "policy_postprocessor.json")
# Where lerobot-train puts them, below the folder of a run, of its checkpoints and of one of them.
_INSIDE = ("pretrained_model", "last/pretrained_model", "checkpoints/last/pretrained_model")
_NUMBERED = ("[0-9]*/pretrained_model", "checkpoints/[0-9]*/pretrained_model")  # a copy has no link "last"


def require_checkpoint(checkpoint: str | Path) -> Path:
    """Return a policy's folder.

    Raises:
        FileNotFoundError: there is none, or it lacks a file; names the folder inside it that has them all.
    """
    folder = Path(checkpoint)
    if not folder.is_dir():
        raise FileNotFoundError(f"policy checkpoint '{checkpoint}' is no folder; train one with 'lrm finetune'")
    for name in FILES:
        if not (folder / name).is_file():
            inside = [folder / part for part in _INSIDE]
            inside += [path for pattern in _NUMBERED for path in sorted(folder.glob(pattern), reverse=True)]
            found = next((path for path in inside if (path / name).is_file()), None)
            cure = f"give '{found}'" if found else "give LeRobot's pretrained_model folder itself, with its processors"
            raise FileNotFoundError(f"policy checkpoint '{checkpoint}' has no {name}; {cure}")
    return folder


def observed_steps(checkpoint: str | Path) -> int:
    """Return how many control steps a policy looks at, the present one included; 1 where nothing says so."""
    return int(_read(Path(checkpoint) / "config.json").get("n_obs_steps", 1))


def contract_file(checkpoint: str | Path) -> Path:
    """Return where the ``contract.json`` of a policy is: its own, else that of the data set it was trained on.

    Raises:
        FileNotFoundError: neither has one.
    """
    folder = Path(checkpoint)
    own = folder / CONTRACT_FILE
    if own.is_file() or not folder.is_dir():
        return own
    root = _data_set(require_checkpoint(folder))
    if root is None or not (root / CONTRACT_FILE).is_file():
        raise FileNotFoundError(
            f"policy checkpoint '{checkpoint}' has no {CONTRACT_FILE}, nor has the data set it was trained on "
            f"({_named(root)}): nothing says order and units of its joints; copy that file into it"
        )
    return root / CONTRACT_FILE


def policy_contract(checkpoint: str | Path) -> RobotContract:
    """Return the robot contract of a policy: what is in :func:`contract_file`.

    Raises:
        FileNotFoundError: no such folder, or there is none.
        ValueError: the file is damaged.
    """
    return load_contract(contract_file(checkpoint).parent)


def check_robot(folder: Path, contract: RobotContract, units: str) -> str:
    """Check that a policy was made for the robot at hand.

    Args:
        folder: of the policy.
        contract: the robot.
        units: ``"rad"``: where nothing else says so, joints are in the contract's order, in rad; ``""``: refuse.

    Returns:
        What was taken for granted, for people; empty if a contract says it all.

    Raises:
        ValueError: another robot, other units, or nobody says which.
    """
    own, root = (folder / CONTRACT_FILE).is_file(), _data_set(folder)
    if own or (root is not None and (root / CONTRACT_FILE).is_file()):
        where = "the checkpoint's" if own else f"its data set's, '{root}',"
        if differences := contract_differences(policy_contract(folder), contract):
            raise ValueError(
                f"policy checkpoint '{folder}' was made for another robot: {'; '.join(differences)}. Use a"
                f" checkpoint of this robot, or set the robot contract to the one in {where} {CONTRACT_FILE}"
            )
        note = ""
    elif units == "rad":
        names = _joint_names(root)
        if names and names != list(contract.joints):
            raise ValueError(
                f"policy checkpoint '{folder}' was made for another robot: joints {names} instead of "
                f"{list(contract.joints)}. Use a checkpoint of this robot"
            )
        note = f"policy '{folder}': its joints are taken for {', '.join(contract.joints)}, in rad, as units=rad says"
    else:
        raise ValueError(
            f"nothing says order and units of the joints of policy checkpoint '{folder}': it has no {CONTRACT_FILE},"
            f" nor has the data set it was trained on ({_named(root)}). Copy that file into it; or, if they are "
            f"{', '.join(contract.joints)}, in rad, set units to rad"
        )
    if not own and (reason := _other_units(folder, contract)):
        raise ValueError(
            f"policy checkpoint '{folder}' was not trained in rad: in its training data {reason}. Train it on a data "
            "set in rad ('lrm dataset' writes them)"
        )
    return note


def _other_units(folder: Path, contract: RobotContract) -> str:
    """Say which joint the saved statistics of the actions put far outside its limits; empty if none."""
    from safetensors.numpy import load_file

    for path in folder.glob("policy_postprocessor_step_*.safetensors"):
        try:
            found = load_file(path)
        except Exception:  # a damaged file is told of when it is loaded
            continue
        for name in ("action.mean", "action.min", "action.max"):
            values = found[name].ravel().tolist() if name in found else []
            if len(values) == len(contract.joints) and (reason := implausible(values, contract)):
                return reason.partition(":")[0]
    return ""


def _joint_names(root: Path | None) -> list[str]:
    """Return the names that a data set gives the values of an action, without LeRobot's ending; none if unknown."""
    if root is None:
        return []
    features = _read(root / "meta/info.json").get("features")
    action = features.get("action") if isinstance(features, dict) else None
    return joint_names(action) if isinstance(action, dict) else []


def _data_set(folder: Path) -> Path | None:
    """Return the folder of the data set that a policy was trained on, as ``train_config.json`` says."""
    data_set = _read(folder / "train_config.json").get("dataset")
    root = data_set.get("root") if isinstance(data_set, dict) else None
    return Path(root) if isinstance(root, str) and root else None


def _named(root: Path | None) -> str:
    return f"'{root}'" if root else "its train_config.json names no folder"


def _read(path: Path) -> dict[str, Any]:
    """Return a JSON object of LeRobot's; empty if there is none. A damaged one is told of when the policy is loaded."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}
