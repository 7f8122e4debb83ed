"""RAFT as a flow, with a network that stands in for torchvision's."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from live2diff_core.errors import ConfigError, WeightsKeyError, WeightsMissingError
from live2diff_core.metrics import raft
from live2diff_core.metrics.flow import Motion
from live2diff_core.metrics.raft import FILE, FOLDER, load_raft

CPU = torch.device("cpu")


class Network(nn.Module):
    """Takes what RAFT takes; its last flow is the difference of the pictures."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(()))

    def forward(self, first, second):
        assert first.shape == second.shape
        assert min(first.shape[2:]) >= 128
        assert all(side % 8 == 0 for side in first.shape[2:])
        assert first.abs().max() <= 1
        flow = (self.scale * (second - first))[:, :2]
        return [flow * 0, flow]


def make(weights):
    assert weights is None
    return Network()


@pytest.fixture
def torchvision(monkeypatch, tmp_path):
    """A torchvision, and a torch.hub whose folder is empty."""
    module = SimpleNamespace(raft_large=make)
    monkeypatch.setitem(sys.modules, "torchvision.models.optical_flow", module)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))


def save(folder, **changes):
    folder.mkdir(parents=True)
    torch.save({"scale": torch.tensor(10.0), **changes}, folder / FILE)


def test_the_last_flow_is_given_at_the_size_of_the_pictures(torchvision, tmp_path):
    save(tmp_path / FOLDER)
    flow = load_raft(tmp_path, CPU)
    first, second = np.zeros((97, 131, 3), np.uint8), np.zeros((97, 131, 3), np.uint8)
    second[..., 0] = 51
    found = flow(first, second)
    assert (found.shape, found.dtype) == ((97, 131, 2), np.float32)
    assert found[..., 0] == pytest.approx(10 * 51 / 127.5)
    assert np.all(found[..., 1] == 0)
    assert flow.name == "raft"
    assert not Motion.between(flow, first, second).is_cut


def test_weights_are_found_where_torchvision_keeps_them(torchvision, tmp_path):
    save(tmp_path / "hub" / "checkpoints")
    assert load_raft(tmp_path / "models", CPU).name == "raft"


def test_nothing_is_fetched_unless_asked(torchvision, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *_, **__: pytest.fail("fetched"))
    with pytest.raises(WeightsMissingError, match="--download") as error:
        load_raft(tmp_path, CPU)
    assert str(tmp_path / FOLDER) in str(error.value)


def test_what_was_asked_for_is_fetched_and_checked(torchvision, tmp_path, monkeypatch):
    asked = []

    def fetch(url, target, hash_prefix):
        asked.append((url, hash_prefix))
        torch.save({"scale": torch.tensor(1.0)}, target)

    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    load_raft(tmp_path, CPU, download=True)
    assert asked == [(f"https://download.pytorch.org/models/{FILE}", "ff5fadd5")]
    load_raft(tmp_path, CPU)
    assert len(asked) == 1


def test_a_fetch_that_fails_says_so(torchvision, tmp_path, monkeypatch):
    def fetch(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    with pytest.raises(WeightsMissingError, match="no network"):
        load_raft(tmp_path, CPU, download=True)


def test_weights_of_another_network_are_refused(torchvision, tmp_path):
    save(tmp_path / FOLDER, more=torch.zeros(1))
    with pytest.raises(WeightsKeyError, match="unexpected"):
        load_raft(tmp_path, CPU)


@pytest.mark.parametrize("error", [ImportError("none"), RuntimeError("built for another torch")])
def test_without_torchvision_it_is_refused(monkeypatch, tmp_path, error):
    def fail(_):
        raise error

    monkeypatch.setattr(raft.importlib, "import_module", fail)
    with pytest.raises(ConfigError, match=f"needs torchvision .{error}"):
        load_raft(tmp_path, CPU)
