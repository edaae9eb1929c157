# SPDX-License-Identifier: Apache-2.0
"""Rendering on a CPU: quicker shaders, coarser meshes, and a check that it works."""
