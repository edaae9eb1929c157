# SPDX-License-Identifier: Apache-2.0
"""Print an apt source for bookworm-backports made from the machine's own sources (used by setup.sh on Debian 12).

Reads the ``*.sources`` (deb822) and ``*.list`` (one line) files of the folder given as the only argument and copies the
address and the key of the entry that serves the suite ``bookworm``: a mirror set up for the machine stays the one used.
"""

import re
import sys
from pathlib import Path


def backports(folder: Path) -> str:
    """Return the deb822 text of the backports source.

    Raises:
        SystemExit: no entry of the folder serves Debian's suite bookworm.
    """
    for path in sorted(folder.glob("*.sources")):
        for entry in re.split(r"\n\s*\n", path.read_text()):
            fields = dict(re.findall(r"^([A-Za-z-]+):[ \t]*(.+(?:\n[ \t].+)*)", entry, re.MULTILINE))
            if "bookworm" in fields.get("Suites", "").split() and fields.get("Enabled", "yes") != "no":
                return source(fields["URIs"], fields.get("Signed-By", ""))
    for path in sorted(folder.glob("*.list")):
        for options, uri in re.findall(r"^deb\s+(\[[^]]*\]\s+)?(\S+)\s+bookworm\s", path.read_text(), re.MULTILINE):
            key = re.search(r"signed-by=(\S+?)[\s\]]", options)
            return source(uri, key.group(1) if key else "")
    sys.exit(f"no entry for Debian's suite bookworm in {folder}; add bookworm-backports to apt's sources by hand")


def source(uris: str, signed_by: str) -> str:
    """Return one deb822 entry."""
    lines = ["Types: deb", f"URIs: {uris}", "Suites: bookworm-backports", "Components: main"]
    return "\n".join(lines + ([f"Signed-By: {signed_by}"] if signed_by else [])) + "\n"


if __name__ == "__main__":
    sys.stdout.write(backports(Path(sys.argv[1])))
