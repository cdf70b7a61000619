"""Which replica a call goes to: by Serve's own rule, which knows of no replica that computes on all its cores."""

from __future__ import annotations

from typing import Any

from ray.serve._private.request_router import PowerOfTwoChoicesRequestRouter  # the one that Serve takes by default
from ray.serve.config import RequestRouterConfig

SECONDS = 5.0


class PatientRouter(PowerOfTwoChoicesRequestRouter):
    """Waits for a replica to say how much it has in hand.

    One that computes says so late. By default it is passed over after 0.1 s, with a warning, and asked again after a
    while that grows: on two cores the first result of an archive came some 15 s later.
    """

    queue_len_response_deadline_s = SECONDS
    max_queue_len_response_deadline_s = SECONDS


_NAMED: Any = f"{__name__}:{PatientRouter.__name__}"  # found by the processes that call; Ray's own type leaves text out
PATIENT = RequestRouterConfig(request_router_class=_NAMED)
