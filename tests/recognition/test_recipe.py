from pathlib import Path

import pytest

from components.recognition.recipe import Data, Train, from_json, load_recipe, to_json

RECIPES = Path(__file__).resolve().parents[2] / "pipelines" / "recipes"
TEXT = (RECIPES / "quickstart.yaml").read_text(encoding="utf-8")


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_loads(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.name == path.stem
    assert recipe.train.epochs >= 1


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
        ("lr: 2.0e-3", "lr: 2e-3", "train.lr: expected float, found str '2e-3': .* write 2.0e-3"),
        ("framework: pytorch", "framework: pytorhc", "train.framework: found 'pytorhc': did you mean 'pytorch'"),
        ("channels: 1", "channels: 2", "data.channels: found 2: .*known are 1, 3"),
        ("gate:", "gait:", "unknown section 'gait': did you mean 'gate'"),
        ("gate: {floor: 0.4, tolerance: 0.005}\n", "", "section 'gate' is missing"),
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


def test_a_section_survives_the_way_through_json() -> None:
    recipe = load_recipe(RECIPES / "quickstart.yaml")
    assert from_json(Data, to_json(recipe.data)) == recipe.data
    assert from_json(Train, to_json(recipe.train)) == recipe.train
    with pytest.raises(ValueError, match="section train: not JSON"):
        from_json(Train, "{")
