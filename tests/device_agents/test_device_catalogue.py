"""The catalogue: every entry is recognised by its own words, and by nobody else's."""

from __future__ import annotations

import pytest

from device_agents.catalogue import CATALOGUE, HOST, KnownDevice, cpu_mask_of, limits_of, named, recognise
from device_agents.device import Cluster
from device_agents.user_devices import ENGINE_NAMES

KINDS = [entry for entry in CATALOGUE if entry is not HOST]
every_kind = pytest.mark.parametrize("entry", KINDS, ids=lambda entry: entry.name)


def words_of(entry: KnownDevice) -> list[str]:
    """Give models that a device of this kind may call itself; a pattern's star stands for a region or a revision."""
    return [model.replace("*", end) for model in entry.models for end in ("B", " Rev 1.4")]


@every_kind
def test_an_entry_is_recognised_by_its_own_words(entry: KnownDevice) -> None:
    """By each model with any end, and by each code name under a foreign model."""
    assert [recognise(entry.system, model) for model in words_of(entry)] == [entry] * len(words_of(entry))
    assert all(recognise(entry.system, "", codename) == entry for codename in entry.codenames)


@every_kind
def test_no_two_entries_share_a_word(entry: KnownDevice) -> None:
    """Neither patterns that overlap, nor code names, nor names and aliases."""
    for other in KINDS:
        if other is not entry:
            assert not any(recognise(entry.system, model) == other for model in words_of(entry))
            assert not set(entry.codenames) & set(other.codenames)
            assert not {entry.name, *entry.aliases} & {other.name, *other.aliases}


@every_kind
def test_an_entry_says_how_to_measure(entry: KnownDevice) -> None:
    """An engine that there is, a sensible number of threads, and limits of heat that make sense."""
    assert entry.default_engine in ENGINE_NAMES
    assert entry.threads >= 1
    assert 30 < entry.limits.cool_c < entry.limits.hot_c < 100


@pytest.mark.parametrize(
    ("system", "model", "codename", "name"),
    [
        ("android", "Pixel 4", "flame", "pixel4"),
        ("android", "Pixel 4 XL", "coral", "pixel4xl"),
        ("android", "Pixel 4a (5G)", "bramble", "pixel4a5g"),
        ("android", "SM-G991B", "o1s", "galaxy-s21"),
        ("android", "SM-G998U1", "p3q", "galaxy-s21ultra"),
        ("linux", "Raspberry Pi 3 Model B Plus Rev 1.3", "", "rpi3"),
        ("linux", "Raspberry Pi 4 Model B Rev 1.5", "", "rpi4"),
        ("linux", "NVIDIA Jetson Orin Nano Developer Kit", "", "jetson-orin-nano"),
        ("linux", "NVIDIA Jetson Nano Developer Kit", "", "jetson-nano"),
        ("android", "Some Phone", "flame", "pixel4"),
        ("android", "Pixel 5", "flame", "pixel5"),
    ],
)
def test_real_devices_are_recognised(system: str, model: str, codename: str, name: str) -> None:
    """What they call themselves to people goes before the code name."""
    known = recognise(system, model, codename)
    assert known is not None
    assert known.name == name


@pytest.mark.parametrize("words", [("android", "Pixel 40", ""), ("linux", "Pixel 4", ""), ("linux", "", "flame")])
def test_other_devices_are_not(words: tuple[str, str, str]) -> None:
    """A name that only begins alike, or another system, is another device."""
    assert recognise(*words) is None


@pytest.mark.parametrize("name", ["pixel4", "Pixel4", "pixel-4", "flame"])
def test_a_name_is_found_by_its_aliases_in_any_case(name: str) -> None:
    """Google's code name too."""
    known = named(name)
    assert known is not None
    assert known.name == "pixel4"


PHONE = (Cluster((0, 1, 2, 3), 250), Cluster((4, 5, 6), 820), Cluster((7,), 1024))


def test_the_fastest_cluster_is_pinned_unless_all_are_alike() -> None:
    """Pinning to all CPUs would say nothing; an unknown device is treated as most are."""
    assert cpu_mask_of(named("pixel4"), range(8), PHONE) == 1 << 7
    assert cpu_mask_of(None, range(8), PHONE) == 1 << 7
    assert cpu_mask_of(named("rpi4"), range(4), (Cluster((0, 1, 2, 3), 1024),)) is None
    assert cpu_mask_of(HOST, range(8), PHONE) is None


def test_an_entry_may_name_its_cpus() -> None:
    """Those that the process may not use are left out."""
    entry = KnownDevice("some", "Some", "linux", ("Some",), pin=(4, 5, 9))
    assert cpu_mask_of(entry, range(8), PHONE) == 0b110000


def test_unknown_devices_have_the_limits_of_their_system() -> None:
    """A phone is hot before a board is."""
    assert limits_of("android", "Some Phone") == limits_of("android", "Pixel 4")
    assert limits_of("linux", "Some Board").hot_c == 75
    assert limits_of("linux", "NVIDIA Jetson Nano").hot_c > 75
