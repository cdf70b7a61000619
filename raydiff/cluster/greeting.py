"""A cluster asked who it is, in a process of its own: `python -m raydiff.cluster.greeting ADDRESS` prints JSON.

Ray's own clients wait as long as they like and leave much behind in their process; who asks can end this one.
"""

from __future__ import annotations

import json
import sys

import ray
from ray.exceptions import AuthenticationError
from ray.job_submission import JobSubmissionClient

from raydiff.cluster.capacity import described
from raydiff.cluster.connection import ADDRESS, connect
from raydiff.errors import ClusterError, RaydiffError


def greeting(address: str) -> str:
    """What answers at an address, a head's HOST:PORT or a job server's http://HOST:PORT, in one sentence.

    Raises:
        ClusterError: if nothing does, or the token is refused.
    """
    if address.startswith(("http://", "https://")):
        return _job_server(address)
    connect(address)
    return f"Ray {ray.__version__} answers at {address} and takes this token: {described()}"


def _job_server(address: str) -> str:
    try:
        version = JobSubmissionClient(address)._server_ray_version or "of unknown version"
    except AuthenticationError:
        raise ClusterError(
            f"the job server at {address} refuses this token, or asks for one; give its own (RAY_AUTH_MODE=token, "
            "RAY_AUTH_TOKEN_PATH)"
        ) from None
    except Exception as error:  # Ray's, and those of the HTTP client that it happens to use
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ClusterError(
            f"no job server answers at {address} ({reason}); is it up, and is this its HOST:PORT (8265 unless chosen "
            "otherwise)?"
        ) from None
    if version.split(".")[:2] != ray.__version__.split(".")[:2]:
        raise ClusterError(
            f"the cluster at {address} runs Ray {version}, and here is {ray.__version__}; install the same on both"
        )
    return (
        f"the job server at {address} (Ray {version}) takes this token: `ray job submit` finds it; commands and jobs "
        f"run here directly need the head's HOST:PORT in {ADDRESS} or --address, or neither"
    )


def main() -> None:
    """Print {"says": ...}, or {"error": ...}."""
    try:
        found = {"says": greeting(sys.argv[1])}
    except RaydiffError as error:
        found = {"error": str(error)}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
