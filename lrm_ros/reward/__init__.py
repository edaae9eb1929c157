# SPDX-License-Identifier: Apache-2.0
"""The reward model: what is asked (heads), who answers (models), when and with which frames (engine)."""
