# SPDX-License-Identifier: Apache-2.0
"""The twin's shaders draw what SAPIEN's own minimal shaders draw, without their slow first picture."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]


def test_a_process_renders_its_first_picture_at_once() -> None:
    script = (
        "import time; from lrm_ros.sim.twin.world import World; w = World(); w.reset(0);"
        "t = time.process_time(); w.frame(); print(time.process_time() - t)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=TOP, capture_output=True, text=True, check=True)
    assert float(done.stdout.split()[-1]) < 5.0, "SAPIEN computes its look-up table again"


def test_the_shaders_hold_no_look_up_table() -> None:
    from lrm_ros.sim.twin.world import use_software_vulkan

    use_software_vulkan()
    from lrm_ros.sim.render.shaders import quick_shaders

    folder = Path(quick_shaders().shader_pack)
    text = "".join(path.read_text() for path in folder.glob("*.frag"))
    assert "samplerBRDFLUT" not in text and "environmentBRDF(roughness, dotNV)" in text
