"""Where things are in a checkout, and for an installed command."""

from pathlib import Path

import pytest

from pipelines import places
from pipelines.images.building import key_of

ROOT = Path(__file__).resolve().parents[2]
VARIABLES = ("WORDMILL_STATE", "WORDMILL_CACHE", "WORDMILL_SITE", "XDG_STATE_HOME", "XDG_CACHE_HOME")


@pytest.fixture(autouse=True)
def _nothing_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/me")


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "CHECKOUT", None)
    monkeypatch.setattr(places, "ROOT", Path("/venv/site-packages"))


def test_a_checkout_keeps_everything_below_it() -> None:
    assert places.state_folder() == ROOT / ".state"
    assert places.cache_folder(places.state_folder()) == ROOT / ".state" / "cache"
    assert places.values_file() == ROOT / "manifests" / "site" / "values.yaml"
    assert places.lock_file() == ROOT / "images.lock.yaml"
    assert places.checkout() == ROOT


@pytest.mark.usefixtures("installed")
def test_an_installed_command_keeps_it_where_users_do(monkeypatch: pytest.MonkeyPatch) -> None:
    assert places.state_folder() == Path("/home/me/.local/state/wordmill")
    assert places.cache_folder(places.state_folder()) == Path("/home/me/.cache/wordmill")
    assert places.values_file() == Path("/venv/site-packages/pipelines/site/values.yaml")
    monkeypatch.setenv("XDG_STATE_HOME", "/disk/state")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # the specification has it ignored
    assert places.state_folder() == Path("/disk/state/wordmill")
    assert places.cache_folder(places.state_folder()) == Path("/home/me/.cache/wordmill")


@pytest.mark.usefixtures("installed")
def test_what_is_named_stands_above(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORDMILL_STATE", "/disk/w")
    assert places.cache_folder(places.state_folder()) == Path("/disk/w/cache")
    monkeypatch.setenv("WORDMILL_CACHE", "/fast")
    assert places.cache_folder(places.state_folder()) == Path("/fast")
    monkeypatch.setenv("WORDMILL_SITE", "/etc/wordmill/values.yaml")
    assert places.values_file() == Path("/etc/wordmill/values.yaml")
    assert places.lock_file() == Path("/etc/wordmill/images.lock.yaml")


@pytest.mark.usefixtures("installed")
def test_images_are_of_a_checkout() -> None:
    with pytest.raises(RuntimeError, match="images are built of a checkout, and /venv/site-packages is none"):
        key_of("fetch")
