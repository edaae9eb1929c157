# SPDX-License-Identifier: Apache-2.0
"""Arms without ROS: what any arm is (arm.py), its limits, one module or folder for each kind of arm (so100)."""
