# SPDX-License-Identifier: Apache-2.0
"""The SO-100 arm: kinematics, exploration and jogging."""
