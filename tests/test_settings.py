"""Settings: typed, frozen, strict about names; and how a recipe merges nested groups."""

import pytest
from conftest import TO_BE_CHOSEN
from pydantic import Field, ValidationError

from raydiff import methods
from raydiff.errors import SettingsError
from raydiff.settings import Settings


class Inner(Settings):
    width: int = Field(3, ge=1)
    kind: str = "plain"


class Outer(Settings):
    rate: float = Field(0.5, gt=0, lt=1)
    steps: tuple[int, ...] = (1, 2)
    inner: Inner = Inner()
    named: dict[str, Inner] = Field(default_factory=dict)
    perhaps: Inner | None = None


def refusal(kind, values):
    with pytest.raises(SettingsError) as caught:
        kind.parse(values)
    return str(caught.value)


def test_plain_values_become_typed_ones():
    parsed = Outer.parse({"rate": "0.25", "steps": [4, 5], "inner": {"width": 7}})
    assert parsed == Outer(rate=0.25, steps=(4, 5), inner=Inner(width=7))
    assert parsed.inner.kind == "plain"
    assert Outer.parse(parsed.model_dump(mode="json")) == parsed


def test_settings_do_not_change():
    with pytest.raises(ValidationError, match="frozen"):
        Outer().rate = 0.1


def test_a_changed_copy_is_validated_and_leaves_the_first_as_it_is():
    first = Outer()
    second = first.changed(rate=0.1)
    assert (first.rate, second.rate) == (0.5, 0.1)
    assert second.steps == first.steps
    with pytest.raises(SettingsError, match=r"Outer\.rate: .*less than 1 \(got 3\)"):
        first.changed(rate=3)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"rtae": 1}, "Outer has no setting 'rtae'; did you mean 'rate'?"),
        ({"zzz": 1}, "Outer has no setting 'zzz'; known settings: rate, steps, inner, named, perhaps"),
        ({"inner": {"widht": 1}}, "Outer has no setting 'inner.widht'; did you mean 'inner.width'?"),
        ({"inner": {"zzz": 1}}, "Outer has no setting 'inner.zzz'; known settings: width, kind"),
        ({"perhaps": {"widht": 1}}, "Outer has no setting 'perhaps.widht'; did you mean 'perhaps.width'?"),
        ({"named": {"a": {"zzz": 1}}}, "Outer has no setting 'named.a.zzz'; known settings: width, kind"),
        ({"named": {"a": {"widht": 1}}}, "Outer has no setting 'named.a.widht'; did you mean 'named.a.width'?"),
    ],
)
def test_a_misspelt_name_is_refused_with_a_hint(values, sentence):
    assert refusal(Outer, values) == sentence


@pytest.mark.parametrize(
    ("values", "start", "end"),
    [
        ({"rate": "much"}, "Outer.rate: ", "(got 'much')"),
        ({"inner": {"width": 0}}, "Outer.inner.width: ", "(got 0)"),
        ({"steps": [1, "x"]}, "Outer.steps.1: ", "(got 'x')"),
        ({"inner": "small"}, "Outer.inner: ", "(got 'small')"),
    ],
)
def test_a_bad_value_is_named_with_what_was_given(values, start, end):
    sentence = refusal(Outer, values)
    assert sentence.startswith(start)
    assert sentence.endswith(end)


def test_all_that_is_wrong_is_said_at_once():
    sentence = refusal(Outer, {"rate": 2, "inner": {"width": 0}, "other": 1})
    assert sentence.count("; ") == 3  # between the three; one more before the hint
    for name in ("Outer.rate", "Outer.inner.width", "'other'"):
        assert name in sentence


def test_a_recipe_is_its_preset_where_nothing_is_changed():
    for name in methods.names():
        kind = methods.get(name)
        for preset, values in kind.presets.items():
            chosen = TO_BE_CHOSEN.get(name, {})
            recipe = methods.recipe(name, preset, chosen)
            assert isinstance(recipe, kind.TrainSettings)
            assert recipe == kind.TrainSettings.parse({**values, **chosen})


def test_a_nested_change_keeps_the_rest_of_its_group():
    plain = methods.recipe("lafite", "demo")
    changed = methods.recipe("lafite", "demo", {"backbone": {"grid": 10}, "unet": {"base_channels": 16}})
    assert changed.backbone == plain.backbone.changed(grid=10)
    assert changed.backbone.name == plain.backbone.name
    assert changed.unet == plain.unet.changed(base_channels=16)
    assert changed == plain.changed(backbone=changed.backbone, unet=changed.unet)


def test_changes_do_not_leak_into_the_preset():
    before = methods.recipe("lafite", "demo")
    methods.recipe("lafite", "demo", {"backbone": {"grid": 10, "timm_options": {"pad_type": "same"}}})
    assert methods.recipe("lafite", "demo") == before


def test_unknown_methods_presets_and_settings_are_named():
    with pytest.raises(SettingsError, match="no method 'nope'; the methods are diffusion_ad, glad, lafite, "):
        methods.recipe("nope", "demo")
    with pytest.raises(SettingsError, match="no preset 'nope'; it has demo, small, paper"):
        methods.recipe("lafite", "nope")
    with pytest.raises(SettingsError, match=r"did you mean 'backbone\.grid'"):
        methods.recipe("lafite", "demo", {"backbone": {"girds": 10}})
    with pytest.raises(SettingsError, match="no setting 'train_steps'"):
        methods.recipe("nearest_patch", "demo", {"train_steps": 10})


def test_a_rule_over_several_settings_is_told_in_its_own_sentence():
    with pytest.raises(SettingsError, match=r"^DiffusionADScore: denoising_steps \(1\) may be .*large_step \(100\)$"):
        methods.get("diffusion_ad").ScoreSettings.parse({"large_step": 100})
