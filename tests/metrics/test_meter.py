"""All figures together: an identity, noise, a frozen video, a hard cut, real clips."""

import math

import pytest
import torch

from live2diff_core.errors import ConfigError, FrameSizeError, SourceError
from live2diff_core.metrics import meter as meters
from live2diff_core.metrics.figures import QUANTITIES
from live2diff_core.metrics.flicker import FlickerMeter
from live2diff_core.metrics.flow import DisFlow
from live2diff_core.metrics.meter import Meter, MeterConfig, measure, side_by_side
from live2diff_core.metrics.structure import DepthMaps
from live2diff_core.models.depth import StructureMap
from tests.clips import BIKES, BUNNY, PHONE
from tests.metrics.scenes import HEIGHT, WIDTH, clip_frames, noisy, still, wide, window

SOURCE_ALONE = ("warp_error_source", "drift_source")


def full_meter(**changes):
    depth = DepthMaps(StructureMap(), torch.device("cpu"))
    return Meter(MeterConfig(rate=4, **changes), depth=depth)


def pan(seed, count, right=3):
    return [window(wide(seed), right * k, 0) for k in range(count)]


def test_an_output_that_is_its_input():
    frames = clip_frames(PHONE, 12)
    report = measure(frames, frames, full_meter())
    assert report["warp_error"] == report["warp_error_source"] > 0
    assert report["drift"] == report["drift_source"]
    assert report["depth_mse"] == report["scuts"] == 0
    assert report["still_flicker"] < 8 / 255
    assert (report.frames, report.pairs, report.cuts) == (12, 11, 0)
    assert report.size == (144, 193)


def test_a_frozen_output_of_a_frozen_input():
    """Nothing is anywhere; MAWE, which divides by motion, is no number and says why."""
    report = measure([still(0)] * 8, [still(1)] * 8, full_meter())
    zero = ("warp_error", "w", "ofs", "scuts", "still_flicker", "drift")
    assert {name: report[name] for name in zero} == dict.fromkeys(zero, 0)
    assert report["still_share"] == 1
    assert report["depth_mse"] > 0.01
    for name in ("mawe", "mawe_ratio_of_means"):
        assert report.left_out[name] == "nothing moves in the output"
        assert name not in report.as_dict()


def test_independent_noise_over_a_still_input():
    """Of deviation 0.04: a warp error of twice its square, flicker of itself."""
    generator = torch.Generator().manual_seed(0)
    outputs = [noisy(still(1), 0.04, generator) for _ in range(12)]
    report = measure([still(0)] * 12, outputs, full_meter())
    assert report["warp_error"] == pytest.approx(2 * 0.04**2, rel=0.02)
    assert report["still_flicker"] == pytest.approx(0.04, rel=0.01)
    assert report["warp_error_source"] == 0


def test_the_warp_error_is_that_of_the_flicker_meter():
    sources, outputs = pan(0, 5), pan(1, 5, right=1)
    flicker = FlickerMeter()
    for source, output in zip(sources, outputs, strict=True):
        flicker.update(source, output)
    found = flicker.report()
    report = measure(sources, outputs)
    assert (report["warp_error_source"], report["warp_error"]) == (found.source, *found.outputs)
    assert (report.pairs, report.cuts) == (found.pairs, found.cuts)


def test_several_outputs_are_measured_as_each_alone():
    sources, first, second = pan(0, 6), pan(1, 6), [still(2)] * 6
    together = full_meter()
    for frames in zip(sources, first, second, strict=True):
        together.update(*frames)
    alone = [measure(sources, output, full_meter()) for output in (first, second)]
    assert list(together.reports()) == alone
    assert alone[0] != alone[1]


def test_the_flow_of_the_input_is_computed_once_for_all_outputs():
    class Counted(DisFlow):
        calls = 0

        def __call__(self, first, second):
            Counted.calls += 1
            return super().__call__(first, second)

    meter = Meter(flow=Counted())
    for frames in zip(pan(0, 3), pan(1, 3), pan(2, 3), strict=True):
        meter.update(*frames)
    assert Counted.calls == 2 * 2 * (1 + 2)  # pairs, directions, the input and two for MAWE


def test_a_moment_has_the_errors_of_its_pair():
    meter, generator = Meter(), torch.Generator().manual_seed(0)
    first, second, third = (
        meter.update(still(0), noisy(still(1), 0.1 * k, generator)) for k in range(3)
    )
    assert first.errors == (None, None)
    assert second.errors == (0, pytest.approx(0.01, rel=0.05))
    assert third.errors == (0, pytest.approx(0.01 + 0.04, rel=0.05))
    assert meter.report()["warp_error"] == pytest.approx(
        sum(m.errors[1] for m in (second, third)) / 2
    )


