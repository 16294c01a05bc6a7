import dataclasses
from pathlib import Path

import pytest

from wordmill.recipe.catalogue import load_catalogue, select
from wordmill.recipe.loading import load_recipe
from wordmill.recipe.parsing import from_json, read_yaml, to_json
from wordmill.recipe.sections import Data, Gate, Train
from wordmill.text.charset import built_in

RECIPES = Path(__file__).resolve().parents[3] / "pipelines" / "recipes"
TEXT = (RECIPES / "quickstart.yaml").read_text(encoding="utf-8")
[GATE] = [line for line in TEXT.splitlines(keepends=True) if line.startswith("gate: ")]


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_loads(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.name == path.stem
    assert recipe.train.epochs >= 1


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_starts_with_what_it_is_and_names_what_there_is(path: Path) -> None:
    assert path.read_text(encoding="utf-8").startswith("# ")
    data, benchmarks = load_recipe(path).data, load_recipe(path).benchmarks
    select(load_catalogue([RECIPES.parent / "datasets.yaml"]), [*data.train, *data.val, *benchmarks])
    assert data.charset in built_in()


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("crnn_vgg7", "82.03"), ("crnn_r34", "84.45"), ("crnn_mv3", "77.95"), ("crnn_npu", "76.57"),
        ("rare_r34", "85.19"), ("seq2seq_fsns", "63.52"), ("svtr_tiny", "89.02"),
    ],
)  # fmt: skip
def test_a_floor_lies_a_little_below_the_published_accuracy(name: str, published: str) -> None:
    path = RECIPES / f"{name}.yaml"
    assert f"{published} %" in path.read_text(encoding="utf-8").splitlines()[0]
    assert 0.01 < float(published) / 100 - load_recipe(path).gate.floor < 0.04


@pytest.mark.parametrize(
    ("name", "published"), [("crnn_r34_ch", (60.71, 65.94, 97.67)), ("rare_r34_ch", (62.15, 67.05, 97.60))]
)
def test_a_chinese_floor_lies_a_little_below_the_mean_of_the_three_benchmarks(
    name: str, published: tuple[float, ...]
) -> None:
    path = RECIPES / f"{name}.yaml"
    assert all(f"{accuracy:.2f} %" in path.read_text(encoding="utf-8").splitlines()[0] for accuracy in published)
    assert 0.01 < sum(published) / 300 - load_recipe(path).gate.floor < 0.04


@pytest.mark.parametrize(
    "name", ["crnn_vgg7", "crnn_r34", "crnn_npu", "rare_r34", "crnn_r34_ch", "rare_r34_ch", "svtr_tiny"]
)
def test_each_benchmark_has_a_floor_6_to_7_points_below_what_is_published(name: str) -> None:
    figures = read_yaml(RECIPES.parents[1] / "components" / "report" / "published.yaml")[name]["accuracy"]
    recipe = load_recipe(RECIPES / f"{name}.yaml")
    assert tuple(recipe.gate.floors) == recipe.benchmarks
    assert all(6 <= figures[benchmark] - 100 * floor < 7.001 for benchmark, floor in recipe.gate.floors.items())


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("gate.floors={CUTE: 0.5}", r"gate.floors: 'CUTE' is no benchmark here: did you mean 'CUTE80'\?"),
        ("gate.floors.SVT=50", "gate.floors.SVT: found 50.0, expected a share of 0 to 1"),
        ("gate.floor=82.0", "gate.floor: found 82.0, expected a share of 0 to 1"),
        ("gate.margin=-0.1", "gate.margin: found -0.1, expected a share of 0 to 1"),
        ("gate.floors={SVT: 0.5}", "gate.floors: no floor for IC03_860, .*, SVTP, CUTE80: expected the least word acc"),
        ("gate.benchmarks=[SVT]", r"gate.benchmarks: found \['SVT'\], expected none: they are the recipe's own"),
        ("gate.floors=[SVT]", r"gate.floors: expected a mapping, found list \['SVT'\]"),
        ("gate.floors={SVT: high}", "gate.floors.SVT: expected float, found str 'high'"),
        ("gate.floors={1811: 0.5}", "gate.floors: key: expected str, found int 1811"),
    ],
)
def test_a_wrong_bound_of_the_gate_is_refused(override: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"crnn_r34.yaml: {message}"):
        load_recipe(RECIPES / "crnn_r34.yaml", (override,))


