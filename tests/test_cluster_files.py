"""What is under cluster/: manifests against KubeRay's schemas, the AWS file against Ray's, and all of them against the
code that they start. Nothing is started; the rules in CEL that the schemas also hold are not evaluated.
"""

from __future__ import annotations

import json
import os
import re
import runpy
import shlex
import tomllib
from pathlib import Path

import jsonschema
import pytest
import ray
import typer
import yaml
from packaging.requirements import Requirement
from ray.serve.schema import ServeDeploySchema

import raydiff
from raydiff import cli, methods
from raydiff.scoring import service

ROOT = Path(__file__).parent.parent
CLUSTER = ROOT / "cluster"
MANIFESTS = sorted((CLUSTER / "kuberay").glob("*.yaml"))
RAY = {path.stem: yaml.safe_load(path.read_text()) for path in MANIFESTS if "apiVersion: ray.io/" in path.read_text()}
JOBS = {name: manifest for name, manifest in RAY.items() if manifest["kind"] == "RayJob"}
AWS = yaml.safe_load((CLUSTER / "aws.yaml").read_text())
RAY_SCHEMA = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


@pytest.fixture(scope="module")
def crds() -> dict[str, dict]:
    """By kind, the schema of ray.io/v1 with unknown fields refused."""
    folder = os.environ.get("KUBERAY_CRDS")
    if not folder:
        pytest.skip(
            "THE KUBERAY MANIFESTS ARE NOT VALIDATED: KUBERAY_CRDS does not name a folder with KubeRay's custom "
            "resource definitions (helm-chart/kuberay-operator/crds in its repository)"
        )
    found = {}
    for kind in ("RayCluster", "RayJob", "RayService"):
        text = (Path(folder) / f"ray.io_{kind.lower()}s.yaml").read_text()
        definition = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))["spec"]
        assert definition["names"]["kind"] == kind
        version = next(version for version in definition["versions"] if version["name"] == "v1")
        schema = version["schema"]["openAPIV3Schema"]
        metadata = schema["properties"].pop("metadata")  # checked by Kubernetes itself, not by the definition
        found[kind] = strict(schema)
        found[kind]["properties"]["metadata"] = metadata
    return found


def strict(schema: dict) -> dict:
    """A structural schema in which an object has the properties that are named and no others.

    Kubernetes drops the others without a word. Numbers in places for text or numbers are `anyOf` in the schema itself.
    """
    closed = dict(schema)
    if "properties" in schema:
        closed["properties"] = {name: strict(each) for name, each in schema["properties"].items()}
    for inside in ("items", "additionalProperties"):
        if isinstance(schema.get(inside), dict):
            closed[inside] = strict(schema[inside])
    open_ended = "additionalProperties" in schema or schema.get("x-kubernetes-preserve-unknown-fields")
    if schema.get("type") == "object" and not open_ended:
        closed["additionalProperties"] = False
    return closed


def errors(manifest: dict, crds: dict[str, dict]) -> list[str]:
    found = jsonschema.Draft7Validator(crds[manifest["kind"]]).iter_errors(manifest)
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in found]


def ray_cluster(manifest: dict) -> dict:
    spec = manifest["spec"]
    return spec if manifest["kind"] == "RayCluster" else spec.get("rayClusterSpec") or spec["rayClusterConfig"]


def pods(manifest: dict) -> dict[str, dict]:
    """Pod specs by what they are for."""
    cluster = ray_cluster(manifest)
    found = {"head": cluster["headGroupSpec"]["template"]["spec"]}
    for group in cluster["workerGroupSpecs"]:
        found[group["groupName"]] = group["template"]["spec"]
    if manifest["kind"] == "RayJob":
        found["submitter"] = manifest["spec"]["submitterPodTemplate"]["spec"]
    return found


def inside(value):
    """Every mapping in nested values."""
    if isinstance(value, dict):
        yield value
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from inside(each)


def memory(text: str) -> int:
    return int(text[:-2]) * UNITS[text[-2:]]


def test_all_that_is_promised_is_there():
    kinds = {name: manifest["kind"] for name, manifest in RAY.items()}
    assert kinds == {
        "cluster": "RayCluster",
        "score-archive": "RayJob",
        "serve": "RayService",
        "train": "RayJob",
        "tune": "RayJob",
    }
    assert {manifest["apiVersion"] for manifest in RAY.values()} == {"ray.io/v1"}


@pytest.mark.parametrize("name", RAY)
def test_manifest_against_kuberays_definition(name, crds):
    assert errors(RAY[name], crds) == []


