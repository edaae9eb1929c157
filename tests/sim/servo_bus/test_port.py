# SPDX-License-Identifier: Apache-2.0
"""The pseudo-terminal: names and links, pulling it out, and a program that does not read."""

from __future__ import annotations

import os

import pytest
from servo_buses import arms, wait_until  # type: ignore[import-not-found]

from lrm_ros.sim.servo_bus import protocol
from lrm_ros.sim.servo_bus.port import Port
from lrm_ros.sim.servo_bus.protocol import Packet, encode, status


def test_a_link_is_the_ports_own_name_and_goes_with_it(tmp_path):
    link = tmp_path / "arm"
    link.symlink_to("/nowhere")  # left by a program that was killed
    port = Port(link)
    assert port.path == str(link) and os.readlink(link) == port.name
    port.unplug()
    assert (port.plugged, port.name) == (False, "") and not link.is_symlink()
    port.unplug()
    with pytest.raises(RuntimeError, match="the port is unplugged"):
        port.fileno()
    port.plug(tmp_path / "other")
    assert os.readlink(tmp_path / "other") == port.name
    with pytest.raises(RuntimeError, match="is plugged in; unplug it first"):
        port.plug()
    port.unplug()


def test_a_link_that_another_has_taken_over_stays(tmp_path):
    old, new = Port(tmp_path / "arm"), Port(tmp_path / "arm")
    old.unplug()
    assert os.readlink(tmp_path / "arm") == new.name
    new.unplug()


def test_what_is_no_link_is_not_replaced(tmp_path):
    (tmp_path / "arm").write_text("mine")
    with pytest.raises(FileExistsError, match="is no link; give another path for the port"):
        Port(tmp_path / "arm")
    assert (tmp_path / "arm").read_text() == "mine"


def test_bytes_go_both_ways_unchanged():
    port = Port()
    program = os.open(port.name, os.O_RDWR | os.O_NOCTTY)
    every = bytes(range(256))  # Ctrl+C, new lines and flow control among them
    os.write(program, every)
    got = b""
    while len(got) < 256:
        got += port.read()
    assert (got, port.read()) == (every, b"")
    port.write(every)
    assert os.read(program, 300) == every
    os.close(program)
    port.unplug()


def test_a_program_that_never_reads_stops_nothing():
    with arms("follower") as server:
        program = os.open(server.ports["follower"].name, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        _megabaud(program)
        bus = server.buses["follower"]
        pings = encode(Packet(254, protocol.PING)) * 100
        for _ in range(20):
            before = len(bus.seen)
            os.write(program, pings)
            wait_until(lambda before=before: len(bus.seen) == before + 100, "heard")
        time_before = bus.arm.time
        wait_until(lambda: bus.arm.time > time_before + 0.05, "moving on")
        whole = os.read(program, 6)
        assert whole == status(1, 0)
        os.close(program)


def _megabaud(fd: int) -> None:
    import termios

    settings = termios.tcgetattr(fd)
    settings[4] = settings[5] = termios.B1000000
    termios.tcsetattr(fd, termios.TCSANOW, settings)


def test_what_ends_the_loop_is_raised_at_the_end():
    server = arms("follower")
    with pytest.raises(ZeroDivisionError), server:

        def fail(dt: float) -> None:
            raise ZeroDivisionError

        server.buses["follower"].arm.step = fail
        wait_until(lambda: not server._thread.is_alive(), "ended")