def test_a_cut_of_the_input_is_no_warp_error():
    frames = [*clip_frames(BUNNY, 3), *clip_frames(BIKES, 3)]
    small = [torch.nn.functional.interpolate(f[None].float() / 255, (96, 128))[0] for f in frames]
    report = measure(small, small)
    assert (report.frames, report.pairs, report.cuts) == (6, 4, 1)
    assert report["warp_error"] < 0.01


def test_everything_is_measured_at_the_size_of_the_first_output():
    sources, outputs = pan(0, 3), pan(0, 3)
    doubled = [
        torch.nn.functional.interpolate(s[None], scale_factor=2, mode="bilinear")[0]
        for s in sources
    ]
    report = measure(doubled, outputs)
    assert report.size == (HEIGHT, WIDTH)
    assert report.as_dict()["size"] == f"{WIDTH}x{HEIGHT}"
    assert report["warp_error"] < 1e-4


def test_an_input_of_another_shape_is_cropped_as_a_translation_crops_it():
    outputs = pan(0, 3)
    wider = [torch.nn.functional.pad(frame, (30, 30), value=1.0) for frame in outputs]
    meter = full_meter()
    for source, output in zip(wider, outputs, strict=True):
        moment = meter.update(source, output)
        assert torch.allclose(moment.source.rgb, moment.outputs[0].rgb, atol=1e-6)
    assert meter.report()["depth_mse"] < 1e-9
    assert measure(wider, outputs, full_meter(fit="stretch"))["depth_mse"] > 0.01
    with pytest.raises(FrameSizeError, match="takes 128x96"):
        measure(wider, outputs, full_meter(fit="refuse"))


def test_what_is_left_out_is_named_and_has_no_value():
    report = measure(pan(0, 2), pan(1, 2))
    assert report.left_out.keys() == {
        *("depth_mse", "drift", "drift_source", "clip_score", "clip_consistency"),
        *("still_flicker", "latency_p50_ms", "latency_p95_ms"),
    }
    assert report.left_out.keys() | report.figures.keys() == QUANTITIES.keys()
    figures = report.as_dict()
    assert figures["left_out"] == report.left_out
    assert figures.keys() & report.left_out.keys() == set()
    assert all(math.isfinite(value) for value in report.figures.values())
    with pytest.raises(KeyError, match="no CLIP was given"):
        report["clip_score"]


def test_without_scenedetect_there_are_no_scuts(monkeypatch):
    monkeypatch.setattr(meters, "scene_detection", lambda: None)
    report = measure(pan(0, 2), pan(1, 2))
    assert "pip install scenedetect-headless" in report.left_out["scuts"]


def test_one_frame_gives_no_figure_of_change():
    report = measure([still(0)], [still(1)], full_meter())
    assert report.figures.keys() == {"depth_mse", "scuts"}
    assert (report.frames, report.pairs) == (1, 0)


# ---- refused


def test_lengths_that_differ_are_refused():
    with pytest.raises(SourceError, match="the output ended after 3 frames"):
        measure(pan(0, 4), pan(0, 3))
    with pytest.raises(SourceError, match="the source ended after 0 frames"):
        measure([], pan(0, 3))
    assert list(side_by_side(([1, 2], [3, 4]), "ab")) == [[1, 3], [2, 4]]


def test_nothing_at_all_is_refused():
    with pytest.raises(FrameSizeError, match="expected one output, got 0"):
        measure([], [])


def test_sizes_and_their_number_are_fixed():
    meter, picture = Meter(), still(0)
    half = picture[:, ::2, ::2]
    for wrong in ((picture,), (picture, picture[0]), (picture[None], picture)):
        with pytest.raises(FrameSizeError, match="expected a source and outputs"):
            meter.update(*wrong)
    meter.update(picture, half)
    for changed in ((half, half), (picture, picture), (picture, half, half)):
        with pytest.raises(FrameSizeError, match="as before"):
            meter.update(*changed)
    meter.update(picture, half)
    assert meter.report().frames == 2
    meter = Meter()
    meter.update(picture, half, half)
    with pytest.raises(FrameSizeError, match="expected one output, got 2"):
        meter.report()


@pytest.mark.parametrize("wrong", [{"rate": 0}, {"drift_seconds": -1}])
def test_a_rate_is_positive(wrong):
    with pytest.raises(ConfigError, match="positive frame rate"):
        Meter(MeterConfig(**wrong))
