"""The error of ours in what Ray makes of it: as it was raised, wrapped, or as text alone."""

from __future__ import annotations

import pytest
import torch
from ray.exceptions import OutOfMemoryError, RayTaskError, UserCodeException
from ray.train import TrainingFailedError
from ray.train.v2.api.exceptions import WorkerGroupError

from raydiff import cli, methods, steps
from raydiff.cluster.task_errors import as_ours, ours, told_in
from raydiff.errors import ClusterError, DataError, ModelFolderError, SettingsError, StorageError

SENTENCE = "no part of s3://plant is good; look at it"
TRACEBACK = f"""ray::_statistics() (pid=12, ip=127.0.0.2)
  File "train.py", line 7, in _statistics
    raise DataError("...")
raydiff.errors.DataError: {SENTENCE}
"""


def of_a_task(cause: Exception) -> Exception:
    """As `ray.get` raises it: of the cause's kind, with a traceback for its text."""
    return RayTaskError("_statistics", TRACEBACK, cause).as_instanceof_cause()


def of_ray_data() -> Exception:
    wrapped = of_a_task(UserCodeException("UDF failed to process a data block."))
    wrapped.__cause__ = None
    return wrapped


RAISED = [
    DataError(SENTENCE),
    of_a_task(DataError(SENTENCE)),
    of_ray_data(),
    WorkerGroupError("rank 0 failed", {0: of_a_task(DataError(SENTENCE))}),
    RuntimeError(f"The actor died because of an error raised in its creation task, {TRACEBACK}"),
]


@pytest.mark.parametrize("raised", RAISED, ids=lambda error: type(error).__name__)
def test_the_sentence_alone_is_raised(raised):
    with pytest.raises(DataError) as caught, as_ours():
        raise raised
    assert type(caught.value) is DataError
    assert str(caught.value) == SENTENCE
    assert caught.value.__suppress_context__ or caught.value is raised


OTHERS = [ValueError("x"), TrainingFailedError("lost"), RayTaskError("task", "ValueError: x", ValueError("x"))]


@pytest.mark.parametrize("raised", OTHERS)
def test_what_is_not_ours_stays_what_it_is(raised):
    with pytest.raises(type(raised)), as_ours():
        raise raised


def test_the_last_error_of_ours_in_a_text_counts_and_no_other_name():
    text = f"{TRACEBACK}\nDuring handling of the above:\nraydiff.errors.StorageError: gone\nraydiff.errors.Any: x"
    found = told_in(text)
    assert type(found) is StorageError
    assert str(found) == "gone"
    assert told_in("raydiff.errors.Any: x") is None
    assert ours(KeyError("x")) is None


OF_A_GPU = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has 1 MiB")
OF_TORCH = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes. Error code 12")


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (RayTaskError("task", "", OF_A_GPU).as_instanceof_cause(), "2.50 GiB"),
        (WorkerGroupError("rank 0 failed", {0: RayTaskError("task", "", MemoryError())}), "machine, or of a node"),
        (RayTaskError("task", f"RuntimeError: {OF_A_GPU}", RuntimeError()), "2.50 GiB"),
        (OutOfMemoryError("Task was killed due to the node running low on memory."), "Ray ended a worker"),
        (OF_TORCH, "99 bytes"),
    ],
    ids=["gpu", "process", "text", "node", "torch"],
)
def test_memory_that_ran_out_is_told_with_what_to_do(raised, said):
    with pytest.raises(ClusterError, match="does not suffice") as caught, as_ours():
        raise raised
    assert said in str(caught.value)
    assert "--set accumulation=2" in str(caught.value)


def test_the_command_line_prints_it_in_one_line(monkeypatch, capsys):
    def job() -> None:
        raise of_a_task(DataError(SENTENCE))

    monkeypatch.setattr("sys.argv", ["job"])
    with pytest.raises(SystemExit) as ended:
        cli.run(job)
    assert ended.value.code == 1
    assert capsys.readouterr().err == f"error: {SENTENCE}\n"


def test_an_error_in_a_replicas_start_is_told(monkeypatch):
    from types import SimpleNamespace

    from raydiff.scoring import deployment

    def failing(*given, **how):
        raise RuntimeError("Deploying application x failed")

    message = f"raised in its constructor: {TRACEBACK.replace('DataError', 'ModelFolderError')}"
    app = SimpleNamespace(deployments={"scorer": SimpleNamespace(message=message)})
    status = SimpleNamespace(applications={"x": app})
    monkeypatch.setattr(deployment, "serve", SimpleNamespace(run=failing, status=lambda: status))
    with pytest.raises(ModelFolderError, match="no part of"):
        deployment.run(None, "x")
    status.applications.clear()
    with pytest.raises(RuntimeError, match="Deploying"):
        deployment.run(None, "x")


# What can be known is looked at before anything starts


@pytest.mark.parametrize(
    "name", [name for name in methods.names() if "backbone" in methods.get(name).TrainSettings.model_fields]
)
def test_weights_that_are_not_there_are_told_before_anything_starts(name, tmp_path):
    from conftest import TO_BE_CHOSEN, tiny_settings

    given = tiny_settings(name, **TO_BE_CHOSEN.get(name, {}))
    methods.check({name: given})
    missing = str(tmp_path / "none.safetensors")
    with pytest.raises((SettingsError, StorageError), match=r"none\.safetensors is not there"):
        methods.check(
            {name: given.model_copy(update={"backbone": given.backbone.model_copy(update={"weights": missing})})}
        )


def test_images_of_which_none_can_be_read_end_a_run_at_index(tmp_path):
    folder = tmp_path / "line" / "train" / "good"
    folder.mkdir(parents=True)
    for number in range(8):
        (folder / f"{number}.png").write_bytes(b"no image")
    with pytest.raises(
        DataError, match=r"none of the \d+ images to train on can be read \(.*/line/train/good/\d.png: "
    ):
        steps.index(str(tmp_path), str(tmp_path / "run"))
