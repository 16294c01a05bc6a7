"""What is said of a refusal of the store, and for how long a busy one is borne."""

import errno
import time
from email.utils import formatdate
from typing import Any

import pytest
from boto3.exceptions import S3UploadFailedError
from botocore.exceptions import ClientError, NoCredentialsError

from wordmill.store import storage
from wordmill.store.answers import AWAY, KEYS, WAITS_S, Refusal, no_answer
from wordmill.store.storage import Store

FULL = "the server's disk or the bucket's quota is full: make room there; the verb sweep lists what may go"
TROUBLE = "the server has trouble of its own: see its log, and whether it has room"


def response(status: int, code: str, message: str = "", ahead_s: float = 0.0) -> dict[str, Any]:
    """An answer as botocore parses it, of a server whose clock is ahead of this machine's."""
    date = formatdate(time.time() + ahead_s, usegmt=True)
    return {"Error": {"Code": code, "Message": message},
            "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": {"date": date}}}  # fmt: skip


@pytest.mark.parametrize(
    ("status", "code", "message", "told"),
    [
        (403, "InvalidAccessKeyId", "", KEYS),
        (403, "SignatureDoesNotMatch", "", KEYS),
        (403, "403", "Forbidden", KEYS),
        (403, "RequestTimeTooSkewed", "", "this machine's clock is 0 minutes ahead of the server's: set it right"),
        (400, "ExpiredToken", "", "AWS_SESSION_TOKEN is not valid any more: get another"),
        (500, "InternalError", "We encountered an internal error", TROUBLE),
        (500, "InternalError", "write /data/x: no space left on device", FULL),
        (507, "XMinioStorageFull", "Storage backend has reached its minimum free drive threshold", FULL),
        (507, "507", "", FULL),
        (403, "QuotaExceeded", "", FULL),
        (503, "SlowDown", "Please reduce your request rate.",
         "the server was too busy for 120 s: run again later, or fewer runs at a time"),
        (301, "PermanentRedirect", "", "check AWS_DEFAULT_REGION and AWS_ENDPOINT_URL"),
        (405, "MethodNotAllowed", "", "check WORDMILL_BUCKET and AWS_ENDPOINT_URL"),
    ],
)  # fmt: skip
def test_every_refusal_says_what_to_do_about_it(status: int, code: str, message: str, told: str) -> None:
    text = Refusal.of(response(status, code, message)).text
    assert text == f"refused with {code}{f', {message}' if message not in ('', 'Forbidden') else ''}: {told}"


@pytest.mark.parametrize(("ahead_s", "told"), [(1200.0, "20 minutes behind"), (-7200.0, "120 minutes ahead of")])
def test_a_refusal_by_a_clock_that_is_wrong_is_known_by_the_answers_date(ahead_s: float, told: str) -> None:
    for code in ("403", "AccessDenied", "RequestTimeTooSkewed"):  # a HEAD is told its status alone
        text = Refusal.of(response(403, code, ahead_s=ahead_s)).text
        assert text == f"refused with {code}: this machine's clock is {told} the server's: set it right"
    assert "clock" not in Refusal.of(response(403, "AccessDenied", ahead_s=ahead_s / 30)).text


def test_what_got_no_answer_says_whether_it_is_for_want_of_keys_or_of_a_server() -> None:
    assert no_answer(NoCredentialsError()) == KEYS
    assert no_answer(ConnectionError("certificate verify failed: self-signed")) == "check AWS_CA_BUNDLE"
    assert no_answer(ConnectionError("reset")) == AWAY


def failing(store: Store, monkeypatch: pytest.MonkeyPatch, *errors: Exception) -> list[float]:
    """Have the next reads fail so, and return how long was waited for each that follows."""
    waited: list[float] = []
    left, get_object = list(errors), store.client.get_object

    def answer(**options: Any) -> Any:
        if left:
            raise left.pop(0)
        return get_object(**options)

    monkeypatch.setattr(store.client, "get_object", answer)
    monkeypatch.setattr(storage.time, "sleep", waited.append)
    return waited


def test_a_busy_server_is_waited_for_and_that_is_said_once(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store.put_json("a.json", {"b": 1})
    slow = ClientError(response(503, "SlowDown", "Please reduce your request rate."), "GetObject")  # type: ignore[arg-type]
    waited = failing(store, monkeypatch, *[slow] * 3)
    assert store.get_json("a.json") == {"b": 1}
    assert waited == [1.0, 2.0, 4.0]
    assert capsys.readouterr().out.count("SlowDown: the server is busy, this waits\n") == 1
    waited = failing(store, monkeypatch, *[slow] * 99)
    with pytest.raises(RuntimeError, match=r"refused with SlowDown, Please .*: the server was too busy for 120 s"):
        store.get_json("a.json")
    assert waited == list(WAITS_S)


def test_a_refused_upload_says_the_same_as_any_other_refusal(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        try:
            raise ClientError(response(507, "XMinioStorageFull"), "PutObject")  # type: ignore[arg-type]
        except ClientError as error:
            raise S3UploadFailedError(f"Failed to upload: {error}")  # noqa: B904 (as boto3 does)

    monkeypatch.setattr(store.client, "upload_file", refused)
    with pytest.raises(RuntimeError, match=f"^cannot write s3://.*: refused with XMinioStorageFull: {FULL}$"):
        store.upload(store.cache, "a")


def test_a_full_disk_of_this_machine_is_no_trouble_of_the_server(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(store, monkeypatch, OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(RuntimeError, match=f"No space left on device: make room for {store.cache}$"):
        store.get_json("a.json")