def test_the_best_weights_are_chosen_by_what_the_recipe_reports_by() -> None:
    names = ("crnn_r34", "crnn_mv3", "crnn_npu", "seq2seq_fsns")
    protocols = [load_recipe(RECIPES / f"{name}.yaml").train.protocol for name in names]
    assert protocols == ["mindocr", "paddleocr", "dtrb", "fsns"]
    assert load_recipe(RECIPES / "crnn_r34.yaml", ("evaluation.protocol=parseq",)).train.protocol == "parseq"
    with pytest.raises(ValueError, match="train.protocol: expected none: the best weights are chosen by evaluation"):
        load_recipe(RECIPES / "crnn_r34.yaml", ("train.protocol=dtrb",))


def test_a_run_of_other_benchmarks_keeps_what_the_recipes_own_ask_for() -> None:
    whole = load_recipe(RECIPES / "crnn_r34.yaml")
    assert whole.gate.benchmarks == whole.benchmarks
    assert load_recipe(RECIPES / "crnn_r34.yaml", ("benchmarks=[SVT, other]",)).gate == whole.gate
    mine = load_recipe(RECIPES / "quickstart.yaml", ("benchmarks=[rendered_easy, mine]", "gate.floors.mine=1"))
    assert mine.gate.floors == {"rendered_easy": 0.56, "rendered_hard": 0.19, "mine": 1.0}
    assert isinstance(mine.gate.floors["mine"], float)
    assert mine.gate.benchmarks == ("rendered_easy", "rendered_hard")


def test_the_ten_english_benchmarks_are_the_same_in_every_recipe_that_has_them() -> None:
    recipes = [load_recipe(path) for path in sorted(RECIPES.glob("*.yaml"))]
    ten = [recipe.name for recipe in recipes if recipe.benchmarks == load_recipe(RECIPES / "crnn_r34.yaml").benchmarks]
    assert ten == ["crnn_mv3", "crnn_r34", "crnn_vgg7", "rare_r34", "rare_r34_tps", "svtr_tiny"]


def test_recipes_that_differ_in_one_thing_differ_in_that_alone() -> None:
    crnn, fine, rare, tps = (
        load_recipe(RECIPES / f"{name}.yaml") for name in ("crnn_r34", "crnn_icdar15", "rare_r34", "rare_r34_tps")
    )
    assert fine.model == crnn.model  # or it could not start from it
    # MindOCR's example for fine-tuning takes labels of one character less, though its network is the same.
    assert dataclasses.replace(fine.data, train=crnn.data.train, val=crnn.data.val, max_label=24) == crnn.data
    assert fine.train.start_from == "crnn_r34"
    assert dataclasses.replace(tps.model, rectification="none") == rare.model
    assert (tps.data, dataclasses.replace(tps.train, framework="mindspore")) == (rare.data, rare.train)


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        (
            "crnn_r34",
            ["train.loss=cross_entropy"],
            "train.loss: found cross_entropy, model crnn needs one of ctc, ctc_by",
        ),
        (
            "rare_r34",
            ["train.loss=ctc"],
            "train.loss: found ctc, model rare needs one of cross_entropy, cross_entropy_un",
        ),
        ("rare_r34", ["model.max_length=0"], "model.max_length: found 0, expected at least 1 for model rare"),
        ("crnn_r34", ["model.max_length=9"], "model.max_length: found 9, expected none: model crnn derives it"),
        ("seq2seq_fsns", ["model.max_length=9"], "model.max_length: found 9, expected none: model seq2seq derives it"),
        ("seq2seq_fsns", ["model.decoder_hidden=0"], "model.decoder_hidden: found 0, expected at least 1"),
        ("crnn_r34", ["model.decoder_hidden=9"], "model.decoder_hidden: found 9, expected none: model crnn has no dec"),
    ],
)
def test_keys_that_do_not_go_together_are_refused(name: str, overrides: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=f"{name}.yaml: {message}"):
        load_recipe(RECIPES / f"{name}.yaml", tuple(overrides))


