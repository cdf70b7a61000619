"""What the HTTP service answers to requests made from its own description (/openapi.json), sound ones and broken ones.

schemathesis makes them, in this process and always the same ones. Files in them are images; tests/test_service.py has
those that are none.
"""

from __future__ import annotations

import hashlib
import io
from types import SimpleNamespace

import hypothesis
import pytest
import schemathesis
from conftest import calibrated_model
from hypothesis import strategies
from PIL import Image
from schemathesis.specs.openapi.checks import negative_data_rejection

from raydiff import cluster
from raydiff.scoring.http_app import http_app
from raydiff.scoring.service import Arguments, Service
from raydiff.scoring.tokens import TOKEN, hashed_token
from raydiff.scoring.uploads import FORM


def image(width: int, height: int, kind: str) -> bytes:
    sink = io.BytesIO()
    Image.new("RGB", (width, height), "grey").save(sink, kind)
    return sink.getvalue()


sides = strategies.integers(1, 48)
schemathesis.openapi.format("binary", strategies.builds(image, sides, sides, strategies.sampled_from(["PNG", "JPEG"])))

# The description is the same whatever the model.
asks_for_a_token = SimpleNamespace(token_hash=hashlib.sha256().hexdigest())
api = schemathesis.openapi.from_asgi("/openapi.json", http_app(asks_for_a_token))
# The one thing that it cannot say is how many pages an image has: page=2 of a PNG is well said and has no answer.
api.config.checks.positive_data_acceptance.expected_statuses = ["2xx", "422"]


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    """The application of a replica with a model."""
    folder = calibrated_model(tmp_path_factory.mktemp("model"), "bolt", "cloth")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster, "use_assigned_device", lambda: "cpu")  # else Ray is asked
        patch.setenv(TOKEN, "horse-battery")
        return Service(Arguments(model=folder, max_seconds=600), hashed_token()).__serve_build_asgi_app__()


@api.parametrize()
@hypothesis.settings(
    max_examples=20,
    derandomize=True,
    database=None,
    deadline=None,  # a busy machine is no fault, here and in the health checks
    suppress_health_check=list(hypothesis.HealthCheck),
    phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],  # a request is small enough as it is
)
def test_requests_are_answered_as_the_description_says(case, app):
    # In a form all is text, and "0" is as good a boolean as "false".
    unsure = [negative_data_rejection] if case.media_type == FORM else []
    case.call_and_validate(app=app, headers={"Authorization": "Bearer horse-battery"}, excluded_checks=unsure)
