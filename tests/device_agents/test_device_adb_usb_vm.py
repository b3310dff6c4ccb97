"""ADB over real USB: Google's adbd and our host in one virtual machine, whose kernel loops a USB controller back.

The machine runs once for all tests here; what it does is tools/virtual/files/usb_vm/usb_check.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.devices

TOOLS = Path(__file__).resolve().parents[2] / "tools"
RUN_SECONDS = 600.0  # many times what a machine with two cores takes, the first building of the image included


@pytest.fixture(scope="module")
def seen() -> dict[str, Any]:
    """What the check in the machine saw."""
    argv = [sys.executable, "-B", "-m", "virtual.usb_vm"]
    done = subprocess.run(argv, cwd=TOOLS, stdout=subprocess.PIPE, timeout=RUN_SECONDS, check=True)
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts


def check_everything(facts: dict[str, Any]) -> None:
    assert facts["run"] == [7, "out\n", "err\n"]
    assert facts["lines"] is True
    assert facts["echo"] == [20, 0]
    assert [came for _, came in facts["outputs"]] == [asked for asked, _ in facts["outputs"]]
    assert facts["files"] == {"pushed": True, "pulled": True, "left": False}
    assert facts["kill"] is True


def test_a_phone_on_usb_is_listed_and_does_everything(seen: dict[str, Any]) -> None:
    """Exit code and both outputs, many lines, answers to lines, outputs of odd sizes, 4 MB there and back, kill."""
    assert seen["listed"] == [seen["serial"]]
    assert seen["usb"]["way"] == "DirectConnector"
    check_everything(seen["usb"])


def test_another_phone_is_not_taken_for_the_one_that_is_attached(seen: dict[str, Any]) -> None:
    """The message names the one that is."""
    assert seen["absent"].startswith("DeviceOffline: adb://NOSUCH is not attached")
    assert seen["serial"] in seen["absent"]


def test_a_user_who_may_not_open_usb_is_told_of_a_udev_rule(seen: dict[str, Any]) -> None:
    """The listing says that there is such a phone."""
    assert seen["as_nobody"]["listed"] == [[], True]
    assert seen["as_nobody"]["refusal"].startswith("NotAuthorised: ")
    assert "udev" in seen["as_nobody"]["refusal"]


def test_a_second_connection_is_refused_and_does_not_break_the_first(seen: dict[str, Any]) -> None:
    """One holds a phone on USB at a time."""
    assert seen["twice"]["refusal"].startswith("DeviceNotReady: ")
    assert seen["twice"]["first"] == "still\n"


def test_a_host_that_was_killed_leaves_the_phone_usable(seen: dict[str, Any]) -> None:
    """The phone still had data for it, and its process goes on until the next host greets."""
    assert seen["after_killed_host"] == {"heard": "y\n", "hello": "hello\n", "ended": True}


def test_a_pulled_cable_is_a_lost_link_until_it_is_put_back(seen: dict[str, Any]) -> None:
    """The same process finds the phone again, even where no udev daemon tells of it."""
    replugged = seen["replugged"]
    assert replugged["broken"].startswith("LinkLost: ")
    assert replugged["absent"].startswith("DeviceOffline: ")
    assert replugged["listed"] == [seen["serial"]]
    assert replugged["again"] == "again\n"


def test_an_adb_server_that_holds_the_phone_is_named(seen: dict[str, Any]) -> None:
    """Past it there is no way, and once it has ended there is."""
    assert seen["held"]["refusal"].startswith("DeviceNotReady: ")
    assert "adb server holds the device" in seen["held"]["refusal"]
    assert seen["after_server"] == "hello\n"


def test_everything_works_through_that_server(seen: dict[str, Any]) -> None:
    """The same as without it."""
    assert seen["held"]["through"]["way"] == "ServerConnector"
    check_everything(seen["held"]["through"])
