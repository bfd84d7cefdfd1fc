"""The settings system on toy classes: kinds, descriptions, texts from a command line, JSON, variants."""

import json
from dataclasses import FrozenInstanceError, dataclass
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from MMRegCore.errors import InputError
from MMRegCore.settings import SettingInfo, Settings, as_text, describe, setting, unknown_name, variant, with_changes

PLUG_INS = ["far", "near"]


@dataclass(frozen=True)
class Near(Settings):
    radius: int = setting(2, help="A radius.", unit="voxel", minimum=0, maximum=9)


@dataclass(frozen=True)
class Group(Settings):
    weights: tuple[float, ...] = setting((0.5, 0.5), help="Shares.", minimum=0, maximum=1)
    steps: tuple[int, ...] = setting((4, 2), help="Steps.", minimum=1)

    def check_together(self) -> None:
        if len(self.weights) != len(self.steps):
            raise InputError("expected as many weights as steps")


@dataclass(frozen=True)
class Far(Settings):
    range_mm: float = setting(12.0, help="A range.", unit="mm", minimum=0, maximum=50, tier="basic")
    group: Group = Group()
    fine: Group = Group(weights=(0.1, 0.9), steps=(2, 1))


def plug_in(name: str) -> type[Settings]:
    if name not in PLUG_INS:
        raise unknown_name("plug-in", name, PLUG_INS)
    return {"near": Near, "far": Far}[name]


@dataclass(frozen=True)
class Toy(Settings):
    kind: str = setting("near", help="A plug-in.", choices=lambda: PLUG_INS)
    mode: Literal["fast", "good"] = setting("fast", help="A mode.", label="How")
    enabled: bool = setting(True, help="A switch.")
    spacing_mm: float | Literal["auto"] = setting("auto", help="A spacing.", unit="mm", minimum=0.1)
    limit: float | None = setting(None, help="A limit.", minimum=0)
    weights_file: str = setting("", help="A file.")
    options: Settings = variant("kind", plug_in)


class TestDescription:
    def test_of_every_kind(self):
        shown = {about.key: about for about in describe(Toy(kind="far"))}
        assert list(shown) == [
            "kind", "mode", "enabled", "spacing_mm", "limit", "weights_file",
            "far.range_mm", "far.group.weights", "far.group.steps", "far.fine.weights", "far.fine.steps",
        ]  # fmt: skip
        kinds = {key: (about.kind, about.is_list, about.choices) for key, about in shown.items()}
        assert kinds == {
            "kind": ("choice", False, ("far", "near")),
            "mode": ("choice", False, ("fast", "good")),
            "enabled": ("switch", False, ()),
            "spacing_mm": ("number", False, ("auto",)),
            "limit": ("number", False, ("none",)),
            "weights_file": ("text", False, ()),
            "far.range_mm": ("number", False, ()),
            "far.group.weights": ("number", True, ()),
            "far.group.steps": ("integer", True, ()),
            "far.fine.weights": ("number", True, ()),
            "far.fine.steps": ("integer", True, ()),
        }

    def test_says_everything_about_one(self):
        shown = {about.key: about for about in describe(Toy(kind="far"))}
        assert shown["far.range_mm"] == SettingInfo(
            "far.range_mm", "number", False, (), 12.0, "Range", "A range.", "mm", "basic", 0, 50
        )
        assert shown["mode"].label == "How"
        assert shown["weights_file"].label == "Weights file"
        assert shown["mode"].tier == "expert"

    def test_defaults_are_the_values_that_were_described(self):
        shown = {about.key: about.default for about in describe(Toy(kind="far", options=Far(range_mm=3)))}
        assert shown["far.range_mm"] == 3.0
        assert shown["kind"] == "far"

    def test_in_words_and_as_an_example(self):
        words = {about.key: (about.expected, about.example) for about in describe(Toy(kind="far"))}
        assert words["spacing_mm"] == ("a number or 'auto'", "auto")
        assert words["mode"] == ("'fast' or 'good'", "fast")
        assert words["enabled"] == ("true or false", "true")
        assert words["far.group.weights"] == ("a list (a number, …)", "0.5,0.5")
        for key, (_, example) in words.items():
            with_changes(Toy(kind="far"), {key: example})

    def test_goes_into_json_and_is_the_same_there(self):
        for about in describe(Toy(kind="far")):
            again = json.loads(json.dumps(about.to_dict()))
            assert again == {key: list(v) if isinstance(v, tuple) else v for key, v in about.to_dict().items()}

    def test_choices_are_asked_for_when_they_are_needed(self, monkeypatch):
        monkeypatch.setitem(globals(), "PLUG_INS", ["far", "near", "new"])
        assert next(iter(describe(Toy()))).choices == ("far", "near", "new")
        with pytest.raises(KeyError, match="new"):
            Toy(kind="new")


