"""What is read of a request before a studio hears of it."""

import pytest

from backends.local.order import order
from backends.local.studio import field, shap_e
from backends.ports import Format, Local
from compat.canonical.error import InvalidRequest
from compat.canonical.model import Model
from compat.canonical.request import MeshRequest


@pytest.mark.parametrize(
    ("kind", "least", "most"),
    [
        ("field", field.RESOLUTION_MIN, field.RESOLUTION_MAX),
        ("diffusers", shap_e.GRID_MIN, shap_e.GRID_MAX),
    ],
)
def test_a_resolution_is_refused_with_the_engines_own_range(kind: Format, least: int, most: int) -> None:
    local = Local(name="m", path="m", format=kind, model=Model(name="m", backend="local", modality="3d"))

    def asked(resolution: int) -> MeshRequest:
        return MeshRequest(model="m", prompt="a vase", extra={"resolution": resolution})

    for sound in (least, most):
        assert order(asked(sound), local)[0]["resolution"] == sound
    for wrong in (least - 1, most + 1):
        with pytest.raises(InvalidRequest, match=f"'resolution': expected a whole number from {least} to {most}"):
            order(asked(wrong), local)
