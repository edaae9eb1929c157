# SPDX-License-Identifier: Apache-2.0
"""Recover the readable part of an unfinished or damaged journal: ``python -m lrm_ros.record.recover FILE...``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from lrm_ros.files import rename_new
from lrm_ros.record.info import RECOVERED


def recover(path: str | Path) -> Path:
    """Copy what is readable of ``NAME.mcap.part`` or a damaged ``NAME.mcap`` to a finished journal.

    Args:
        path: the damaged file; it is left as it is.

    Returns:
        ``NAME.mcap`` for a ``.part``, else ``NAME_recovered.mcap``; its info says ``recovered``.

    Raises:
        FileNotFoundError: no such file.
        FileExistsError: the result is there already.
        ValueError: nothing readable.
    """
    from mcap.records import Channel, Message, Metadata, Schema
    from mcap.stream_reader import StreamReader
    from mcap.writer import CompressionType, Writer

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"journal '{path}' does not exist")
    name = path.name.removesuffix(".part").removesuffix(".mcap")
    target = path.with_name(name + (".mcap" if path.suffix == ".part" else "_recovered.mcap"))
    taken = f"'{target}' exists already; move it away to recover '{path}' again"
    if target.exists():
        raise FileExistsError(taken)
    unfinished = target.with_name(target.name + ".recovering")
    schemas: dict[int, int] = {}
    channels: dict[int, int] = {}
    count, about = 0, False
    with path.open("rb") as source, unfinished.open("wb") as sink:
        writer = Writer(sink, compression=CompressionType.NONE)
        writer.start(profile="ros2", library="lrm_ros")
        records = StreamReader(source, validate_crcs=True).records
        while True:
            try:
                record = next(records)
            except StopIteration:
                break
            except Exception:  # mcap meets damaged bytes with any
                break  # here the file is cut off or damaged; everything before is kept
            if isinstance(record, Metadata):
                writer.add_metadata(record.name, record.metadata)
                about = about or record.name == "episode"
            elif isinstance(record, Schema) and record.id not in schemas:
                schemas[record.id] = writer.register_schema(record.name, record.encoding, record.data)
            elif isinstance(record, Channel) and record.id not in channels and record.schema_id in schemas:
                channels[record.id] = writer.register_channel(
                    record.topic, record.message_encoding, schemas[record.schema_id], dict(record.metadata)
                )
            elif isinstance(record, Message) and record.channel_id in channels:
                writer.add_message(
                    channels[record.channel_id], record.log_time, record.data, record.publish_time, record.sequence
                )
                count += 1
        writer.add_metadata("end", RECOVERED)
        writer.finish()
    if not count or not about:
        unfinished.unlink()
        raise ValueError(f"'{path}' holds nothing readable ({count} messages); delete it")
    try:
        rename_new(unfinished, target)
    except FileExistsError:  # finished meanwhile by who still wrote it
        unfinished.unlink()
        raise FileExistsError(taken) from None
    return target


def main(argv: list[str] | None = None) -> int:
    """Recover the files on the command line; 1 if one of them could not be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", help="NAME.mcap.part or damaged NAME.mcap")
    failed = False
    for file in parser.parse_args(argv).files:
        try:
            print(f"{file} -> {recover(file)}")
        except (OSError, ValueError) as error:
            print(f"error: {error}", file=sys.stderr)
            failed = True
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
