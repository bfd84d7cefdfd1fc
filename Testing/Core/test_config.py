"""Settings: validation, JSON, texts from the command line, presets."""

import json
from dataclasses import FrozenInstanceError
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from MMRegCore.config import (
    InstanceSettings,
    McboSettings,
    RegistrationSettings,
    as_text,
    describe,
    load_preset,
    preset_description,
    preset_names,
    with_changes,
)
from MMRegCore.errors import InputError


def flat(settings: RegistrationSettings) -> dict[str, object]:
    return {shown.key: shown.value for shown in describe(settings)}


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_survives_json_and_says_everything(name):
    settings = load_preset(name)
    assert RegistrationSettings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings
    description = preset_description(name)
    assert description.endswith((".", ")")) or description.count(".") <= 1
    assert len(description) > 20


def test_presets_are_those_that_are_promised():
    promised = {"lc2", "mcbo", "mcbo-published", "mcbo-clem", "dns", "dns-mr", "multiprop", "gradient-guided", "lapirn"}
    assert promised == set(preset_names())


@pytest.mark.parametrize(
    ("name", "group"), [("lc2", "lc2"), ("dns-mr", "dns"), ("mcbo", "mcbo"), ("lapirn", "learned")]
)
def test_the_group_of_a_method_holds_its_settings(name, group):
    settings = load_preset(name)
    assert settings.method_group == group
    assert getattr(settings, group) is not None


def test_published_preset_is_the_paper():
    published = load_preset("mcbo-published")
    assert published.fusion == "signed-max"
    assert published.working_spacing_mm == "native"
    mcbo = published.mcbo
    assert dict(zip(mcbo.strides, mcbo.weights, strict=True)) == {1: 0.10, 2: 0.27, 4: 0.27, 6: 0.36}
    assert (mcbo.half_width, mcbo.mind_radius, mcbo.mind_dilation) == (4, 1, 2)
    assert mcbo.coefficients == (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
    assert mcbo.inverse_consistency_iterations == 15
    assert not mcbo.masked
    assert (mcbo.instance.iterations, mcbo.instance.regularisation, mcbo.instance.grid_spacing) == (15, 1.25, 2)


def test_clem_preset_is_the_papers_second_setting():
    mcbo = load_preset("mcbo-clem").mcbo
    assert mcbo.strides == (1, 2, 4)
    assert mcbo.weights == pytest.approx((1 / 3, 1 / 3, 1 / 3))


def test_default_preset_uses_the_masks():
    assert load_preset("mcbo").mcbo.masked


def test_unknown_preset_suggests_the_nearest():
    with pytest.raises(InputError, match="did you mean 'mcbo-published'"):
        load_preset("mcbo-publised")
    with pytest.raises(InputError, match="mcbo-clem"):
        preset_description("nothing like it")


def test_changes_are_read_as_the_settings_own_kind():
    changed = with_changes(
        RegistrationSettings(),
        {
            "mcbo.strides": "2, 4,6",
            "mcbo.weights": "1/3,1/3,1/3",
            "mcbo.instance.iterations": "3",
            "mcbo.instance.learning_rate": "1e-2",
            "mcbo.masked": "off",
            "working_spacing_mm": "0.75",
            "fusion": "magnitude",
        },
    )
    assert changed.mcbo.strides == (2, 4, 6)
    assert changed.mcbo.weights == pytest.approx([1 / 3] * 3)
    assert changed.mcbo.instance == InstanceSettings(iterations=3, learning_rate=0.01)
    assert changed.mcbo.masked is False
    assert changed.working_spacing_mm == 0.75
    assert changed.fusion == "magnitude"


def test_changes_leave_the_rest_alone():
    before = load_preset("mcbo-clem")
    after = with_changes(before, {"mcbo.half_width": "6"})
    different = {key for key, value in flat(after).items() if value != flat(before)[key]}
    assert different == {"mcbo.half_width"}
    assert before == load_preset("mcbo-clem")


def test_changes_may_be_values():
    assert with_changes(RegistrationSettings(), {"mcbo.half_width": 3}).mcbo.half_width == 3


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("mcbo.strids", "1", "did you mean 'mcbo.strides'"),
        ("mcbo.instance.iteration", "1", "did you mean 'mcbo.instance.iterations'"),
        ("mcbo", "1", "name of a setting"),
        ("mcbo.strides", "1,two", "expected mcbo.strides to be a list.*whole number.*got '1,two'"),
        ("mcbo.strides", "", "mcbo.strides"),
        ("mcbo.strides", "0,2,4,6", "at least 1 voxel; got 0"),
        ("mcbo.strides", "2,2,4,6", "every stride once"),
        ("mcbo.strides", "2,4,6", "as many weights as strides"),
        ("mcbo.weights", "0.1,0.1,0.1,0.1", "add up to 1"),
        ("mcbo.weights", "-1,1,1,0", "at least 0"),
        ("mcbo.weights", "nan,0,0,1", "a number"),
        ("mcbo.weights", "1/0,0,0,1", "a number"),
        ("mcbo.half_width", "2.5", "a whole number; got '2.5'"),
        ("mcbo.half_width", "99", "at most 12; got 99"),
        ("mcbo.masked", "perhaps", "true or false"),
        ("fusion", "max", "'signed-max' or 'mean' or 'magnitude' or 'confidence'; got 'max'"),
        ("working_spacing_mm", "-0.5", "at least"),
        ("working_spacing_mm", "fine", "a number or 'native' or 'auto'; got 'fine'"),
        ("working_spacing_mm", "inf", "a number"),
    ],
)
def test_bad_changes_say_what_is_wrong(key, value, message):
    with pytest.raises(InputError, match=message):
        with_changes(RegistrationSettings(), {key: value})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"method": "magic"}, "expected method to be 'mcbo'"),
        ({"mcbo": {"halfwidth": 3}}, "did you mean 'mcbo.half_width'"),
        (
            {"mcbo": {"instance": {"iterations": "15"}}},
            "expected mcbo.instance.iterations to be a whole number; got '15'",
        ),
        ({"mcbo": {"half_width": True}}, "mcbo.half_width"),
        ({"mcbo": {"masked": 1}}, "mcbo.masked"),
        ({"mcbo": 3}, "expected mcbo to be a JSON object; got 3"),
    ],
)
def test_bad_json_says_what_is_wrong(values, message):
    with pytest.raises(InputError, match=message):
        RegistrationSettings.from_dict(values)


