# SPDX-License-Identifier: Apache-2.0
"""SAPIEN's minimal shaders without the look-up table whose computation takes 14 s of CPU at the first picture.

The table holds the reflection of the environment map (Karis 2013, "Real Shading in Unreal Engine 4"); it is computed in
every process before the first picture, which a GPU does at once and software Vulkan does not. Lazarov's and Karis's
analytic approximation of it takes its place. Without an environment map, as in the twin, pictures are bit-equal.
"""

import shutil
import tempfile
from pathlib import Path

import sapien
from mani_skill.render.shaders import PREBUILT_SHADER_CONFIGS, ShaderConfig

_LOOKUP = "texture(samplerBRDFLUT, vec2(roughness, dotNV)).xy"
_DECLARATION = "layout(set = {}, binding = 8) uniform sampler2D samplerBRDFLUT;\n"
_FUNCTION = """
// Analytic fit of the split-sum table: Karis 2014, "Physically Based Shading on Mobile", after Lazarov 2013.
vec2 environmentBRDF(float roughness, float dotNV) {
  vec4 r = roughness * vec4(-1, -0.0275, -0.572, 0.022) + vec4(1, 0.0425, 1.04, -0.04);
  return vec2(-1.04, 1.04) * (min(r.x * r.x, exp2(-9.28 * dotNV)) * r.x + r.y) + r.zw;
}
"""
_folder: tempfile.TemporaryDirectory | None = None


def _write(folder: Path) -> None:
    """Copy SAPIEN's own shaders into ``folder`` with the look-up replaced.

    Raises:
        RuntimeError: this SAPIEN's shaders are not the ones this was written for.
    """
    origin = Path(sapien.__file__).parent / "vulkan_shader"
    for name in ("minimal", "common"):
        shutil.copytree(origin / name, folder / name)
    edits = {
        "composite0.frag": {_DECLARATION.format(2): ""},
        "gbuffer.frag": {_DECLARATION.format(3): _FUNCTION, _LOOKUP: "environmentBRDF(roughness, dotNV)"},
    }
    for name, replacements in edits.items():
        path = folder / "minimal" / name
        text = path.read_text(encoding="utf-8")
        for old, new in replacements.items():
            if text.count(old) != 1:
                raise RuntimeError(f"sapien {sapien.__version__}: {name} lacks '{old.strip()}'; use sapien 3.0")
            text = text.replace(old, new)
        path.write_text(text, encoding="utf-8")


def quick_shaders() -> ShaderConfig:
    """Return ManiSkill's ``minimal`` shader configuration on these shaders, for ``CameraConfig(shader_config=...)``."""
    global _folder
    if _folder is None:
        _folder = tempfile.TemporaryDirectory(prefix="lrm_shaders_")
        _write(Path(_folder.name))
    minimal = PREBUILT_SHADER_CONFIGS["minimal"]
    # What ManiSkill sets for the pack of the name 'minimal' only.
    for texture, picture in (
        ("Color", "r8g8b8a8unorm"),
        ("ColorRaw", "r8g8b8a8unorm"),
        ("PositionSegmentation", "r16g16b16a16sint"),
    ):
        sapien.render.set_picture_format(texture, picture)
    return ShaderConfig(
        shader_pack=f"{_folder.name}/minimal",
        texture_names=minimal.texture_names,
        texture_transforms=minimal.texture_transforms,
    )
