"""Data sets as they are published, in small: names, nesting and split files of exactly their shape."""

from __future__ import annotations

import json

import pytest
from test_folders_brought import MARKED, put, rows, said

from raydiff.errors import DataError
from raydiff.images.survey import survey

COLUMNS = "object,split,label,image,mask"


def visa(root) -> list[str]:
    """VisA of two categories, without its split; the lines of the split."""
    lines = [COLUMNS]
    for category in ("candle", "pcb1"):
        normals = [f"{category}/Data/Images/Normal/000{number}.JPG" for number in range(4)]
        defect, mask = f"{category}/Data/Images/Anomaly/000.JPG", f"{category}/Data/Masks/Anomaly/000.png"
        put(root, *normals, defect)
        put(root, mask, value=MARKED)
        (root / category / "image_anno.csv").write_text("image,label,mask\n")
        lines += [f"{category},train,normal,{path}," for path in normals[:3]]
        lines += [f"{category},test,normal,{normals[3]},", f"{category},test,anomaly,{defect},{mask}"]
    return lines


def write_split(root, lines) -> None:
    (root / "split_csv").mkdir()
    (root / "split_csv/1cls.csv").write_text("\n".join(lines) + "\n")
    (root / "split_csv/2cls_highshot.csv").write_text(COLUMNS + "\n")


def test_visa_has_its_own_split(tmp_path):
    root = tmp_path / "VisA"
    write_split(root, visa(root))
    found = survey(str(root))
    assert found.layout == "VisA, with its one-class split"
    assert set(found.images["dataset"].to_pylist()) == {"VisA"}
    told = rows(found, root)
    assert len(told) == 10
    assert told["pcb1/Data/Images/Normal/0002.JPG"] == ("pcb1", "train", 0, "good", None)
    assert told["pcb1/Data/Images/Normal/0003.JPG"] == ("pcb1", "test", 0, "good", None)
    mask = "candle/Data/Masks/Anomaly/000.png"
    assert told["candle/Data/Images/Anomaly/000.JPG"] == ("candle", "test", 1, "anomaly", mask)


def test_categories_that_are_not_there_are_left_out_and_images_that_are_not_listed_too(tmp_path):
    root = tmp_path / "below" / "VisA"
    lines = visa(root)
    put(root, "candle/Data/Images/Normal/0009.JPG")
    write_split(root, [*lines, "fryum,train,normal,fryum/Data/Images/Normal/0000.JPG,"])
    text = said(root.parent)
    assert "categories not there: 1\n    fryum" in text
    assert "images that the split does not list, left out: 1\n    candle/Data/Images/Normal/0009.JPG" in text
    assert len(survey(str(root)).images) == 10


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda lines: [*lines, "pcb1,train,normal,pcb1/Data/Images/Normal/0777.JPG,"], r"1 images that are not there"),
        (lambda lines: [line.replace("Masks", "Maske") for line in lines], r"2 images that are not there, or not with"),
        (lambda lines: [line.replace(",test,", ",dev,") for line in lines], "a split other than train and test"),
        (lambda lines: [line.replace("label", "kind") for line in lines], r"KeyError: 'label'"),
        (lambda lines: [line.replace("Images", "Bilder") for line in lines], r"lists 10 images that are not there"),
    ],
)
def test_a_split_that_does_not_fit(tmp_path, change, sentence):
    write_split(tmp_path, change(visa(tmp_path)))
    with pytest.raises(DataError, match=sentence):
        survey(str(tmp_path))


def real_iad(root, pixels: str, ending: str = ".png") -> dict:
    """Real-IAD of one category, and its split."""
    split = {"meta": {"prefix": "usb/", "normal_class": "OK", "pre_transform": None}, "train": [], "test": []}
    for part, kind in ((1, "OK"), (2, "OK"), (3, "OK"), (4, "NG/BX")):
        for camera in range(1, 6):
            name = f"{kind}/S{part:04d}/usb_{part:04d}_{kind.partition('/')[0]}_C{camera}_20231031120000"
            put(root, f"{pixels}/usb/{name}.jpg", value=100 + 20 * part + camera)
            marked = kind != "OK" and camera < 5  # the fifth camera does not see the defect
            if marked:
                put(root, f"{pixels}/usb/{name}{ending}", value=MARKED)
            split["train" if part < 3 else "test"].append(
                {
                    "category": "usb",
                    "anomaly_class": "BX" if marked else "OK",
                    "image_path": f"{name}.jpg",
                    "mask_path": f"{name}{ending}" if marked else None,
                }
            )
    return split