def test_json_may_leave_defaults_out_and_write_numbers_either_way():
    settings = RegistrationSettings.from_dict({"working_spacing_mm": 1, "mcbo": {"half_width": 3.0}})
    assert settings == RegistrationSettings(working_spacing_mm=1.0, mcbo=McboSettings(half_width=3))
    assert isinstance(settings.working_spacing_mm, float)
    assert isinstance(settings.mcbo.half_width, int)


def test_settings_check_themselves_and_stay_as_they_are():
    with pytest.raises(InputError, match="half_width"):
        McboSettings(half_width=0)
    settings = McboSettings(strides=[1, 2], weights=[0.5, 0.5])
    assert settings.strides == (1, 2)
    assert hash(settings) == hash(McboSettings(strides=(1, 2), weights=(0.5, 0.5)))
    with pytest.raises(FrozenInstanceError):
        settings.half_width = 3


def test_every_setting_explains_itself():
    shown = list(describe(RegistrationSettings()))
    assert len({item.key for item in shown}) == len(shown)
    for item in shown:
        assert item.help.endswith("."), item.key
        assert item.kind
        numeric = isinstance(item.value, tuple | int | float) and not isinstance(item.value, bool)
        assert not numeric or item.minimum is not None, item.key


@given(st.lists(st.fractions(min_value=0, max_value=1, max_denominator=999), min_size=1, max_size=6))
def test_texts_round_trip(parts):
    total = sum(parts) or Fraction(1)
    weights = [float(part / total) for part in parts] if sum(parts) else [1.0] + [0.0] * (len(parts) - 1)
    settings = RegistrationSettings(mcbo=McboSettings(strides=range_of(len(parts)), weights=tuple(weights)))
    texts = {key: as_text(value) for key, value in flat(settings).items()}
    assert with_changes(RegistrationSettings(), texts) == settings


def range_of(count: int) -> tuple[int, ...]:
    return tuple(range(1, count + 1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lc2.radius": "2,3"}, "expected as many radii as levels, at least one; got 2 radii"),
        ({"lc2.lattice_mm": "1,2,3"}, "expected levels from coarse to fine; got 1,2,3 mm"),
    ],
)
def test_levels_of_lc2_fit_each_other(changes: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        with_changes(load_preset("lc2"), changes)
