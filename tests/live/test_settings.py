"""Settings of a live stream that may not be are refused, with what may be."""

import pytest

from live2diff_core.errors import ConfigError
from live2diff_core.live.settings import Live, LiveConfig

BAD = [
    ({"rate": 0}, "rate"),
    ({"rate": -5.0}, "rate"),
    ({"rate": 1e6}, "rate"),
    ({"rate": float("nan")}, "rate"),
    ({"similarity": -0.1}, "similarity"),
    ({"similarity": 1.5}, "similarity"),
    ({"start": "soon"}, "prime or wait"),
    ({"on_failure": "scream"}, "hold, passthrough or card"),
    ({"panic": "hold"}, "passthrough or card"),
    ({"first_retry": 0.0}, "first_retry"),
    ({"first_retry": 20.0}, "longest_retry"),
    ({"silence": 0.0}, "silence"),
]


@pytest.mark.parametrize(("settings", "named"), BAD)
def test_what_may_not_be_is_refused(settings, named):
    with pytest.raises(ConfigError, match=named):
        LiveConfig(**settings)


def test_the_defaults_and_the_limits_may_be():
    assert LiveConfig().first_retry == 0.5
    assert LiveConfig().longest_retry == 10
    LiveConfig(rate=1000, similarity=1, first_retry=3, longest_retry=3)
    Live(rate=0.1, similarity=0)
