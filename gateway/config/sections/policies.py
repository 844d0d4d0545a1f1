"""Who is calling and how much they may: identity and limits."""

from typing import Annotated, Literal, Self

from pydantic import Field, PrivateAttr, StrictBool, ValidationInfo, field_validator, model_validator

from gateway.config.scalars import Rate, Text, Whole
from gateway.config.sections.base import FileName, Section, surroundings

# RFC 9110 token, in lower case because that is how fields are compared.
HEADER_PATTERN = r"[a-z0-9!#$%&'*+.^_`|~-]+"


class ApiKey(Section):
    """One key of one client. A client may have several, so that keys can be changed without a gap."""

    client: Annotated[str, Text(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}", "1 to 64 letters, digits or any of . _ @ -")] = (
        Field(description="Name of the client in limits and logs.", examples=["alice"])
    )
    sha256: Annotated[
        str, Text("[0-9a-f]{64}", "64 hex digits in lower case", 'printf %s "$KEY" | sha256sum', secret=True)
    ] = Field(description="SHA-256 of the key, in hex: printf %s KEY | sha256sum.", examples=["(64 hex digits)"])


class KeyFile(Section):
    """The file that identity.api_keys.file names."""

    version: Literal[1] = Field(description="Version of the file format; 1 is the only one.", examples=[1])
    keys: tuple[ApiKey, ...] = Field(description="The keys; each belongs to one client.", examples=["[]"])


class ApiKeys(Section):
    """Keys that clients present, stored as SHA-256 in a file of their own."""

    file: FileName = Field(
        description="Key file, relative to this file: {version: 1, keys: [{client: NAME, sha256: HEX}]}.",
        examples=["keys.yaml"],
    )
    _clients: dict[str, str] = PrivateAttr(default_factory=dict)

    @field_validator("file")
    @classmethod
    def _readable(cls, value: str, info: ValidationInfo) -> str:
        files = surroundings(info.context)
        if files is not None:
            files.api_keys(value)
        return value

    @model_validator(mode="after")
    def _load(self, info: ValidationInfo) -> Self:
        files = surroundings(info.context)
        if files is not None:
            self._clients = files.api_keys(self.file)
        return self

    @property
    def clients(self) -> dict[str, str]:
        """Client name by SHA-256 of the key (lower-case hex), read when the configuration was loaded."""
        return self._clients


class Identity(Section):
    """How a request is tied to a client."""

    header: Annotated[str, Text(HEADER_PATTERN, "a header name in lower case")] = Field(
        default="x-api-key", description="Request header that carries the API key."
    )
    api_keys: ApiKeys | None = Field(default=None, description="Where the known keys are; without it nobody has a key.")
    anonymous: Literal["allow", "deny"] = Field(
        default="allow",
        description="What happens to a request without a key: 'allow' (its client is its IP address) or 'deny' (401). "
        "A wrong key is always 401.",
    )


class Limit(Section):
    """A token bucket: 'burst' tokens deep, filled at 'rate', one token a request."""

    key: Literal["client", "ip", "route", "global"] = Field(
        description="What each bucket belongs to: one client (its IP address if anonymous), one IP address, one route, "
        "or everybody together.",
        examples=["client"],
    )
    rate: Annotated[float, Rate("1/h", "10000000/s")] = Field(
        description="Tokens added per time, for the whole fleet.", examples=["100/s"]
    )
    burst: Annotated[int, Whole(1, 100_000_000)] = Field(
        description="Most tokens a bucket holds: how many requests may come at once.", examples=[200]
    )
    on_store_failure: Literal["local", "open", "closed"] = Field(
        default="local",
        description="While the store does not answer: 'local' limits in each worker with its share of the rate, 'open' "
        "admits everything, 'closed' refuses everything (503).",
    )
    legacy_headers: StrictBool = Field(
        default=False, description="Also send X-RateLimit-Limit, -Remaining and -Reset, for old clients."
    )
