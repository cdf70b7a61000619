"""Running a command as a Ray job, through a cluster's job server: its log as it comes, and nothing of Ray's."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from raydiff import typed, verbosity

FAILED = 1  # the exit status of a job that has none of its own


def run_job(environment: Mapping[str, str], gcs: str, command: Sequence[str], working_dir: str) -> int:
    """Submit the command, show its log until it ends, and give its exit status.

    Args:
        environment: what leads to the job server: RAY_ADDRESS, its token and what keeps proxies out.
        gcs: the cluster's address. Ray Train asks for its state without, and there may be several Rays here.
        command: run in a copy of `working_dir`.
    """
    with _set(environment):
        from ray.job_submission import JobSubmissionClient

        for name in ("ray", "ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk"):
            logging.getLogger(name).setLevel(verbosity.level())
        logging.getLogger("ray._private.runtime_env.working_dir").setLevel(logging.ERROR)  # .git stays here: of course
        # Ray has settled, when it was imported, whether it looks for a token by itself.
        token = Path(environment["RAY_AUTH_TOKEN_PATH"]).read_text().strip()
        client = JobSubmissionClient(headers={"Authorization": f"Bearer {token}"})
        variables = {typed.FOLDER: os.getcwd(), "RAY_ADDRESS": gcs}
        given: dict[str, Any] = {"working_dir": working_dir, "env_vars": variables}
        job = client.submit_job(entrypoint=shlex.join(command), runtime_env=given)
        asyncio.run(_show(client, job))
        info = client.get_job_info(job)
    if info.driver_exit_code is not None:
        return int(info.driver_exit_code)
    print(f"the job has no exit status: {info.message}")
    return FAILED


async def _show(client: Any, job: str) -> None:
    async for lines in client.tail_job_logs(job):
        print("".join(verbosity.told(lines.splitlines(keepends=True))), end="", flush=True)


@contextlib.contextmanager
def _set(changes: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in changes}
    os.environ |= changes
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
