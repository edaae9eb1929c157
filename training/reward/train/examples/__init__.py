# SPDX-License-Identifier: Apache-2.0
"""Examples of the three heads, made of keyframes."""