@pytest.mark.parametrize("folder", ["realiad_jsons", "realiad_jsons/realiad_jsons"])
@pytest.mark.parametrize("ending", [".png", "_mask.png"])
def test_real_iad_has_its_own_split_and_five_views_of_a_part(tmp_path, folder, ending):
    split = real_iad(tmp_path, "realiad_1024", ending)
    real_iad(tmp_path, "realiad_256", ending)
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / "usb.json").write_text(json.dumps(split))
    (tmp_path / "realiad_jsons/realiad_jsons_sv").mkdir()
    (tmp_path / "realiad_jsons/realiad_jsons_sv/usb.json").write_text("{}")
    found = survey(str(tmp_path))
    assert found.layout == "Real-IAD, with its split"
    told = rows(found, tmp_path)
    assert len(told) == 20
    assert all(path.startswith("realiad_1024/usb/") for path in told)
    name = "realiad_1024/usb/NG/BX/S0004/usb_0004_NG_C2_20231031120000"
    assert told[f"{name}.jpg"] == ("usb", "test", 1, "BX", name + ending)
    assert told[name.replace("C2", "C5") + ".jpg"] == ("usb", "test", 0, "good", None)
    parts = dict(zip(told, found.images["part"].to_pylist(), strict=True))
    assert sorted(set(parts.values())) == ["usb/NG/BX/S0004", *(f"usb/OK/S000{part}" for part in (1, 2, 3))]
    own = survey(str(tmp_path), part_from=None).images["part"].to_pylist()
    assert own == list(parts.values())


def test_dagm_has_masks_of_its_defects_alone(tmp_path):
    root = tmp_path / "DAGM"
    for category in ("Class1", "Class2"):
        put(root, *(f"{category}/{split}/{number:04d}.PNG" for split in ("Train", "Test") for number in range(1, 5)))
        put(root, *(f"{category}/{split}/Label/0002_label.PNG" for split in ("Train", "Test")), value=MARKED)
        (root / category / "Train/Label/Labels.txt").write_text("1\n")
    found = survey(str(root))
    assert found.layout.startswith("DAGM")
    told = rows(found, root)
    assert len(told) == 16
    assert told["Class1/Train/0001.PNG"] == ("Class1", "train", 0, "good", None)
    assert told["Class1/Test/0003.PNG"] == ("Class1", "test", 0, "good", None)
    assert told["Class2/Test/0002.PNG"] == ("Class2", "test", 1, "defect", "Class2/Test/Label/0002_label.PNG")
    assert told["Class2/Train/0002.PNG"][1:3] == ("train", 1)
    assert "neither trained on nor tested: 2\n    Class1/Train: 1\n    Class2/Train: 1" in said(root)


def test_pcb_bank_and_goods_ad_are_of_mvtecs_layout(tmp_path):
    for category, defect, picture in (("pcb5", "bad", "png"), ("drink_can", "deformation", "jpg")):
        put(tmp_path, f"{category}/train/good/000001.{picture}", f"{category}/test/good/000002.{picture}")
        put(tmp_path, f"{category}/test/{defect}/000003.{picture}")
        put(tmp_path, f"{category}/ground_truth/{defect}/000003.png", value=MARKED)
    told = rows(survey(str(tmp_path)), tmp_path)
    mask = "drink_can/ground_truth/deformation/000003.png"
    assert told["drink_can/test/deformation/000003.jpg"] == ("drink_can", "test", 1, "deformation", mask)
    assert told["pcb5/test/bad/000003.png"][4] == "pcb5/ground_truth/bad/000003.png"
