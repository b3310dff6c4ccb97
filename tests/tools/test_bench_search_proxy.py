"""tools/bench_search_proxy.py: what it compares, and that its bar can fail."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.slow  # trains

TOOLS = Path(__file__).resolve().parents[2] / "tools"

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(TOOLS))
    bench = importlib.import_module("bench_search_proxy")


def test_the_ratio_is_given_under_its_key_and_told(capsys: pytest.CaptureFixture[str]) -> None:
    """Both figures stand side by side, and torch has its threads back."""
    before = torch.get_num_threads()
    found = bench.run(quick=True)
    text = capsys.readouterr().out
    assert list(found) == ["proxy_step_ratio"]
    assert 0.3 < found["proxy_step_ratio"] < 3
    assert f"ratio {found['proxy_step_ratio']:.3f}" in text
    assert "proxy step (kd, cached logits, batch 16)" in text
    assert "bare training step" in text
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(("ratio", "word"), [(1.15, "holds"), (1.16, "DOES NOT HOLD")])
def test_the_bar_is_named_and_can_fail(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ratio: float, word: str
) -> None:
    """A proxy step may cost 15 % more than a bare one."""
    monkeypatch.setattr(bench, "measured", lambda rounds: ratio)
    found = bench.run(quick=False)
    assert found == {"proxy_step_ratio": ratio}
    assert bool(bench.missed_bars(found)) == (word != "holds")
    assert f"at most 1.15 bare steps a proxy step: {word}" in capsys.readouterr().out


def test_both_loops_train_the_same_images_as_often() -> None:
    """One epoch of the proxy has as many steps as the bare loop, and each loop changes its own network alone."""
    data = bench._few(bench.load_data("embedded"), 2 * bench.BATCH)
    assert len(data.train) == 2 * bench.BATCH
    steps: list[int] = []
    with pytest.MonkeyPatch.context() as counted:
        counted.setattr(torch.optim.SGD, "step", lambda self, *rest: steps.append(id(self)))
        for loop in bench._loops(2):
            loop()
    assert len(steps) == 4
    assert len(set(steps)) == 2
