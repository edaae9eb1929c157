# SPDX-License-Identifier: Apache-2.0
"""The policy type ``act_small`` for LeRobot: importing this package registers it with LeRobot.

LeRobot's programs import it by themselves where the distribution of this name is installed; see ``pyproject.toml``.
"""

from lerobot_policy_act_small.configuration_act_small import ActSmallConfig
from lerobot_policy_act_small.modeling_act_small import ActSmallPolicy
from lerobot_policy_act_small.processor_act_small import make_act_small_pre_post_processors

__all__ = ["ActSmallConfig", "ActSmallPolicy", "make_act_small_pre_post_processors"]
