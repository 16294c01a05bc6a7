import pytest

from wordmill.sources import remote as sources_remote


def test_the_environments_proxy_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:3128")
    monkeypatch.setenv("no_proxy", "intern.example")
    assert sources_remote._proxy("http://data.example/x") == "http://127.0.0.1:3128"
    assert sources_remote._proxy("http://intern.example/x") == ""
    monkeypatch.delenv("http_proxy")
    assert sources_remote._proxy("http://data.example/x") == ""
