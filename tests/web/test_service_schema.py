"""What the service says of itself in OpenAPI, held against what it does, with requests that nobody would write."""

from contextlib import closing, suppress

import pytest
from scripted import ScriptedPipeline, engine

from mmaudio.web.jobs import Ask

EXAMPLES = 10  # of valid and of invalid requests each, per operation


def steer(case, made):
    """What valid requests have by chance are no generations that exist, and no videos."""
    if "id" in (case.path_parameters or {}):
        job = made.submit(Ask("tiny_16k", prompt="rain"))
        assert job.wait(60)
        case.path_parameters |= {"id": job.id} | ({"name": "1.flac"} if "name" in case.path_parameters else {})
    elif case.method == "POST":
        options = case.body.get("options", {}) if isinstance(case.body, dict) else {}
        case.body = {"options": {**options, "prompt": "rain"}}


def test_every_operation_does_what_it_says(tmp_path):
    schemathesis = pytest.importorskip("schemathesis", reason="needs schemathesis")
    pytest.importorskip("fastapi_offline", reason="needs the packages of extra `web`")
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis.errors import Unsatisfiable
    from schemathesis.specs.openapi.checks import positive_data_acceptance

    from mmaudio.web.service import create_app

    bounded = settings(
        max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    codes = []
    with closing(engine(ScriptedPipeline(), tmp_path, max_queue=4)) as made:

        def hold_to(operation, mode):
            @bounded
            @given(case=operation.as_strategy(generation_mode=mode))
            def hold(case):
                if mode is schemathesis.GenerationMode.POSITIVE and len(codes) % 2:
                    steer(case, made)
                # No schema can say which bytes are a video.
                codes.append(case.call_and_validate(excluded_checks=[positive_data_acceptance]).status_code)

            with suppress(Unsatisfiable):  # nothing can be wrong in a request without parts
                hold()

        for found in schemathesis.openapi.from_asgi("/openapi.json", create_app(made)).get_all_operations():
            for mode in schemathesis.GenerationMode:
                hold_to(found.ok(), mode)
    assert len(codes) > 5 * EXAMPLES
    assert {200, 202, 204, 404, 422} <= set(codes)
    assert max(codes) < 500
