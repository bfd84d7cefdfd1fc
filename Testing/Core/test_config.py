"""Settings of a registration and the presets that come with MMReg."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from MMRegCore import methods
from MMRegCore.config import (
    DEFAULT_PRESET,
    ModelSelectionSettings,
    RegistrationSettings,
    as_text,
    describe,
    load_preset,
    preset_description,
    preset_names,
    presets_as_json,
    with_changes,
)
from MMRegCore.errors import InputError
from MMRegCore.methods import method_names
from MMRegCore.methods.lc2 import Lc2Settings
from MMRegCore.methods.mcbo import McboSettings
from MMRegCore.optimisation.settings import InstanceSettings
from MMRegCore.search.settings import SearchSettings
from MMRegCore.similarity import descriptor_names, similarity_names

MCBO = RegistrationSettings(method="mcbo")


def flat(settings: RegistrationSettings) -> dict[str, object]:
    return {about.key: about.default for about in describe(settings)}


def _as_typed(value: object) -> str:
    """As a form hands back what it was given: lists as JSON."""
    return json.dumps(value) if isinstance(value, list) else as_text(value)


class TestPresets:
    @pytest.mark.parametrize("name", preset_names())
    def test_survive_json_and_say_everything(self, name):
        settings = load_preset(name)
        assert RegistrationSettings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings
        assert settings.method in settings.to_dict()
        description = preset_description(name)
        assert description.endswith((".", ")")) or description.count(".") <= 1
        assert len(description) > 20

    def test_are_those_that_are_promised(self):
        fixed = {"lc2", "mcbo", "mcbo-published", "mcbo-clem", "dns", "dns-mr"}
        assert set(preset_names()) == fixed | {"multiprop", "gradient-guided", "lapirn"}
        assert {load_preset(name).method for name in preset_names()} == set(method_names())

    def test_the_default_is_the_default_of_everything(self):
        assert load_preset(DEFAULT_PRESET) == RegistrationSettings()
        assert presets_as_json()["default"] == DEFAULT_PRESET

    def test_published_is_the_paper(self):
        published = load_preset("mcbo-published")
        assert published.working_spacing_mm == "native"
        assert not published.masked
        assert not published.model_selection.enabled
        mcbo = published.options
        assert dict(zip(mcbo.strides, mcbo.weights, strict=True)) == {1: 0.10, 2: 0.27, 4: 0.27, 6: 0.36}
        assert mcbo.fusion == "signed-max"
        descriptor = mcbo.descriptor
        assert (mcbo.half_width, descriptor.mind_radius, descriptor.mind_dilation) == (4, 1, 2)
        assert mcbo.coefficients == (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
        assert mcbo.inverse_consistency_iterations == 15
        assert mcbo.refine == "level-1"
        assert (mcbo.instance.iterations, mcbo.instance.regularisation, mcbo.instance.grid_spacing) == (15, 1.25, 2)

    def test_clem_is_the_papers_second_setting(self):
        mcbo = load_preset("mcbo-clem").options
        assert mcbo.strides == (1, 2, 4)
        assert mcbo.weights == pytest.approx((1 / 3, 1 / 3, 1 / 3))

    def test_masks_count_but_where_it_was_published_without(self):
        assert {name for name in preset_names() if not load_preset(name).masked} == {"mcbo-published", "mcbo-clem"}

    def test_an_unknown_one_suggests_the_nearest(self):
        with pytest.raises(InputError, match="did you mean 'mcbo-published'"):
            load_preset("mcbo-publised")
        with pytest.raises(InputError, match="mcbo-clem"):
            preset_description("nothing like it")

    def test_as_json_hold_what_a_form_is_built_from(self):
        whole = json.loads(json.dumps(presets_as_json()))
        assert [preset["name"] for preset in whole["presets"]] == list(preset_names())
        for preset in whole["presets"]:
            settings = load_preset(preset["name"])
            assert preset["description"] == preset_description(preset["name"])
            assert {shown["key"]: shown["default"] for shown in preset["settings"]} == json.loads(
                json.dumps(flat(settings))
            )
            method = next(shown for shown in preset["settings"] if shown["key"] == "method")
            assert method["kind"] == "choice"
            assert method["choices"] == list(method_names())
            again = {
                s["key"]: as_text(tuple(v) if isinstance(v := s["default"], list) else v) for s in preset["settings"]
            }
            assert with_changes(RegistrationSettings(), again) == settings


class TestEverySetting:
    @pytest.mark.parametrize("method", method_names())
    def test_explains_itself(self, method):
        shown = list(describe(RegistrationSettings(method=method)))
        assert len({about.key for about in shown}) == len(shown)
        for about in shown:
            assert about.help.endswith("."), about.key
            assert about.label[0].isupper(), about.key
            assert about.tier in ("basic", "expert")
            assert about.kind != "choice" or about.choices, about.key
            assert about.kind not in ("integer", "number") or about.minimum is not None, about.key
            assert not about.unit or about.unit not in about.label.split(), about.key

    @pytest.mark.parametrize("method", method_names())
    def test_only_a_few_are_basic(self, method):
        basic = {about.key for about in describe(RegistrationSettings(method=method)) if about.tier == "basic"}
        assert {"working_spacing_mm", "model_selection.enabled"} <= basic
        assert len(basic) <= 4

    def test_model_selection_is_there_for_every_method(self):
        for method in method_names():
            keys = set(flat(RegistrationSettings(method=method)))
            assert keys >= {f"model_selection.{key}" for key in ModelSelectionSettings().to_dict()}
            assert any(key.startswith(f"{method}.") for key in keys)
            assert not any(key.startswith(f"{other}.") for other in method_names() if other != method for key in keys)

    def test_similarities_and_descriptors_are_chosen_among_those_that_there_are(self):
        choices = {about.key: about.choices for about in describe(MCBO)}
        assert choices["mcbo.descriptor.name"] == descriptor_names() == ("dns", "mind")
        assert choices["model_selection.similarity"] == similarity_names()
        assert set(similarity_names()) >= {"dns", "lc2", "mind", "ncc", "nmi"}


class TestChanges:
    def test_are_read_as_the_settings_own_kind(self):
        changed = with_changes(
            RegistrationSettings(),
            {
                "method": "mcbo",
                "mcbo.strides": "2, 4,6",
                "mcbo.weights": "1/3,1/3,1/3",
                "mcbo.instance.iterations": "3",
                "mcbo.instance.learning_rate": "1e-2",
                "mcbo.fusion": "magnitude",
                "mcbo.coefficients": "[0.3, 1]",
                "masked": "off",
                "working_spacing_mm": "0.75",
                "model_selection.similarity": "nmi",
            },
        )
        assert changed.options.strides == (2, 4, 6)
        assert changed.options.weights == pytest.approx([1 / 3] * 3)
        assert changed.options.instance == InstanceSettings(iterations=3, learning_rate=0.01)
        assert changed.options.fusion == "magnitude"
        assert changed.options.coefficients == (0.3, 1.0)
        assert changed.masked is False
        assert changed.working_spacing_mm == 0.75
        assert changed.model_selection.similarity == "nmi"

    def test_leave_the_rest_alone(self):
        before = load_preset("mcbo-clem")
        after = with_changes(before, {"mcbo.half_width": "6"})
        different = {key for key, value in flat(after).items() if value != flat(before)[key]}
        assert different == {"mcbo.half_width"}
        assert before == load_preset("mcbo-clem")

    def test_may_be_values(self):
        assert with_changes(MCBO, {"mcbo.half_width": 3}).options.half_width == 3

    @pytest.mark.parametrize(
        ("key", "value", "message"),
        [
            ("mcbo.strids", "1", "did you mean 'mcbo.strides'"),
            ("mcbo.instance.iteration", "1", "did you mean 'mcbo.instance.iterations'"),
            ("mcbo", "1", "name of a setting"),
            ("lc2.iterations", "1", "name of a setting"),
            ("mcbo.strides", "1,two", "expected mcbo.strides to be a list.*whole number.*got '1,two'"),
            ("mcbo.strides", "0,2,4,6", "at least 1 voxel; got 0"),
            ("mcbo.strides", "2,2,4,6", "every stride once"),
            ("mcbo.strides", "2,4,6", "as many weights as strides"),
            ("mcbo.weights", "0.1,0.1,0.1,0.1", "add up to 1"),
            ("mcbo.weights", "-1,1,1,0", "at least 0"),
            ("mcbo.half_width", "2.5", "a whole number, such as mcbo.half_width=4; got '2.5'"),
            ("mcbo.half_width", "99", "at most 12; got 99"),
            ("mcbo.fusion", "max", "'signed-max' or 'mean' or 'magnitude' or 'confidence'.*got 'max'"),
            ("mcbo.descriptor.name", "mnd", "name of a descriptor out of dns, mind; got 'mnd'; did you mean 'mind'"),
            ("model_selection.similarity", "lc", "name of a similarity out of .*lc2.*; got 'lc'; did you mean 'lc2'"),
            ("masked", "perhaps", "true or false"),
            ("working_spacing_mm", "-0.5", "at least"),
            ("working_spacing_mm", "fine", "a number or 'native' or 'auto'.*got 'fine'"),
            ("method", "magic", "name of a method out of dns, lc2, mcbo, network; got 'magic'"),
        ],
    )
    def test_that_are_bad_say_what_is_wrong(self, key, value, message):
        with pytest.raises(InputError, match=message):
            with_changes(MCBO, {key: value})

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"lc2.search.half_width": "2,3"}, "expected as many half-widths as levels; got 2 half-widths"),
            ({"lc2.search.sampling_spacing_mm": "1,2,3"}, "expected levels from coarse to fine; got 1,2,3 mm"),
        ],
    )
    def test_levels_of_the_search_fit_each_other(self, changes, message):
        with pytest.raises(InputError, match=message):
            with_changes(load_preset("lc2"), changes)

    @given(st.lists(st.fractions(min_value=0, max_value=1, max_denominator=999), min_size=1, max_size=6))
    def test_texts_round_trip(self, parts):
        count, total = len(parts), sum(parts)
        weights = [float(part / total) for part in parts] if total else [1.0] + [0.0] * (count - 1)
        options = McboSettings(strides=tuple(range(1, count + 1)), weights=tuple(weights))
        settings = RegistrationSettings(method="mcbo", options=options)
        texts = {key: as_text(value) for key, value in flat(settings).items()}
        assert with_changes(RegistrationSettings(), texts) == settings


class TestJson:
    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"method": "magic"}, "expected the name of a method out of dns, lc2, mcbo, network; got 'magic'"),
            ({"method": "mcb", "mcb": {}}, "did you mean 'mcbo'"),
            ({"mcbo": {}}, "the name of a setting out of method, .*lc2.*; got 'mcbo'"),
            ({"method": "mcbo", "mcbo": {"halfwidth": 3}}, "did you mean 'mcbo.half_width'"),
            (
                {"method": "mcbo", "mcbo": {"instance": {"iterations": "15"}}},
                "expected mcbo.instance.iterations to be a whole number; got '15'",
            ),
            ({"method": "mcbo", "mcbo": 3}, "expected mcbo to be a JSON object; got 3"),
        ],
    )
    def test_that_is_bad_says_what_is_wrong(self, values, message):
        with pytest.raises(InputError, match=message):
            RegistrationSettings.from_dict(values)

    def test_options_stand_under_the_methods_name(self):
        settings = RegistrationSettings.from_dict({"method": "mcbo", "mcbo": {"half_width": 3.0}})
        assert settings == RegistrationSettings(method="mcbo", options=McboSettings(half_width=3))
        assert settings.to_dict()["mcbo"]["half_width"] == 3
        assert isinstance(settings.options.half_width, int)


class TestExtended:
    def test_search_looks_as_much_further_as_the_margin_grows(self):
        extended = load_preset("lc2").extended()
        assert extended == with_changes(load_preset("lc2"), {"lc2.search.range_mm": 30.0, "margin_mm": 30.0})

    @pytest.mark.parametrize(
        "settings",
        [
            RegistrationSettings(model_selection=ModelSelectionSettings(enabled=False)),
            RegistrationSettings(options=Lc2Settings(search=SearchSettings(extended_range_mm=20.0))),
            MCBO,
            RegistrationSettings(method="network"),
        ],
    )
    def test_there_is_none(self, settings):
        assert settings.extended() is None


TOY_METHOD = """
from dataclasses import dataclass

