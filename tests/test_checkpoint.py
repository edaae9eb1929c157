# SPDX-License-Identifier: Apache-2.0
"""What a policy's folder is, and for which robot, in which units, where no ``contract.json`` of its own says so."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from lrm_ros.checkpoint import contract_file, observed_steps, policy_contract, require_checkpoint
from lrm_ros.config import RobotContract
from lrm_ros.contract import save_contract
from lrm_ros.policy import PolicyRunner
from lrm_ros.training.policy.evaluate import main as evaluate

CONTRACT = RobotContract()
OTHER = dataclasses.replace(CONTRACT, joints=CONTRACT.joints[::-1])


@pytest.fixture
def foreign(small_policy, tmp_path) -> Path:
    """A policy as lerobot-train leaves it, trained on a data set that is not here."""
    folder = tmp_path / "run/checkpoints/000020/pretrained_model"
    shutil.copytree(small_policy, folder)
    (folder / "contract.json").unlink()
    (folder.parents[1] / "last").symlink_to("000020")
    trained_on(folder, tmp_path / "data")
    return folder


def trained_on(folder: Path, root: Path | None) -> None:
    values = json.loads((folder / "train_config.json").read_text())
    values["dataset"]["root"] = None if root is None else str(root)
    (folder / "train_config.json").write_text(json.dumps(values))


def data_set(tmp_path: Path, contract: RobotContract | None = CONTRACT, names: list[str] | None = None) -> None:
    """What is left of the data set that the policy was trained on."""
    (tmp_path / "data/meta").mkdir(parents=True)
    if contract is not None:
        save_contract(contract, tmp_path / "data")
    if names is not None:
        info = {"features": {"action": {"dtype": "float32", "shape": [6], "names": names}}}
        (tmp_path / "data/meta/info.json").write_text(json.dumps(info))


@pytest.mark.parametrize(
    ("given", "meant"),
    [("run", "checkpoints/last"), ("run/checkpoints", "last"), ("run/checkpoints/last", ""),
     ("run/checkpoints/000020", "")],
)  # fmt: skip
@pytest.mark.parametrize("link", [True, False])
def test_a_folder_of_lerobot_train_is_refused_with_the_one_inside_that_is_meant(foreign, tmp_path, given, meant, link):
    if not link:
        (tmp_path / "run/checkpoints/last").unlink()
        meant, given = meant.replace("last", "000020"), given.replace("last", "000020")
        older = tmp_path / "run/checkpoints/000010/pretrained_model"
        shutil.copytree(foreign, older)
    inside = tmp_path / given / meant / "pretrained_model"
    for refused in (require_checkpoint, lambda path: PolicyRunner(path, CONTRACT), policy_contract):
        with pytest.raises(FileNotFoundError, match=r"has no config\.json; give ") as error:
            refused(tmp_path / given)
        assert str(error.value).endswith(f"give '{inside}'") and "\n" not in str(error.value)
    assert require_checkpoint(inside) == inside


def test_the_contract_of_the_data_set_it_was_trained_on_is_the_policys(foreign, tmp_path):
    data_set(tmp_path)
    assert PolicyRunner(foreign, CONTRACT).note == "" and policy_contract(foreign) == CONTRACT
    assert contract_file(foreign) == tmp_path / "data/contract.json"
    with pytest.raises(
        ValueError, match=r"made for another robot: joints .* contract to the one in its data set's"
    ) as e:
        PolicyRunner(foreign, OTHER)
    assert str(tmp_path / "data") in str(e.value)
    save_contract(OTHER, foreign)  # its own one counts
    assert PolicyRunner(foreign, OTHER).note == "" and policy_contract(foreign) == OTHER


@pytest.mark.parametrize("root", [True, False])
def test_without_a_contract_it_is_refused_until_somebody_says_its_units(foreign, tmp_path, root):
    if not root:
        trained_on(foreign, None)
    where = f"'{tmp_path / 'data'}'" if root else "its train_config.json names no folder"
    with pytest.raises(ValueError, match="nothing says order and units of the joints") as error:
        PolicyRunner(foreign, CONTRACT)
    text = str(error.value)
    assert where in text and "shoulder_pan" in text and "set units to rad" in text and "\n" not in text
    note = PolicyRunner(foreign, CONTRACT, units="rad").note
    assert "taken for shoulder_pan, " in note and "in rad" in note and "\n" not in note
    with pytest.raises(FileNotFoundError, match=r"nothing says order and units .* copy that file into it"):
        policy_contract(foreign)


def test_names_of_the_data_set_are_the_order_of_the_joints(foreign, tmp_path):
    data_set(tmp_path, None, [f"{name}.pos" for name in CONTRACT.joints])
    assert PolicyRunner(foreign, CONTRACT, units="rad").note
    shutil.rmtree(tmp_path / "data")
    data_set(tmp_path, None, [f"{name}.pos" for name in OTHER.joints])
    with pytest.raises(
        ValueError, match=r"made for another robot: joints \['gripper', .*Use a checkpoint of this robot"
    ):
        PolicyRunner(foreign, CONTRACT, units="rad")


@pytest.mark.parametrize("statistic", ["action.mean", "action.min", "action.max"])
@pytest.mark.parametrize("said_by", ["units", "data set"])
def test_a_policy_trained_in_degrees_moves_no_arm_whoever_says_rad(foreign, tmp_path, statistic, said_by):
    from safetensors.numpy import load_file, save_file

    if said_by == "data set":
        data_set(tmp_path)
    (path,) = foreign.glob("policy_postprocessor_step_*.safetensors")
    values = load_file(path)
    values[statistic][1] = -90.0
    save_file(values, path)
    with pytest.raises(
        ValueError, match=r"not trained in rad: .* joint shoulder_lift is -90\.0, its limits are .* rad\."
    ):
        PolicyRunner(foreign, CONTRACT, units="rad" if said_by == "units" else "")


def test_how_many_steps_it_looks_at_is_in_its_configuration(foreign, tmp_path):
    assert observed_steps(foreign) == 1 and observed_steps("fake") == 1
    (tmp_path / "config.json").write_text(json.dumps({"type": "diffusion", "n_obs_steps": 2}))
    assert observed_steps(tmp_path) == 2


def test_the_evaluation_through_the_nodes_is_told_the_units_and_in_worlds_needs_a_contract(foreign, capsys):
    with pytest.raises(SystemExit):
        evaluate([str(foreign), "--units", "rad", "--worlds", "2"])
    assert "needs a contract.json" in capsys.readouterr().err
    assert evaluate([str(foreign), "--worlds", "2", "--episodes", "2"]) == 2
    assert "copy that file into it" in capsys.readouterr().err
