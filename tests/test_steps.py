"""A run for each category, from the run of all."""

import shutil

from conftest import write_mvtec

from raydiff import steps
from raydiff.images import table
from raydiff.run_folder import ROLES, RunFolder


def test_a_run_for_each_category(tmp_path):
    data, out = write_mvtec(tmp_path / "mvtec", train=12), str(tmp_path / "run")
    steps.index(str(data), out)
    whole = RunFolder(out)
    found = steps.split(out)
    assert list(found) == ["bolt", "cloth"]
    for role in ROLES:
        parts = [table.read(RunFolder(uri).table(role)) for uri in found.values()]
        assert [set(part["category"].to_pylist()) for part in parts] == [{"bolt"}, {"cloth"}]
        uris = [uri for part in parts for uri in part["uri"].to_pylist()]
        assert sorted(uris) == table.read(whole.table(role))["uri"].to_pylist()
    assert table.read(RunFolder(found["bolt"]).images).num_rows == 12 + 2 * 4


def test_a_category_without_normals_has_no_run(tmp_path):
    data, out = write_mvtec(tmp_path / "mvtec", train=12), str(tmp_path / "run")
    shutil.rmtree(data / "cloth/train")
    steps.index(str(data), out)
    assert list(steps.split(out)) == ["bolt"]
