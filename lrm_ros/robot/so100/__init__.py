# SPDX-License-Identifier: Apache-2.0
"""What holds for the SO-100 arm alone: its kinematics, and exploring and jogging with them."""
