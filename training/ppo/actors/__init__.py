# SPDX-License-Identifier: Apache-2.0
"""LeRobot policies as actors of PPO."""
