"""Small spaces: one option, one block, one architecture; they are profiled, predicted and bounded like any other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from synthetic import KEY, every_arch, measurement, synthetic_ns

from edgekd.errors import InfeasibleTarget
from edgekd.profile import CALIBRATION_NETWORKS, Order, calibration_archs
from edgekd.search.latency import LatencyModel
from edgekd.spaces.layers import graph_of
from edgekd.spaces.space import BlockOptions, Space
from latency_tables.builder import Plan, Subject, build
from latency_tables.calibrate import MIN_NETWORKS
from latency_tables.op_spec import DTYPES, OpSpec
from latency_tables.schema import Measurement
from latency_tables.store import LatencyTable, TableFile, load_table


def small_space(layers: tuple[int, ...] = (1,), conv_ops: tuple[str, ...] = ("mb3",)) -> Space:
    """Make a space of one block in which at most the depth and the operator can be chosen."""
    options = BlockOptions(8, 2, layers, layers[0], conv_ops, (3,), (0.0,), ("identity",), (1.0,))
    return Space("small", 12, 1, 3, 4, 1, (options,), channel_multiple=4)


USERS = replace(small_space(layers=(2, 3)), name="own@1a2b3c4d")  # as one is called that was read from a file
SPACES = [small_space(), USERS, small_space(conv_ops=("fused3", "basic"))]

every_space = pytest.mark.parametrize("space", SPACES, ids=["one", "depths", "operators"])


def measure(subjects: Sequence[Subject]) -> Iterator[tuple[Subject, Measurement]]:
    """Stand for a device whose networks take what their operators do, and a little."""
    for subject in subjects:
        ops = [subject] if isinstance(subject, OpSpec) else subject.ops
        name = subject.key if isinstance(subject, OpSpec) else subject.name
        yield subject, measurement(name, 1000 + sum(map(synthetic_ns, ops)))


def profiled(space: Space, path: Path) -> LatencyTable:
    """Build a calibrated table by the order that a profile follows."""
    order = Order.for_space(space)
    plan = Plan(order.ops, tuple(order.networks))
    return build(TableFile(path, KEY), plan, measure, lambda done, total: None)


@every_space
def test_a_small_space_has_networks_enough_to_calibrate_on(space: Space) -> None:
    """Its own architectures first; the rest are deeper ones of the same layers, all distinct, always the same."""
    archs = calibration_archs(space)
    assert archs == calibration_archs(space)
    assert len(set(archs)) == CALIBRATION_NETWORKS
    assert archs[0] == space.reference()
    assert set(every_arch(space)) <= set(archs)


@pytest.mark.whole  # profiles a whole space
@every_space
def test_a_small_space_is_profiled_and_predicted(space: Space, tmp_path: Path) -> None:
    """The table covers all its networks, is calibrated, reads back, and both ways of predicting agree."""
    built = profiled(space, tmp_path / "table.jsonl")
    table = load_table(tmp_path / "table.jsonl")
    assert table.networks == built.networks
    assert len(table.networks) == len(DTYPES) * CALIBRATION_NETWORKS
    latency = LatencyModel.of(space, table)
    every = list(every_arch(space))
    choices = np.array([space.choices(arch) for arch in every])
    for dtype in DTYPES:
        one_by_one = [latency.predict(arch, dtype).total_ms for arch in every]
        assert latency.arrays(dtype).predict_ms(choices) == pytest.approx(one_by_one, rel=1e-9)
        assert latency.fastest(dtype)[1] == pytest.approx(min(one_by_one))


def test_a_quick_profile_has_the_least_networks_for_a_calibration() -> None:
    """As few as a fit needs, from a space of one architecture."""
    space = small_space()
    assert len(calibration_archs(space, MIN_NETWORKS)) == MIN_NETWORKS


@pytest.mark.whole  # profiles a whole space
def test_a_target_below_the_only_architecture_names_it(tmp_path: Path) -> None:
    """The message says what the fastest takes, and that much is enough."""
    space = small_space()
    latency = LatencyModel.of(space, profiled(space, tmp_path / "table.jsonl"))
    _, fastest_ms = latency.fastest("int8")
    with pytest.raises(InfeasibleTarget, match="small:mb3_k3_se0_identity_l1_f1"):
        latency.check_target(fastest_ms / 2, "int8")
    latency.check_target(fastest_ms, "int8")


def test_networks_of_a_normal_space_ask_for_no_further_operators() -> None:
    """What is measured for a space with depths to choose is what its architectures reach, and the cost of a call."""
    space = small_space(layers=(1, 2, 3), conv_ops=("conv", "dsconv", "mb3", "mb6"))
    order = Order.for_space(space)
    reached = {op.key for arch in every_arch(space) for op in graph_of(space, arch).ops}
    assert {op.key for op in order.ops if op.dtype == "float32"} - reached == {"add;float32;in=1x1x1x1,1x1x1x1"}