def test_values_arrive_with_their_types() -> None:
    recipe = load_recipe(RECIPES / "crnn_vgg7.yaml")
    assert recipe.data.train == ("mj_train", "mj_valid", "mj_test", "st")
    assert recipe.train.lr == 5e-4
    assert recipe.train.warmup_epochs == 1.0
    assert isinstance(recipe.train.warmup_epochs, float)
    assert recipe.model.hidden == 256


def test_an_override_changes_one_value() -> None:
    recipe = load_recipe(RECIPES / "quickstart.yaml", ("train.epochs=3", "data.train=[a, b]", "benchmarks=[x]"))
    assert recipe.train.epochs == 3
    assert recipe.data.train == ("a", "b")
    assert recipe.benchmarks == ("x",)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("epochs: 1", "epoch: 1", r"mine.yaml: train: unknown key 'epoch': did you mean 'epochs'\?"),
        ("  epochs: 1\n", "", "mine.yaml: train: key 'epochs' is missing"),
        ("epochs: 1", "epochs: many", "mine.yaml: train.epochs: expected int, found str 'many'"),
        ("epochs: 1", "epochs: true", "mine.yaml: train.epochs: expected int, found bool True"),
        ("lr: 1.6e-2", "lr: 2e-3", "train.lr: expected float, found str '2e-3': .* write 2.0e-3"),
        ("framework: pytorch", "framework: pytorhc", "train.framework: found 'pytorhc': did you mean 'pytorch'"),
        ("channels: 1", "channels: 2", "data.channels: found 2: .*known are 1, 3"),
        ("gate:", "gait:", "unknown section 'gait': did you mean 'gate'"),
        (GATE, "", "section 'gate' is missing"),
        ("benchmarks: [rendered_easy, rendered_hard]", "benchmarks: []", "benchmarks: the list is empty"),
        ("val: [rendered_val]", "val: [rendered_easy]", "benchmarks: 'rendered_easy' is trained or validated on too"),
        ("val: [rendered_val]", "val: rendered_val", "data.val: expected a list, found str"),
        ("data: {", "data: [", "not readable as YAML"),
    ],
)
def test_a_mistake_is_named_with_its_place(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in TEXT
    with pytest.raises(ValueError, match=message):
        load_recipe(write(tmp_path, TEXT.replace(old, new)))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epochs", "expected KEY=VALUE"),
        ("trian.epochs=1", "unknown section 'trian': did you mean 'train'"),
        ("train.epocs=1", "unknown key 'epocs': did you mean 'epochs'"),
        ("train.lr=5e-4", "write 5.0e-4"),
    ],
)
def test_a_wrong_override_is_refused(override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_recipe(RECIPES / "quickstart.yaml", (override,))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nowhere.yaml: no such file"):
        load_recipe(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize("name", ["Bob's", "my recipe", "r\u00e9sum\u00e9", "词", "-a", "a" * 41])
def test_a_name_that_no_run_can_have_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / f"{name}.yaml").write_text(TEXT, encoding="utf-8")
    with pytest.raises(ValueError, match=f"{name}.yaml: a recipe's models, runs and pipelines are called by its file"):
        load_recipe(tmp_path / f"{name}.yaml")
    (tmp_path / "My_words-v1.2.yaml").write_text(TEXT, encoding="utf-8")
    assert load_recipe(tmp_path / "My_words-v1.2.yaml").name == "My_words-v1.2"


def test_a_section_survives_the_way_through_json() -> None:
    recipe = load_recipe(RECIPES / "quickstart.yaml")
    assert from_json(Data, to_json(recipe.data)) == recipe.data
    assert from_json(Train, to_json(recipe.train)) == recipe.train
    assert from_json(Gate, to_json(recipe.gate)) == recipe.gate
    assert from_json(Gate, '{"floor": 0.5, "margin": 0, "floors": {}}') == Gate(floor=0.5, margin=0.0, floors={})
    with pytest.raises(ValueError, match="section train: not JSON"):
        from_json(Train, "{")