from MMRegCore.methods.protocol import Method, Solution
from MMRegCore.settings import Settings, setting


@dataclass(frozen=True)
class NothingSettings(Settings):
    strength: float = setting(0.5, help="Of nothing.", minimum=0)


METHOD = Method("nothing", NothingSettings, lambda problem, settings: Solution(0 * problem.prepared.fixed.image))
"""


@pytest.fixture
def toy_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "toy_method.py").write_text(TOY_METHOD)
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path)])
    yield
    sys.modules.pop("MMRegCore.methods.toy_method", None)
    del methods.toy_method


def test_a_method_in_one_file_is_a_choice_with_settings_of_its_own(toy_method):
    settings = with_changes(RegistrationSettings(), {"method": "nothing", "nothing.strength": "2"})
    assert settings.options.strength == 2.0
    assert settings.extended() is None
    assert RegistrationSettings.from_dict(settings.to_dict()) == settings
    assert "nothing" in next(about for about in describe(settings) if about.key == "method").choices


def test_settings_and_presets_come_without_torch():
    code = (
        "import sys; from MMRegCore import config, methods, networks, similarity; "
        "import MMRegCore.similarity.settings, MMRegCore.search.settings, MMRegCore.optimisation.settings; "
        "config.presets_as_json(); [config.load_preset(name).extended() for name in config.preset_names()]; "
        "sys.exit(str({'torch', 'numpy', 'SimpleITK'} & set(sys.modules) or ''))"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=False)
    assert finished.stderr.strip() == ""
