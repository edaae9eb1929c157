# SPDX-License-Identifier: Apache-2.0
"""Which key of a terminal moves what, and what is told about them."""

from __future__ import annotations

JOINT_KEYS = ("1q", "2w", "3e", "4r", "5t", "6y")  # more and less, one pair for each joint before the gripper
CARTESIAN_KEYS = {"i": (0, 1), "k": (0, -1), "j": (1, 1), "l": (1, -1), "u": (2, 1), "m": (2, -1)}
ARROWS = {"\x1b[A": "i", "\x1b[B": "k", "\x1b[D": "j", "\x1b[C": "l", "\x1b[5~": "u", "\x1b[6~": "m"}
HELP = """\
joints   {joints}   (more/less)
gripper  o open  c close
place    i/k forward/back  j/l left/right  u/m up/down   (arrows, page up/down)
episode  s start  g success  f failure  a again (discard, start anew)  d discard  n or ENTER next (start, success)
rollout  p takes over from the policy, or gives back (node with rollout:=true)
stop     SPACE stops the arm (e-stop); release it in another terminal: lrm estop --release
other    h this help  x quit"""
