# SPDX-License-Identifier: Apache-2.0
"""What a person moves the arm with: input devices, no arms."""
