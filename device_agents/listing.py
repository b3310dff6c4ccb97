"""All devices in reach: what each is, whether its engine has all it needs, what speaks against measuring it now.

Everything is asked at once, so that a dead device costs its line and not the others' time. It changes nothing on them.
Read next: `checkup.py` for one device in detail.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass

from device_agents.catalogue import limits_of
from device_agents.checkup import engine_check
from device_agents.connect import DEFAULT_OPTIONS, ConnectOptions
from device_agents.describe import Description, examine
from device_agents.errors import DeviceError
from device_agents.inventory import SURVEY_LIMIT_S, Sighting, host_target, open_target, sightings
from device_agents.parallel import in_parallel
from device_agents.readiness import Check, read_conditions, warnings_of


@dataclass(frozen=True, slots=True)
class Overview:
    """What a device says of itself, whether its engine is complete, and one line for each thing that is not well."""

    description: Description
    engine: Check
    warnings: tuple[str, ...]


def list_devices(
    options: ConnectOptions = DEFAULT_OPTIONS, limit_s: float = SURVEY_LIMIT_S
) -> list[tuple[Sighting, Overview | DeviceError]]:
    """List this machine and all devices in reach, with why one could not be asked in its place."""
    seen = [Sighting(host_target(options)), *sightings(options)]
    answers = in_parallel(seen, overview, limit_s)
    return list(zip(seen, answers, strict=True))


def overview(sighting: Sighting) -> Overview:
    """Ask one device. Raises DeviceError."""
    if sighting.problem:
        raise sighting.problem
    with closing(open_target(sighting.target)) as transport:
        description = examine(sighting.target, transport)
        device = description.device
        conditions = read_conditions(device, transport)
    warnings = warnings_of(conditions, limits_of(device.system, device.model))
    return Overview(description, engine_check(description), tuple(warnings))
