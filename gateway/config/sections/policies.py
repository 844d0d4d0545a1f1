"""Who is calling: identity, and the file of known keys."""

from typing import Annotated, Literal, Self

from pydantic import Field, PrivateAttr, ValidationInfo, field_validator, model_validator

from gateway.config.scalars import Text
from gateway.config.sections.base import FileName, Section, surroundings

# RFC 9110 token, in lower case because that is how fields are compared.
HEADER_PATTERN = r"[a-z0-9!#$%&'*+.^_`|~-]+"


class ApiKey(Section):
    """One key of one client. A client may have several, so that keys can be changed without a gap."""

    client: Annotated[str, Text(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}", "1 to 64 letters, digits or any of . _ @ -")] = (
        Field(description="Name of the client in limits and logs.", examples=["alice"])
    )
    tenant: (
        Annotated[str, Text(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}", "1 to 64 letters, digits or any of . _ @ -")] | None
    ) = Field(default=None, description="Whom the client belongs to, for limits by tenant; itself if not given.")
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
        description="Key file, relative to this file: {version: 1, keys: [{client: NAME, sha256: HEX, tenant: NAME}]}; "
        "the tenant may be left out.",
        examples=["keys.yaml"],
    )
    _clients: dict[str, str] = PrivateAttr(default_factory=dict)
    _tenants: dict[str, str] = PrivateAttr(default_factory=dict)

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
            self._tenants = files.tenants(self.file)
        return self

    @property
    def clients(self) -> dict[str, str]:
        """Client name by SHA-256 of the key (lower-case hex), read when the configuration was loaded."""
        return self._clients

    @property
    def tenants(self) -> dict[str, str]:
        """Tenant by client name, of the clients that have one."""
        return self._tenants


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
