# SPDX-License-Identifier: Apache-2.0
"""LeRobot's robots and teleoperators by their types: configuration classes, and options as words."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import pkgutil
from collections.abc import Collection, Mapping
from enum import Enum
from typing import Any

from lrm_ros.config_files import yaml_value

ROBOTS, TELEOPERATORS = "robots", "teleoperators"  # LeRobot's packages
_BASES = {ROBOTS: "RobotConfig", TELEOPERATORS: "TeleoperatorConfig"}


def config_class(family: str, kind: str, where: str) -> Any:
    """Return LeRobot's configuration class of a type; what its modules define is known once they are imported.

    Args:
        family: ``ROBOTS`` or ``TELEOPERATORS``.
        kind: the type, e.g. ``so101_follower``.
        where: our setting that names it, for the message.

    Raises:
        ValueError: there is none.
    """
    from lerobot.utils.import_utils import register_third_party_plugins

    package = importlib.import_module(f"lerobot.{family}")
    base = getattr(package, _BASES[family])
    known = base.get_known_choices()
    if kind not in known:
        modules = [module.name for module in pkgutil.iter_modules(package.__path__)]
        # The likely one first: all of them take 10 s.
        for module in difflib.get_close_matches(kind, modules, len(modules), 0.0):
            with contextlib.suppress(ImportError):  # of a device whose own library is not here
                importlib.import_module(f"lerobot.{family}.{module}")
            if kind in (known := base.get_known_choices()):
                return known[kind]
        register_third_party_plugins()
        known = base.get_known_choices()
    if kind not in known:
        raise ValueError(
            f"LeRobot knows no {family.removesuffix('s')} '{kind}'; {where} is one of {', '.join(sorted(known))}"
        )
    return known[kind]


def options_of(words: str, kind: str, known: Mapping[str, Any], ours: Collection[str], where: str) -> dict[str, Any]:
    """Return a driver's options from words NAME=VALUE.

    Args:
        words: separated by spaces; values as in YAML.
        kind: the driver's type, for messages.
        known: name -> field of its configuration class.
        ours: names that are set otherwise.
        where: our setting that holds the words, for messages.

    Raises:
        ValueError: a word of another form, or no option of this type.
    """
    options: dict[str, Any] = {}
    for word in words.split():
        name, equals, text = word.partition("=")
        if not equals or name not in known or name in ours:
            free = ", ".join(sorted(known.keys() - set(ours) - {"cameras"}))
            raise ValueError(f"{where}: '{word}' is no option of '{kind}'; NAME=VALUE of {free}")
        if name == "cameras":
            raise ValueError(f"{where}: the arm's driver gets no cameras; a camera node publishes each")
        try:
            value, default = yaml_value(text), known[name].default
        except ValueError as error:
            raise ValueError(f"{where}: option '{word}': {error}") from error
        options[name] = type(default)(value) if isinstance(default, Enum) else value
    return options
