# SPDX-License-Identifier: Apache-2.0
"""The twin: the world of the arm, the toy and the bowl, its scripted behaviours, and its node."""