def test_a_misspelt_field_is_refused(crds):
    job = json.loads(json.dumps(RAY["train"]))
    job["spec"]["entrypont"] = job["spec"].pop("entrypoint")
    job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["imag"] = "x"
    job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["minReplicas"] = "one"
    found = errors(job, crds)
    assert len(found) == 3
    for name in ("'entrypont'", "'imag'", "'one'"):
        assert sum(name in each for each in found) == 1, found


def test_strict_closes_objects_but_for_those_that_take_anything():
    schema = {
        "type": "object",
        "properties": {
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
            "list": {"type": "array", "items": {"type": "object", "properties": {"port": {"type": "integer"}}}},
            "amount": {"anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": True},
        },
    }
    validator = jsonschema.Draft7Validator(strict(schema))
    right = {"labels": {"a": "b"}, "any": {"c": 1}, "list": [{"port": 1}], "amount": "1Gi"}
    assert validator.is_valid(right)
    assert validator.is_valid({**right, "amount": 1})
    for wrong in ({"label": {}}, {"list": [{"prt": 1}]}, {"labels": {"a": 1}}, {"amount": 1.5}):
        assert not validator.is_valid({**right, **wrong}), wrong


@pytest.mark.parametrize("name", JOBS)
def test_entrypoints_name_jobs_and_options_that_exist(name, monkeypatch):
    python, script, *arguments = shlex.split(JOBS[name]["spec"]["entrypoint"])
    place = Path(script)
    assert python == "python"
    assert place.parent == Path("/opt/raydiff/jobs")  # where the image has them
    assert f"COPY jobs {place.parent}" in (CLUSTER / "Containerfile").read_text()
    ran = []
    monkeypatch.setattr(cli, "run", ran.append)
    runpy.run_path(str(ROOT / "jobs" / place.name), run_name="__main__")
    job = typer.Typer()
    job.command()(ran[0])
    context = typer.main.get_command(job).make_context(name, arguments)  # a wrong or missing option raises here
    named = context.params.get("methods_") or context.params.get("model")
    for method in named.split(",") if named else ():
        assert method.rsplit("/", 1)[-1] in methods.names()


def test_the_service_exists_and_takes_its_arguments():
    given = yaml.safe_load(RAY["serve"]["spec"]["serveConfigV2"])
    config = ServeDeploySchema.model_validate(given)
    assert config.model_dump(exclude_unset=True) == given  # what Serve does not know it drops
    (application,) = config.applications
    module, _, name = application.import_path.partition(":")
    assert (module, getattr(service, name)) == (service.__name__, service.build)
    built = service.build(application.args)
    assert [deployment.name for deployment in application.deployments] == [built._bound_deployment.name]


@pytest.mark.parametrize("name", RAY)
def test_the_cluster_asks_for_a_token(name):
    assert ray_cluster(RAY[name])["authOptions"] == {"mode": "token"}


@pytest.mark.parametrize("name", RAY)
def test_the_version_of_ray_is_that_of_the_project(name):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (wanted,) = (Requirement(each) for each in project["dependencies"] if each.startswith("ray["))
    assert wanted.specifier.contains(ray_cluster(RAY[name])["rayVersion"])


def test_one_image_of_this_version_everywhere():
    images = {value["image"] for document in [*RAY.values(), AWS] for value in inside(document) if "image" in value}
    assert len(images) == 1
    assert images.pop().rsplit(":", 1)[1] == raydiff.__version__