class TestTexts:
    @pytest.mark.parametrize(
        ("key", "text", "value"),
        [
            ("mode", "good", "good"),
            ("enabled", "off", False),
            ("enabled", "YES", True),
            ("spacing_mm", "0.75", 0.75),
            ("spacing_mm", "1/4", 0.25),
            ("spacing_mm", " 1e1 ", 10.0),
            ("spacing_mm", "auto", "auto"),
            ("limit", "none", None),
            ("limit", "3", 3.0),
            ("weights_file", "a file.safetensors", "a file.safetensors"),
            ("far.group.weights", "1/3, 2/3", (1 / 3, 2 / 3)),
            ("far.group.weights", "[0.25, 0.75]", (0.25, 0.75)),
            ("far.group.steps", "[8,4]", (8, 4)),
            ("far.group.steps", " 8,4 ", (8, 4)),
        ],
    )
    def test_are_read_as_the_settings_own_kind(self, key, text, value):
        changed = {about.key: about.default for about in describe(with_changes(Toy(kind="far"), {key: text}))}
        assert changed.pop(key) == value
        before = {about.key: about.default for about in describe(Toy(kind="far"))}
        del before[key]
        assert changed == before

    @pytest.mark.parametrize(
        ("key", "text", "message"),
        [
            ("mod", "fast", "did you mean 'mode'"),
            ("far.group.step", "1", "did you mean 'far.group.steps'"),
            ("far.group", "1", "name of a setting"),
            ("mode", "slow", r"expected mode to be 'fast' or 'good', such as mode=fast; got 'slow'"),
            ("kind", "nearr", "expected the name of a kind out of far, near; got 'nearr'; did you mean 'near'"),
            ("enabled", "perhaps", "true or false, such as enabled=true; got 'perhaps'"),
            ("spacing_mm", "fine", "a number or 'auto', such as spacing_mm=auto; got 'fine'"),
            ("spacing_mm", "inf", "a number"),
            ("spacing_mm", "nan", "a number"),
            ("spacing_mm", "0.01", "at least 0.1 mm; got 0.01; this works: spacing_mm=auto"),
            ("limit", "1/0", "a number or 'none'"),
            ("far.range_mm", "51", "at most 50 mm; got 51"),
            (
                "far.group.steps",
                "1,two",
                "a list .a whole number, …., such as far.group.steps=4,2 or 'far.group.steps=.4,2.'; got '1,two'",
            ),
            ("far.group.steps", "[1, 2", "a list"),
            ("far.group.steps", "[]", "far.group.steps to be a list"),
            ("far.group.steps", "[[1], 2]", "a list"),
            ("far.group.steps", "1.5,2", "a whole number"),
            ("far.group.steps", "", "far.group.steps"),
            ("far.group.steps", "1,0", "far.group.steps to be at least 1; got 0"),
            ("far.group.steps", "3", "as many weights as steps; this works: far.group.steps=4,2"),
        ],
    )
    def test_that_cannot_be_read_say_what_is_expected(self, key, text, message):
        with pytest.raises(InputError, match=message):
            with_changes(Toy(kind="far"), {key: text})

    @given(
        mode=st.sampled_from(["fast", "good"]),
        enabled=st.booleans(),
        spacing=st.floats(0.1, 1e6) | st.just("auto"),
        limit=st.none() | st.floats(0, 1e300),
        weights=st.lists(st.floats(0, 1), min_size=2, max_size=2),
        radius=st.integers(0, 9),
    )
    def test_round_trip(self, mode, enabled, spacing, limit, weights, radius):
        common = {"mode": mode, "enabled": enabled, "spacing_mm": spacing, "limit": limit}
        for options in (Near(radius=radius), Far(group=Group(weights=weights))):
            settings = Toy(kind=type(options).__name__.lower(), options=options, **common)
            texts = {about.key: as_text(about.default) for about in describe(settings)}
            assert with_changes(Toy(), texts) == settings
            assert Toy.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings

    def test_changes_may_be_values(self):
        assert with_changes(Toy(), {"near.radius": 3, "limit": None}).options == Near(radius=3)


