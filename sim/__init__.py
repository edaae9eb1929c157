# SPDX-License-Identifier: Apache-2.0
"""The twin: ManiSkill worlds of the arm, scripted behaviours, and the node that speaks the robot's topics."""