@pytest.mark.parametrize("name", RAY)
def test_nothing_runs_as_root_or_may_become_root(name):
    containers = []
    for pod in pods(RAY[name]).values():
        security = pod["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["runAsUser"] > 0
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        assert not any("hostPath" in volume for volume in pod.get("volumes", []))
        containers += pod["containers"] + pod.get("initContainers", [])
    cluster = ray_cluster(RAY[name])
    if cluster.get("enableInTreeAutoscaling"):
        containers.append(cluster["autoscalerOptions"])  # a container beside the head
    for container in containers:
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


@pytest.mark.parametrize("name", RAY)
def test_gpus_are_asked_for_by_workers_alone(name):
    workers = {group["groupName"] for group in ray_cluster(RAY[name])["workerGroupSpecs"]}
    for role, pod in pods(RAY[name]).items():
        (container,) = pod["containers"]
        asked, limit = container["resources"]["requests"], container["resources"]["limits"]
        assert asked.get("nvidia.com/gpu") == limit.get("nvidia.com/gpu") == (1 if role in workers else None)
        if role in workers:
            assert int(limit["cpu"]) >= 2  # one beside each GPU, and one at least to decode with
    assert ray_cluster(RAY[name])["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0", "num-gpus": "0"}


@pytest.mark.parametrize("name", RAY)
def test_shared_memory_holds_rays_object_store(name):
    for role, pod in pods(RAY[name]).items():
        if role == "submitter":
            continue
        (container,) = pod["containers"]
        (mount,) = (mount for mount in container["volumeMounts"] if mount["mountPath"] == "/dev/shm")
        (volume,) = (volume for volume in pod["volumes"] if volume["name"] == mount["name"])
        assert volume["emptyDir"]["medium"] == "Memory"
        whole = memory(container["resources"]["limits"]["memory"])
        assert 0.3 * whole <= memory(volume["emptyDir"]["sizeLimit"]) < 0.5 * whole


@pytest.mark.parametrize("name", JOBS)
def test_a_job_asks_for_gpus_that_its_cluster_may_start(name):
    # cluster.gpus() counts those that are there, and with none everything would run on CPUs.
    asked = int(re.search(r"--gpus (\d+)", RAY[name]["spec"]["entrypoint"])[1])
    (group,) = ray_cluster(RAY[name])["workerGroupSpecs"]
    assert group["minReplicas"] == group["replicas"] == 0
    assert asked <= group["maxReplicas"]
    assert ray_cluster(RAY[name])["enableInTreeAutoscaling"] is True


def test_no_credentials_in_the_files():
    for path in (each for each in CLUSTER.rglob("*") if each.is_file()):
        assert not re.search(r"AKIA[0-9A-Z]{16}|-----BEGIN|aws_secret_access_key\s*=", path.read_text()), path
    for name, manifest in RAY.items():
        for value in inside(manifest):
            if re.search(r"KEY|SECRET|TOKEN|PASSWORD", str(value.get("name", ""))):
                assert "value" not in value, name
        for role, pod in pods(manifest).items():
            (container,) = pod["containers"]
            secrets = ["raydiff-object-store", *(["raydiff-serve"] if name == "serve" else [])]
            given = [] if role == "submitter" else [{"secretRef": {"name": secret}} for secret in secrets]
            assert container.get("envFrom", []) == given


def test_aws_against_rays_schema():
    jsonschema.validate(AWS, RAY_SCHEMA)
    for key, value in (("max_worker", 4), ("head_node_type", 4)):
        with pytest.raises(jsonschema.ValidationError, match=key if key not in AWS else "4"):
            jsonschema.validate({**AWS, key: value}, RAY_SCHEMA)


def test_aws_has_a_token_closed_ports_and_no_defaults_of_rays():
    options = AWS["docker"]["run_options"]
    (token,) = AWS["file_mounts"]
    assert "--env RAY_AUTH_MODE=token" in options
    assert f"--env RAY_AUTH_TOKEN_PATH={token}" in options
    assert any("--dashboard-host=127.0.0.1" in command for command in AWS["head_start_ray_commands"])
    for commands in ("initialization_commands", "setup_commands", "head_setup_commands"):
        assert AWS[commands] == []
    nodes = AWS["available_node_types"]
    for node in nodes.values():
        config = node["node_config"]
        assert config["SecurityGroupIds"]  # else Ray makes one that opens SSH to everybody
        assert config["MetadataOptions"] == {"HttpTokens": "required"}
        assert config["IamInstanceProfile"]
    assert nodes["gpu"]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert nodes["gpu"]["min_workers"] == 0
    assert nodes[AWS["head_node_type"]]["resources"] == {"CPU": 0}


def test_the_image_holds_what_is_copied_and_does_not_run_as_root():
    lines = (CLUSTER / "Containerfile").read_text().splitlines()
    sources = {name for line in lines if line.startswith("COPY ") for name in line.split()[1:-1]}
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert {f"!{name}" for name in sources} == {line for line in ignored if line.startswith("!")}
    assert all((ROOT / name).exists() for name in sources)
    user = [line for line in lines if line.startswith("USER ")][-1].split()[1]
    assert int(user.split(":")[0]) == pods(RAY["train"])["head"]["securityContext"]["runAsUser"]


def test_the_policy_lets_nothing_be_deleted_but_work():
    (text,) = re.findall(r"```json\n(.*?)```", (CLUSTER / "README.md").read_text(), re.DOTALL)
    statements = json.loads(text)["Statement"]
    for statement in statements:
        actions, resources = statement["Action"], statement["Resource"]
        assert statement["Effect"] == "Allow"
        assert "*" not in "".join(actions)
        if any(action.startswith("s3:Delete") for action in actions):
            assert all(re.search(r"/(_work|work)/\*$", resource) for resource in resources)
