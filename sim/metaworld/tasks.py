# SPDX-License-Identifier: Apache-2.0
"""Instructions of Meta-World's tasks, with the distance from which each counts as done."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """A Meta-World task.

    Attributes:
        instructions: instructions that mean the same; one is drawn for each episode.
        enough: ``info["obj_to_target"]`` from which the task is done (Farama-Foundation/Metaworld:
            metaworld/envs/sawyer_*_v3.py, ``evaluate_state``).
        reach: whether the hand has to reach an object first.
        springs: whether it springs back when the hand stops pressing, so that the policy goes on when the task is done.
    """

    instructions: tuple[str, ...]
    enough: float
    reach: bool = True
    springs: bool = False


TASKS = {
    "basketball-v3": Task(("dunk the basketball into the basket", "put the orange ball into the hoop"), 0.05),
    "bin-picking-v3": Task(
        ("move the green block from the left bin to the right bin", "pick the block and place it into the other bin"),
        0.05,
    ),
    "button-press-v3": Task(("press the red button", "push the button in"), 0.02),
    "button-press-topdown-v3": Task(("press the red button from the top", "push the button down"), 0.024),
    "button-press-wall-v3": Task(("press the button behind the wall", "reach over the wall and push the button"), 0.03),
    "coffee-button-v3": Task(("press the button of the coffee machine", "push the button on the coffee maker"), 0.02),
    "coffee-pull-v3": Task(("pull the mug away from the coffee machine", "move the mug to the target spot"), 0.07),
    "coffee-push-v3": Task(("push the mug under the coffee machine", "slide the mug to the coffee maker"), 0.07),
    "dial-turn-v3": Task(("turn the dial", "rotate the dial by half a turn"), 0.05),
    "door-close-v3": Task(("close the door", "push the door shut"), 0.08),
    "door-lock-v3": Task(("lock the door by turning the lock", "turn the lock of the door down"), 0.02),
    "door-open-v3": Task(("open the door", "pull the door open"), 0.08),
    "door-unlock-v3": Task(("unlock the door", "turn the lock of the door to open it"), 0.02),
    "drawer-close-v3": Task(("close the drawer", "push the drawer in"), 0.065),
    "drawer-open-v3": Task(("open the drawer", "pull the drawer out"), 0.03),
    "faucet-close-v3": Task(("close the faucet", "turn the handle of the faucet to shut it"), 0.07),
    "faucet-open-v3": Task(("open the faucet", "turn the handle of the faucet on"), 0.07),
    "hand-insert-v3": Task(("put the block into the hole in the table", "push the brown block down the hole"), 0.05),
    "handle-press-side-v3": Task(
        ("press the handle down from the side", "push the handle on the side down"), 0.02, springs=True
    ),
    "handle-pull-side-v3": Task(("pull the handle up from the side", "lift the handle on the side"), 0.08),
    "handle-pull-v3": Task(("pull the handle up", "lift the handle"), 0.05),
    "peg-insert-side-v3": Task(("insert the peg into the hole", "put the green peg into the box sideways"), 0.07),
    "peg-unplug-side-v3": Task(("unplug the peg from the box", "pull the peg out of the hole"), 0.07),
    "pick-out-of-hole-v3": Task(("pick the puck out of the hole", "lift the puck out of the hole to the target"), 0.07),
    "pick-place-v3": Task(("pick up the red puck and bring it to the target", "lift the puck to the goal"), 0.07),
    "pick-place-wall-v3": Task(
        ("lift the puck over the wall to the target", "carry the red puck over the wall to the goal"), 0.07
    ),
    "plate-slide-v3": Task(("slide the plate into the cabinet", "push the plate into the net"), 0.07),
    "plate-slide-back-v3": Task(("slide the plate back out of the cabinet", "pull the plate back out"), 0.07),
    "plate-slide-side-v3": Task(("slide the plate sideways into the cabinet", "push the plate to the side"), 0.07),
    "plate-slide-back-side-v3": Task(
        ("slide the plate sideways out of the cabinet", "move the plate out to the side"), 0.07
    ),
    "push-v3": Task(("push the red puck to the target", "slide the puck to the goal"), 0.05),
    "push-wall-v3": Task(("push the puck around the wall to the target", "move the puck past the wall"), 0.07),
    "reach-v3": Task(("reach the target point", "move the hand to the red point"), 0.05, reach=False),
    "reach-wall-v3": Task(("reach the target point behind the wall", "move the hand over the wall"), 0.05, reach=False),
    "shelf-place-v3": Task(("put the block on the shelf", "pick up the blue block and place it on the shelf"), 0.07),
    "soccer-v3": Task(("kick the ball into the goal", "push the soccer ball into the goal"), 0.07),
    "stick-push-v3": Task(
        ("push the thermos with the stick", "take the blue stick and push the bottle to the target with it"), 0.12
    ),
    "sweep-into-v3": Task(("sweep the block into the hole", "push the block into the hole in the table"), 0.05),
    "sweep-v3": Task(("sweep the block off the table", "push the block off the table"), 0.05),
    "window-close-v3": Task(("close the window", "slide the window shut"), 0.05),
    "window-open-v3": Task(("open the window", "slide the window open"), 0.05),
}
