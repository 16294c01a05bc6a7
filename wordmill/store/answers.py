"""What an S3 server's refusals mean, and what to do about each."""

import re
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

ABSENT = {"404", "NoSuchKey", "NotFound", "NoSuchBucket"}
# The server wants fewer requests; it tells a HEAD no more than its status.
BUSY = {"SlowDown", "TooManyRequests", "RequestLimitExceeded", "Throttling", "ThrottlingException", "429", "503"}
WAITS_S = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)  # between tries, where the server is busy
REGION = {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "301"}
EXPIRED = {"ExpiredToken", "TokenRefreshRequired", "InvalidToken"}
SKEWED = {"RequestTimeTooSkewed", "RequestExpired"}
SKEW_S = 300.0  # S3 bears 15 minutes, others less
ROOM = re.compile(r"no space|storage.*full|disk.*full|quota|insufficient ?storage|no (free|writable) volumes", re.I)

KEYS = "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY and the rights of that key"
AWAY = "check AWS_ENDPOINT_URL, and that the server runs and has room"


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A refusal as the server tells it; `skew_s` is by how many seconds its clock is ahead of this machine's."""

    code: str
    status: int
    message: str
    skew_s: float = 0.0

    @classmethod
    def of(cls, response: dict[str, Any]) -> "Refusal":
        """Read the parsed response of a botocore ClientError."""
        told, rest = response.get("Error", {}), response.get("ResponseMetadata", {})
        skew_s = 0.0
        if date := rest.get("HTTPHeaders", {}).get("date"):
            skew_s = parsedate_to_datetime(date).timestamp() - time.time()
        message = str(told.get("Message", ""))
        return cls(code=str(told.get("Code", "")), status=int(rest.get("HTTPStatusCode", 0)), message=message,
                   skew_s=skew_s)  # fmt: skip

    @property
    def absent(self) -> bool:
        """Tell whether what was asked for is not there."""
        return self.code in ABSENT

    @property
    def busy(self) -> bool:
        """Tell whether the same request may be granted a little later."""
        return self.code in BUSY

    @property
    def text(self) -> str:
        """Return the refusal with what to do about it."""
        # What a HEAD is told is no code and no message.
        told = f"refused with {self.code}" + (f", {self.message}" if self.message not in ("", "Forbidden") else "")
        return f"{told}: {self._advice()}"

    def _advice(self) -> str:
        if self.code in SKEWED or (self.status in (400, 403) and abs(self.skew_s) > SKEW_S):
            where = "behind" if self.skew_s > 0 else "ahead of"
            return f"this machine's clock is {abs(self.skew_s) / 60:.0f} minutes {where} the server's: set it right"
        if self.status == 507 or ROOM.search(f"{self.code} {self.message}"):
            return "the server's disk or the bucket's quota is full: make room there; the verb sweep lists what may go"
        if self.busy:
            return f"the server was too busy for {sum(WAITS_S):.0f} s: run again later, or fewer runs at a time"
        if self.code in EXPIRED:
            return "AWS_SESSION_TOKEN is not valid any more: get another"
        if self.code in REGION:
            return "check AWS_DEFAULT_REGION and AWS_ENDPOINT_URL"
        if self.status >= 500:
            return "the server has trouble of its own: see its log, and whether it has room"
        return KEYS if self.status in (0, 400, 401, 403) else "check WORDMILL_BUCKET and AWS_ENDPOINT_URL"


def no_answer(error: Exception) -> str:
    """Return what to do about a request that got no answer, or was never sent."""
    kind = type(error).__name__
    if "Credential" in kind:
        return KEYS
    return "check AWS_CA_BUNDLE" if "certificate verify failed" in str(error) else AWAY
