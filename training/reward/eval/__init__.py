# SPDX-License-Identifier: Apache-2.0
"""How good a reward model is: on labelled keyframes, and along what policies do."""
