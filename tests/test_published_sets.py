"""Data sets as they are published, in small: names, nesting and split files of exactly their shape."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from test_folders_brought import BLACK, MARKED, put, rows, said

from raydiff.errors import DataError
from raydiff.images.layouts import known
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


def dagm(root) -> None:
    for category in ("Class1", "Class2"):
        put(root, *(f"{category}/{split}/{number:04d}.PNG" for split in ("Train", "Test") for number in range(1, 5)))
        put(root, *(f"{category}/{split}/Label/0002_label.PNG" for split in ("Train", "Test")), value=MARKED)
        (root / category / "Train/Label/Labels.txt").write_text("1\n")


def test_dagm_has_masks_of_its_defects_alone(tmp_path):
    root = tmp_path / "DAGM"
    dagm(root)
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


def test_mpdd_names_its_masks_as_mvtec_does(tmp_path):
    root = tmp_path / "MPDD"
    mpdd(root)
    assert rows(survey(str(root)), root) == {
        "bracket_black/train/good/000.png": ("bracket_black", "train", 0, "good", None),
        "bracket_black/test/good/000.png": ("bracket_black", "test", 0, "good", None),
        "bracket_black/test/hole/000.png": (
            *("bracket_black", "test", 1, "hole"),
            "bracket_black/ground_truth/hole/000_mask.png",
        ),
    }


# Each of them, by its own shape


def mvtec(root) -> None:
    put(root, "bottle/train/good/000.png", "bottle/test/good/000.png", "bottle/test/broken_large/000.png")
    put(root, "bottle/ground_truth/broken_large/000_mask.png", value=MARKED)
    for text in ("license.txt", "readme.txt", "bottle/license.txt"):
        (root / text).write_text("")


def mvtec_2(root) -> None:
    put(root, "can/train/good/000_regular.png", "can/validation/good/000_regular.png")
    put(root, "can/test_public/good/000_regular.png", "can/test_public/bad/000_overexposed.png")
    put(root, "can/test_private/000_regular.png", "can/test_private_mixed/000_mixed.png")
    put(root, "can/test_public/ground_truth/bad/000_overexposed_mask.png", value=MARKED)


def loco(root) -> None:
    put(root, *(f"juice_bottle/{place}/good/000.png" for place in ("train", "validation", "test")))
    for kind in ("logical_anomalies", "structural_anomalies"):
        put(root, f"juice_bottle/test/{kind}/000.png")
        put(root, f"juice_bottle/ground_truth/{kind}/000/000.png", value=MARKED)
    (root / "juice_bottle/defects_config.json").write_text("[]")


def mpdd(root) -> None:
    place = "bracket_black"
    put(root, f"{place}/train/good/000.png", f"{place}/test/good/000.png", f"{place}/test/hole/000.png")
    put(root, f"{place}/ground_truth/hole/000_mask.png", value=MARKED)


def whole_visa(root) -> None:
    write_split(root, visa(root))


def pcb_bank(root) -> None:
    put(root, "pcb5/train/good/000001.png", "pcb5/test/good/000002.png", "pcb5/test/bad/000003.png")
    put(root, "pcb5/ground_truth/bad/000003.png", value=MARKED)


def btad(root) -> None:
    put(root, "01/train/ok/0000.bmp", "01/test/ok/0000.bmp", "01/test/ko/0001.bmp")
    put(root, "01/ground_truth/ko/0001.bmp", value=MARKED)


def kolektor(root) -> None:
    for part in (f"kos{number:02d}" for number in range(1, 7)):
        put(root, f"{part}/Part0.jpg", f"{part}/Part1.jpg")
        put(root, f"{part}/Part0_label.bmp", value=BLACK)
        put(root, f"{part}/Part1_label.bmp", value=MARKED)


def kolektor_2(root) -> None:
    for split, number in (("train", 10000), ("test", 20000)):
        put(root, f"{split}/{number}.png", f"{split}/{number + 1}.png")
        put(root, f"{split}/{number}_GT.png", value=BLACK)
        put(root, f"{split}/{number + 1}_GT.png", value=MARKED)


def whole_real_iad(root) -> None:
    split = real_iad(root, "realiad_1024")
    (root / "realiad_jsons/realiad_jsons").mkdir(parents=True)
    (root / "realiad_jsons/realiad_jsons/usb.json").write_text(json.dumps(split))


def goods_ad(root) -> None:
    put(root, "drink_can/train/good/000001.jpg", "drink_can/test/good/000002.jpg")
    put(root, "drink_can/test/deformation/000003.jpg")
    put(root, "drink_can/ground_truth/deformation/000003.png", value=MARKED)


SPLITS = "by folders called ground_truth, test, train"
SETS = {  # the layout, why, and how many images train (normals), test normal, defective and of unknown label
    mvtec: ("mvtec", SPLITS, (1, 1, 1, 0)),
    mvtec_2: (
        *("mvtec", "by folders called ground_truth, test_private, test_private_mixed, test_public and 2 more"),
        (2, 1, 1, 2),
    ),
    loco: ("mvtec", "by folders called ground_truth, test, train, validation", (2, 1, 2, 0)),
    mpdd: ("mvtec", SPLITS, (1, 1, 1, 0)),
    whole_visa: ("visa", "by split_csv/1cls.csv", (6, 2, 2, 0)),
    pcb_bank: ("mvtec", SPLITS, (1, 1, 1, 0)),
    dagm: ("dagm", "by masks in folders called Label, such as Class1/Test/Label/0002_label.PNG", (6, 6, 2, 0)),
    btad: ("mvtec", SPLITS, (1, 1, 1, 0)),
    kolektor: ("marked", "by 12 masks beside their images, such as Part0_label.bmp", (5, 1, 6, 0)),
    kolektor_2: ("mvtec", "by folders called test, train", (1, 1, 1, 0)),
    whole_real_iad: ("real-iad", "by realiad_jsons/realiad_jsons/usb.json", (10, 6, 4, 0)),
    goods_ad: ("mvtec", SPLITS, (1, 1, 1, 0)),
}


@pytest.fixture(params=SETS, ids=lambda made: made.__name__)
def published(request, tmp_path) -> tuple[Path, str, str, tuple[int, ...]]:
    """A data set of those above: where it lies, its layout, why, and its counts."""
    request.param(tmp_path / "set")
    return tmp_path / "set", *SETS[request.param]


def test_each_set_is_recognised_and_says_why(published):
    root, name, why, counts = published
    found = survey(str(root))
    assert (found.layout_name, found.why) == (name, why)
    told = Counter((split, label) for _, split, label, *_ in rows(found, root).values())
    assert tuple(told[place] for place in (("train", 0), ("test", 0), ("test", 1), ("test", None))) == counts
    assert all(row[4] for row in rows(found, root).values() if row[1:3] == ("test", 1))  # each defect has its mask
    assert f"layout: {name}, {why}" in said(root)


def test_each_set_can_be_named_and_is_the_same_then(published):
    root, name, why, _ = published
    found = survey(str(root), layout=known.parse(name))
    assert (found.layout_name, found.why) == (name, why)
    assert found.images.equals(survey(str(root)).images)
