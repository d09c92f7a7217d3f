"""DDIM in numpy.  The figures are those of diffusers 0.42's DDIMScheduler for the same config."""

from typing import Any

import numpy as np
import pytest

from backends.local.studio.denoising import Ddim

CONFIG: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "set_alpha_to_one": False,
    "clip_sample": False,
    "prediction_type": "epsilon",
}


@pytest.mark.parametrize(
    ("fields", "times"),
    [
        ({"timestep_spacing": "leading"}, [751, 501, 251, 1]),
        ({"timestep_spacing": "trailing"}, [999, 749, 499, 249]),
        ({"timestep_spacing": "linspace"}, [999, 666, 333, 0]),
        ({"num_train_timesteps": 100}, [76, 51, 26, 1]),
    ],
)
def test_the_way_is_cut_up_as_the_config_says(fields: dict[str, Any], times: list[int]) -> None:
    assert Ddim(CONFIG | fields, 4).times == times


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_who_predicts_rightly_gets_the_picture_at_every_step(kind: str, schedule: str) -> None:
    ddim = Ddim(CONFIG | {"prediction_type": kind, "beta_schedule": schedule}, 10)
    random = np.random.default_rng(0)
    picture, noise = random.standard_normal((2, 1, 4, 8, 8))
    code = ddim.noised(picture, noise, ddim.times[0])
    for n, time in enumerate(ddim.times):
        unit = ddim.noised(np.ones(1), np.zeros(1), time)[0]
        right = {"epsilon": noise, "sample": picture, "v_prediction": unit * noise - np.sqrt(1 - unit**2) * picture}
        code, clean = ddim.step(code, right[kind], time)
        assert np.abs(clean - picture).max() < 1e-6
        if n + 1 < len(ddim.times):
            assert np.abs(code - ddim.noised(picture, noise, ddim.times[n + 1])).max() < 1e-6


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({}, [1.184092, 0.236818]),
        ({"prediction_type": "v_prediction"}, [0.718560, 0.143712]),
        ({"clip_sample": True, "clip_sample_range": 0.5}, [0.696215, 0.236818]),
    ],
)
def test_a_step_is_diffusers_own(fields: dict[str, Any], code: list[float]) -> None:
    found, _ = Ddim(CONFIG | fields, 4).step(np.array([1.0, 0.2]), np.array([0.5, 0.1]), 501)
    assert found == pytest.approx(code, abs=1e-5)


@pytest.mark.parametrize(
    "fields",
    [
        {"_class_name": "FlowMatchEulerDiscreteScheduler"},
        {"_class_name": "LCMScheduler"},
        {"thresholding": True},
        {"prediction_type": "flow"},
        {"beta_schedule": "sigmoid"},
        {"timestep_spacing": "random"},
    ],
)
def test_what_is_sampled_in_another_way_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"sampled|unknown"):
        Ddim(CONFIG | fields, 4)
