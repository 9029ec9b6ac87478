"""Which environment variables a service may set, and values that refer to the deployment's own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict

from batch_pipeline.parameter_problems import encodable, kind

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# These change how the process itself runs: its programs, libraries, interpreter, orchestrator, credentials, settings;
# whom it trusts and asks (certificates, proxies, names); where it writes; what its native libraries load.
_PROTECTED = re.compile(
    r"PATH|HOME|SHELL|ENV|BASH_ENV|IFS|USER|LOGNAME|TMPDIR|TEMP|TMP|XDG_.*"
    r"|(LD_|DYLD_|PYTHON|DAGSTER_|AWS_|BATCH_PIPELINE_|BOTO_|KUBERNETES_|RAY_).*"
    r"|(SSL_|SSLKEYLOGFILE|OPENSSL_|REQUESTS_CA_|CURL_CA_).*|(HTTP|HTTPS|ALL|NO|FTP)_PROXY"
    r"|(RES_OPTIONS|LOCALDOMAIN|HOSTALIASES|RESOLV_).*"
    r"|(GLIBC_|GCONV_|MALLOC_|LOCPATH|NLSPATH|JE_MALLOC|MIMALLOC_).*"
    r"|(ORT_|ONNXRUNTIME_|OMP_|KMP_|MKL_|OPENBLAS_|CUDA_|NVIDIA_|TENSORRT_|POLARS_|RUST_|ARROW_).*",
    re.IGNORECASE,
)


class EnvReference(BaseModel):
    """A variable of the deployment, read in the node, so that a secret need not stand in the parameters."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    env: str


def _variable_name(name: str) -> str:
    if not _VARIABLE.fullmatch(name):
        raise ValueError("is no name for an environment variable: letters, digits and _, not starting with a digit")
    if _PROTECTED.fullmatch(name):
        raise ValueError("would change how the process itself runs, and is refused; choose another name")
    return name


def _variable_value(value: object) -> str | EnvReference:
    # The value may be a secret: no message repeats it.
    if isinstance(value, EnvReference):
        value = {"env": value.env}
    if isinstance(value, Mapping):
        if set(value) != {"env"}:
            raise ValueError("an object here has exactly the key env: {env: NAME}")
        name = value["env"]
        if not isinstance(name, str) or not _VARIABLE.fullmatch(name):
            raise ValueError("env must name an environment variable: letters, digits and _")
        return EnvReference(env=name)
    if not isinstance(value, str):
        raise ValueError(f"must be text or {{env: NAME}}, not {kind(value)}; put it in quotes")  # noqa: TRY004  pydantic collects ValueError
    if "\0" in value or not encodable(value):
        raise ValueError("must be text without NUL or lone surrogates")
    return value


VariableName = Annotated[str, AfterValidator(_variable_name)]
VariableValue = Annotated[str | EnvReference, BeforeValidator(_variable_value)]