class TestJson:
    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"mode": "slow"}, "expected mode to be 'fast' or 'good'; got 'slow'"),
            ({"kind": 3}, "expected kind to be 'far' or 'near'; got 3"),
            ({"near": {"radios": 3}}, "did you mean 'near.radius'"),
            ({"near": {"radius": "3"}}, "expected near.radius to be a whole number; got '3'"),
            ({"near": {"radius": True}}, "near.radius to be a whole number; got True"),
            ({"near": {"radius": 2.5}}, "near.radius to be a whole number; got 2.5"),
            ({"near": {"radius": 10}}, "near.radius to be at most 9 voxel; got 10"),
            ({"near": 3}, "expected near to be a JSON object; got 3"),
            ({"enabled": 1}, "enabled to be true or false; got 1"),
            ({"spacing_mm": float("nan")}, "spacing_mm"),
            ({"kind": "far", "far": {"group": {"weights": 0.5}}}, "far.group.weights to be a list .*; got 0.5"),
            ({"kind": "far", "near": {}}, "the name of a setting .*; got 'near'"),
            ({"far": {}}, "the name of a setting .*; got 'far'"),
            ({"options": {}}, "the name of a setting .*; got 'options'"),
            ({"kind": "farr", "farr": {}}, "did you mean 'far'"),
            ([1], "expected the settings to be a JSON object"),
        ],
    )
    def test_that_cannot_be_used_says_what_is_wrong(self, values, message):
        with pytest.raises(InputError, match=message):
            Toy.from_dict(values)

    def test_may_leave_out_defaults_and_write_numbers_either_way(self):
        settings = Toy.from_dict({"spacing_mm": 1, "near": {"radius": 3.0}})
        assert settings == Toy(spacing_mm=1.0, options=Near(radius=3))
        assert isinstance(settings.spacing_mm, float)
        assert isinstance(settings.options.radius, int)

    def test_what_a_group_leaves_out_keeps_the_default_of_its_field(self):
        settings = Toy.from_dict({"kind": "far", "far": {"fine": {"steps": [8, 4]}}})
        assert settings.options.fine == Group(weights=(0.1, 0.9), steps=(8, 4))
        assert settings.options.group == Group()


class TestVariants:
    def test_stand_under_the_name_of_their_plug_in(self):
        assert Toy().options == Near()
        assert list(Toy().to_dict())[-1] == "near"
        assert Toy.from_dict({"kind": "far", "far": {"range_mm": 5}}) == Toy(kind="far", options=Far(range_mm=5))

    def test_of_another_plug_in_are_refused(self):
        with pytest.raises(InputError, match=r"expected options of far \(Far\); got Near"):
            Toy(kind="far", options=Near())

    def test_another_plug_in_begins_with_its_own_defaults_and_leaves_the_rest(self):
        before = Toy(mode="good", options=Near(radius=7))
        after = with_changes(before, {"kind": "far", "far.range_mm": "5"})
        assert after == Toy(kind="far", mode="good", options=Far(range_mm=5))
        assert with_changes(after, {"kind": "near"}).options == Near()
        assert with_changes(before, {"kind": "near"}) == before
        with pytest.raises(InputError, match="near.radius"):
            with_changes(before, {"kind": "far", "near.radius": "3"})


def test_settings_check_themselves_and_stay_as_they_are():
    with pytest.raises(InputError, match="radius"):
        Near(radius=-1)
    settings = Group(weights=[1, 0], steps=[1.0, 2])
    assert settings == Group(weights=(1.0, 0.0), steps=(1, 2))
    assert hash(settings) == hash(Group(weights=(1.0, 0.0), steps=(1, 2)))
    with pytest.raises(FrozenInstanceError):
        settings.steps = (1,)


def test_an_unknown_name_lists_the_known_ones_only_where_they_are_few():
    assert "out of a, b" in str(unknown_name("letter", "c", ["a", "b"]))
    assert "out of" not in str(unknown_name("number", "x", [str(n) for n in range(50)]))
