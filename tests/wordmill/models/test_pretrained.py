import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.wordmill.models.test_checkpoint import checkpoint
from wordmill.inference.reading import open_recogniser
from wordmill.models.checkpoint import load
from wordmill.models.pretrained import FACTS, FITTING, WEIGHTS, pretrained, save_halved
from wordmill.pictures.image import fit_pictures
from wordmill.recipe.loading import load_recipe
from wordmill.store.storage import hash_file
from wordmill.synth.renderer import SynthSpec, render

RECIPES = Path(__file__).resolve().parents[3] / "pipelines" / "recipes"
SURE = 0.6  # no other text has half as much: no processor's rounding makes another of it


def test_weights_are_halved_in_the_file_and_float32_again_when_they_are_read(tmp_path: Path) -> None:
    path, third = tmp_path / "h.safetensors", np.float32([1 / 3])
    save_halved(path, replace(checkpoint(), tensors={"a": third, "b": np.float32([1.5, -2.0])}))
    back = load(path)
    assert back.tensors["a"].dtype == np.float32
    assert back.tensors["a"].tolist() == [0.333251953125]  # 1365 / 4096, the nearest of float16
    assert back.tensors["b"].tolist() == [1.5, -2.0]
    with pytest.raises(ValueError, match="h.safetensors: beyond the range of float16: a"):
        save_halved(path, replace(checkpoint(), tensors={"a": np.float32([7e4]), "b": third}))
    assert load(path).tensors["a"].tolist() == [0.333251953125]  # still the file of before


def test_what_is_known_of_the_weights_is_of_these_and_of_the_recipe() -> None:
    facts, saved = json.loads(FACTS.read_text(encoding="utf-8")), load(WEIGHTS)
    assert (facts["sha256"], facts["bytes"]) == (hash_file(WEIGHTS), WEIGHTS.stat().st_size)
    recipe = load_recipe(RECIPES / f"{facts['recipe']}.yaml")
    train = replace(saved.train, accumulation=recipe.train.accumulation)  # which memory decided on
    assert (saved.data, saved.model, train) == (recipe.data, recipe.model, recipe.train)
    assert set(facts["benchmarks"]) == set(recipe.benchmarks)
    for name in FITTING:
        assert load_recipe(RECIPES / f"{name}.yaml").model == saved.model
        assert pretrained(name) == WEIGHTS
    assert pretrained("crnn_r34") is None


def test_the_weights_still_read_what_they_read_when_they_were_made() -> None:
    facts, recogniser = json.loads(FACTS.read_text(encoding="utf-8")), open_recogniser(WEIGHTS)
    spec = SynthSpec.parse(facts["data"]["rendered_easy"]["source"])
    pictures = [picture for picture, _ in render(spec, 0, len(facts["readings"]))]
    texts, confidences = recogniser.read(fit_pictures(pictures, recogniser.data))
    sure = [
        (told, text) for (told, confidence), text in zip(facts["readings"], texts, strict=True) if confidence > SURE
    ]
    assert len(sure) > len(texts) / 3
    assert [text for _, text in sure] == [told for told, _ in sure]
    recorded = [confidence for _, confidence in facts["readings"]]
    np.testing.assert_allclose(confidences, recorded, atol=0.01)
