"""Settings: every key and value is checked, and the message says what would be right."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekd.config import (
    MEASURES,
    DistilSettings,
    ProxySettings,
    QuantizeSettings,
    SearchSettings,
    Settings,
    load_config,
    settings_from,
)
from edgekd.errors import ConfigError

SECTIONS = {"search": SearchSettings, "proxy": ProxySettings, "distil": DistilSettings, "quantize": QuantizeSettings}
KEYS = [("", field.name) for field in dataclasses.fields(Settings)] + [
    (section, field.name) for section, kind in SECTIONS.items() for field in dataclasses.fields(kind)
]

positive = st.integers(1, 2**63 - 1)
rates = st.floats(min_value=0, exclude_min=True, allow_nan=False, allow_infinity=False)
targets = st.floats(min_value=0, max_value=1e9, exclude_min=True)
threads = st.integers(1, 1024)
names = st.text(max_size=20)
all_settings = st.builds(
    Settings,
    device=names,
    space=names,
    data=names,
    teacher=names,
    table=names,
    seed=st.integers(0, 2**63 - 1),
    search=st.builds(
        SearchSettings,
        engine=names,
        budget=positive,
        budget_epochs=st.integers(0, 2**63 - 1),
        batch=positive,
        target_ms=st.just("auto") | targets | st.lists(targets, min_size=1, max_size=3, unique=True).map(tuple),
        target_dtype=st.sampled_from(["float32", "int8"]),
        reward=names,
        reward_weight=st.floats(allow_nan=False, allow_infinity=False),
        baseline=names,
        workers=positive,
        ray_address=names,
        cpus_per_worker=rates,
        gpus_per_worker=st.just(0.0) | rates,
        measure=st.sampled_from(MEASURES),
        measure_top=positive,
        warm_start=names,
        tensorboard=st.booleans(),
    ),
    proxy=st.builds(
        ProxySettings,
        method=names,
        weights=names,
        images=rates,
        epochs=positive,
        batch_size=positive,
        learning_rate=rates,
        resolution=st.integers(0, 4096),
        threads=threads,
        stop_share=st.floats(0, 1, exclude_max=True),
    ),
    distil=st.builds(
        DistilSettings, method=names, epochs=positive, batch_size=positive, learning_rate=rates, threads=threads
    ),
    quantize=st.builds(QuantizeSettings, images=positive),
)


def content(section: str, name: str, value: Any) -> dict[str, Any]:
    """Nest one value."""
    return {section: {name: value}} if section else {name: value}


def refused(given: dict[str, Any]) -> str:
    """See that settings are refused; give the message, which says where they came from, in one line."""
    with pytest.raises(ConfigError) as caught:
        settings_from(given, "my.toml")
    message = str(caught.value)
    assert message.startswith("my.toml: ")
    assert "\n" not in message
    return message


@pytest.mark.whole  # tries many
@given(all_settings)
def test_as_dict_and_settings_from_are_inverse(settings: Settings) -> None:
    """What a run folder stores is what was set."""
    assert settings_from(settings.as_dict(), "here") == settings


def test_nothing_set_is_all_defaults() -> None:
    """Every setting has a default, and an empty section is none."""
    assert settings_from({}, "here") == settings_from({"search": {}, "proxy": {}}, "here") == Settings()


@pytest.mark.parametrize(("section", "name"), KEYS)
def test_a_misspelt_key_suggests_the_right_one(section: str, name: str) -> None:
    """Of every section, and of the top: the message has the wrong key with its section, and the nearest."""
    wrong = name[:-1] + "_" + name[-1]
    message = refused(content(section, wrong, 1))
    assert f"unknown key '{section + '.' if section else ''}{wrong}'" in message
    assert f"did you mean '{name}'?" in message


def test_a_key_in_the_wrong_section_lists_what_that_section_knows() -> None:
    """An unknown key that resembles none still shows the known ones."""
    assert "known: images" in refused({"quantize": {"zzz": 1}})


MAY_BE = {("search", "target_ms"): list, ("search", "tensorboard"): bool}


@pytest.mark.parametrize(("section", "name"), KEYS)
@pytest.mark.parametrize("value", [True, [1], {"a": 1}, None], ids=["bool", "list", "table", "null"])
def test_a_value_of_a_wrong_type_is_refused(section: str, name: str, value: Any) -> None:
    """A boolean is no number, and a list or a table no value; the message names the key and what it must be."""
    if name in SECTIONS and isinstance(value, dict):
        return  # a section is a table: its unknown key is another test
    if isinstance(value, MAY_BE.get((section, name), ())):
        return  # what it may be is another test, too
    message = refused(content(section, name, value))
    assert name in message
    assert ("must be a section" if name in SECTIONS else "must be of type") in message


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        ("", "device", 1),
        ("", "seed", "0"),
        ("", "seed", 1.5),
        ("search", "budget", "100"),
        ("search", "budget", 100.0),
        ("proxy", "learning_rate", "fast"),
        ("search", "tensorboard", 1),
        ("search", "measure", 5),
    ],
)
def test_numbers_and_texts_are_not_exchanged(section: str, name: str, value: Any) -> None:
    """A number in quotes is text, and a count with a point is no count."""
    assert f"is {value!r}; it must be of type" in refused(content(section, name, value))


def test_a_whole_number_may_stand_for_a_fraction() -> None:
    """`target_ms = 2` is 2.0, and is stored so."""
    settings = settings_from({"search": {"target_ms": 2}, "distil": {"learning_rate": 1}}, "here")
    assert isinstance(settings.search.target_ms, float)
    assert isinstance(settings.distil.learning_rate, float)


@pytest.mark.parametrize(
    ("section", "name", "value", "reason"),
    [
        ("", "seed", -1, "at least 0"),
        ("", "seed", 2**63, "below 2⁶³"),
        ("search", "budget", 0, "at least 1"),
        ("search", "batch", -5, "at least 1"),
        ("search", "workers", 0, "at least 1"),
        ("search", "target_ms", 0, "above 0"),
        ("search", "target_ms", -0.1, "above 0"),
        ("search", "target_ms", float("nan"), "above 0"),
        ("search", "target_ms", float("inf"), "above 0"),
        ("search", "target_ms", 1e10, "at most 1e+09"),
        ("search", "target_ms", 10**400, "must be of type float"),
        ("search", "target_ms", "fast", "a number of ms, a list of them, or 'auto'"),
        ("search", "target_ms", [], "at least one"),
        ("search", "target_ms", [0.1, 0.1], "each target once"),
        ("search", "target_ms", [0.1, -0.1], "above 0"),
        ("search", "target_ms", [0.1, "fast"], "target_ms[1] is 'fast'; it must be of type float"),
        ("search", "measure", "topk", "did you mean 'top-k'"),
        ("search", "measure_top", 0, "at least 1"),
        ("search", "budget_epochs", -1, "at least 0"),
        ("search", "reward_weight", float("nan"), "finite"),
        ("search", "cpus_per_worker", 0, "above 0"),
        ("search", "gpus_per_worker", -0.5, "at least 0"),
        ("proxy", "stop_share", 1, "below 1"),
        ("proxy", "resolution", -1, "at least 0"),
        ("proxy", "resolution", 4097, "at most 4096"),
        ("proxy", "threads", 1025, "at most 1024"),
        ("distil", "threads", 2**40, "at most 1024"),
        ("proxy", "threads", 0, "at least 1"),
        ("search", "target_dtype", "int4", "did you mean 'int8'"),
        ("proxy", "images", 0, "above 0"),
        ("proxy", "learning_rate", 0.0, "above 0"),
        ("distil", "epochs", 0, "at least 1"),
        ("distil", "learning_rate", float("nan"), "above 0"),
        ("distil", "learning_rate", float("inf"), "above 0"),
        ("distil", "threads", 0, "at least 1"),
        ("quantize", "images", 0, "at least 1"),
    ],
)
def test_a_value_out_of_range_is_refused(section: str, name: str, value: Any, reason: str) -> None:
    """The message names the key and the range."""
    message = refused(content(section, name, value))
    assert name in message
    assert reason in message


def test_several_targets_keep_their_order() -> None:
    """They are searched for in this order; whole numbers will do."""
    settings = settings_from({"search": {"target_ms": [15, 8.5]}}, "here")
    assert settings.search.target_ms == (15.0, 8.5)


def test_without_a_teacher_nothing_is_learnt_from_one() -> None:
    """Whatever the methods say, the search is a conventional one."""
    given = {"teacher": "none", "proxy": {"method": "dist", "weights": "dist=2"}, "distil": {"method": "kd"}}
    settings = settings_from(given, "here")
    assert (settings.proxy.method, settings.proxy.weights, settings.distil.method) == ("none", "", "none")
    assert not settings.has_teacher
    assert Settings().has_teacher


def test_a_config_file_is_read(tmp_path: Path) -> None:
    """TOML with sections; what it leaves out has its default."""
    path = tmp_path / "edgekd.toml"
    path.write_text('seed = 4\n[search]\nbudget = 12\ntarget_ms = 0.25\n[distil]\nmethod = "dist"\n')
    settings = load_config(path)
    assert (settings.seed, settings.search.budget, settings.search.target_ms) == (4, 12, 0.25)
    assert (settings.distil.method, settings.proxy) == ("dist", ProxySettings())


def test_the_demonstrations_config_spells_out_every_key() -> None:
    """tools/demo.toml is valid and leaves nothing but, perhaps, the table to its default."""
    path = Path(__file__).parents[1] / "tools" / "demo.toml"
    load_config(path)
    spelt = set(re.findall(r"^(\w+) =", path.read_text(), re.MULTILINE))
    assert spelt | {"table"} == {name for _, name in KEYS} - set(SECTIONS)


@pytest.mark.parametrize(
    "damaged",
    [b"seed = ", b"seed = 1\nseed = 2", b"\xff\xfe", b"[search\n", b"a = " + b"[" * 5000, b"seed = " + b"9" * 5000],
    ids=["no value", "twice", "no UTF-8", "open bracket", "deep", "endless"],
)
def test_a_file_that_is_not_toml_is_refused(tmp_path: Path, damaged: bytes) -> None:
    """The message names the file."""
    path = tmp_path / "edgekd.toml"
    path.write_bytes(damaged)
    with pytest.raises(ConfigError, match=f"config {re.escape(str(path))} is not TOML"):
        load_config(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """So is a folder; the message names it and the reason."""
    with pytest.raises(ConfigError, match=r"none\.toml cannot be read: No such file"):
        load_config(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_config(tmp_path)
