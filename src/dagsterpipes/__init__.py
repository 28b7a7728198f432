"""Dagster Pipes for async and log-heavy Python jobs.

::

    async with open_dagster_pipes() as pipes:      # in a coroutine
        pipes.log.info("starting")

    with open_dagster_pipes() as pipes:            # in plain code
        pipes.report_asset_materialization(metadata={"rows": 3})

Every name of ``dagster_pipes`` that means something here is there too, so that a script needs to
change its import only. What few jobs use is imported when it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dagsterpipes._protocol.envelope import (
    DAGSTER_PIPES_CONTEXT_ENV_VAR,
    DAGSTER_PIPES_MESSAGES_ENV_VAR,
    PIPES_PROTOCOL_VERSION,
)
from dagsterpipes._session.context import PipesContext
from dagsterpipes._session.null import NullPipesContext
from dagsterpipes._session.opening import open_dagster_pipes, with_dagster_pipes
from dagsterpipes.exceptions import (
    ChannelError,
    ContextError,
    DagsterPipesError,
    DagsterPipesWarning,
    FlushTimeoutError,
    InvalidReportError,
    LaunchParamsError,
    MessagesLostError,
    SessionClosedError,
)

if TYPE_CHECKING:
    from dagsterpipes._protocol.assets import (
        from_asset_key_path,
        to_asset_key_path,
    )
    from dagsterpipes._protocol.launch_params import (
        decode_env_var,
        decode_param,
        encode_env_var,
        encode_param,
    )
    from dagsterpipes._protocol.metadata import (
        MetadataValue,
        pipes_metadata_value,
    )
    from dagsterpipes._session.log_handler import (
        PipesLogHandler,
    )
    from dagsterpipes._session.logger import (
        PipesLogger,
    )
    from dagsterpipes.loaders import (
        PipesCliArgsParamsLoader,
        PipesContextLoader,
        PipesDatabricksNotebookWidgetsParamsLoader,
        PipesDefaultContextLoader,
        PipesEnvVarParamsLoader,
        PipesMappingParamsLoader,
        PipesParamsLoader,
    )
    from dagsterpipes.log_writers import (
        PipesDefaultLogWriter,
        PipesLogWriter,
        PipesLogWriterChannel,
        PipesStdioFileLogWriter,
        PipesStdioLogWriter,
    )
    from dagsterpipes.stores import (
        PipesAzureBlobStorageContextLoader,
        PipesAzureBlobStorageMessageWriter,
        PipesAzureBlobStorageMessageWriterChannel,
        PipesBufferedFilesystemMessageWriterChannel,
        PipesDbfsContextLoader,
        PipesDbfsMessageWriter,
        PipesGCSContextLoader,
        PipesGCSMessageWriter,
        PipesGCSMessageWriterChannel,
        PipesObjectStoreContextLoader,
        PipesObjectStoreMessageWriter,
        PipesObjectStoreMessageWriterChannel,
        PipesPrefectLogsMessageWriter,
        PipesPrefectLogsMessageWriterChannel,
        PipesS3ContextLoader,
        PipesS3MessageWriter,
        PipesS3MessageWriterChannel,
        PipesUnityCatalogVolumesContextLoader,
        PipesUnityCatalogVolumesMessageWriter,
    )
    from dagsterpipes.typing import (
        PipesAssetCheckSeverity,
        PipesContextData,
        PipesDataProvenance,
        PipesException,
        PipesExtras,
        PipesMessage,
        PipesMetadataRawValue,
        PipesMetadataType,
        PipesMetadataValue,
        PipesOpenedData,
        PipesParams,
        PipesPartitionKeyRange,
        PipesTimeWindow,
    )
    from dagsterpipes.writers import (
        PipesBlobStoreMessageWriter,
        PipesBlobStoreMessageWriterChannel,
        PipesBufferedStreamMessageWriterChannel,
        PipesDefaultMessageWriter,
        PipesFileMessageWriterChannel,
        PipesMessageWriter,
        PipesMessageWriterChannel,
        PipesStreamMessageWriterChannel,
        T_BlobStoreMessageWriterChannel,
    )

__all__ = [
    "DAGSTER_PIPES_CONTEXT_ENV_VAR",
    "DAGSTER_PIPES_MESSAGES_ENV_VAR",
    "PIPES_PROTOCOL_VERSION",
    "ChannelError",
    "ContextError",
    "DagsterPipesError",
    "DagsterPipesWarning",
    "FlushTimeoutError",
    "InvalidReportError",
    "LaunchParamsError",
    "MessagesLostError",
    "MetadataValue",
    "NullPipesContext",
    "PipesAssetCheckSeverity",
    "PipesAzureBlobStorageContextLoader",
    "PipesAzureBlobStorageMessageWriter",
    "PipesAzureBlobStorageMessageWriterChannel",
    "PipesBlobStoreMessageWriter",
    "PipesBlobStoreMessageWriterChannel",
    "PipesBufferedFilesystemMessageWriterChannel",
    "PipesBufferedStreamMessageWriterChannel",
    "PipesCliArgsParamsLoader",
    "PipesContext",
    "PipesContextData",
    "PipesContextLoader",
    "PipesDataProvenance",
    "PipesDatabricksNotebookWidgetsParamsLoader",
    "PipesDbfsContextLoader",
    "PipesDbfsMessageWriter",
    "PipesDefaultContextLoader",
    "PipesDefaultLogWriter",
    "PipesDefaultMessageWriter",
    "PipesEnvVarParamsLoader",
    "PipesException",
    "PipesExtras",
    "PipesFileMessageWriterChannel",
    "PipesGCSContextLoader",
    "PipesGCSMessageWriter",
    "PipesGCSMessageWriterChannel",
    "PipesLogHandler",
    "PipesLogWriter",
    "PipesLogWriterChannel",
    "PipesLogger",
    "PipesMappingParamsLoader",
    "PipesMessage",
    "PipesMessageWriter",
    "PipesMessageWriterChannel",
    "PipesMetadataRawValue",
    "PipesMetadataType",
    "PipesMetadataValue",
    "PipesObjectStoreContextLoader",
    "PipesObjectStoreMessageWriter",
    "PipesObjectStoreMessageWriterChannel",
    "PipesOpenedData",
    "PipesParams",
    "PipesParamsLoader",
    "PipesPartitionKeyRange",
    "PipesPrefectLogsMessageWriter",
    "PipesPrefectLogsMessageWriterChannel",
    "PipesS3ContextLoader",
    "PipesS3MessageWriter",
    "PipesS3MessageWriterChannel",
    "PipesStdioFileLogWriter",
    "PipesStdioLogWriter",
    "PipesStreamMessageWriterChannel",
    "PipesTimeWindow",
    "PipesUnityCatalogVolumesContextLoader",
    "PipesUnityCatalogVolumesMessageWriter",
    "SessionClosedError",
    "T_BlobStoreMessageWriterChannel",
    "decode_env_var",
    "decode_param",
    "encode_env_var",
    "encode_param",
    "from_asset_key_path",
    "open_dagster_pipes",
    "pipes_metadata_value",
    "to_asset_key_path",
    "with_dagster_pipes",
]

_LATE = {
    "dagsterpipes._protocol.assets": (
        "from_asset_key_path",
        "to_asset_key_path",
    ),
    "dagsterpipes._protocol.launch_params": (
        "decode_env_var",
        "decode_param",
        "encode_env_var",
        "encode_param",
    ),
    "dagsterpipes._protocol.metadata": (
        "MetadataValue",
        "pipes_metadata_value",
    ),
    "dagsterpipes._session.log_handler": ("PipesLogHandler",),
    "dagsterpipes._session.logger": ("PipesLogger",),
    "dagsterpipes.loaders": (
        "PipesCliArgsParamsLoader",
        "PipesContextLoader",
        "PipesDatabricksNotebookWidgetsParamsLoader",
        "PipesDefaultContextLoader",
        "PipesEnvVarParamsLoader",
        "PipesMappingParamsLoader",
        "PipesParamsLoader",
    ),
    "dagsterpipes.log_writers": (
        "PipesDefaultLogWriter",
        "PipesLogWriter",
        "PipesLogWriterChannel",
        "PipesStdioFileLogWriter",
        "PipesStdioLogWriter",
    ),
    "dagsterpipes.stores": (
        "PipesAzureBlobStorageContextLoader",
        "PipesAzureBlobStorageMessageWriter",
        "PipesAzureBlobStorageMessageWriterChannel",
        "PipesBufferedFilesystemMessageWriterChannel",
        "PipesDbfsContextLoader",
        "PipesDbfsMessageWriter",
        "PipesGCSContextLoader",
        "PipesGCSMessageWriter",
        "PipesGCSMessageWriterChannel",
        "PipesObjectStoreContextLoader",
        "PipesObjectStoreMessageWriter",
        "PipesObjectStoreMessageWriterChannel",
        "PipesPrefectLogsMessageWriter",
        "PipesPrefectLogsMessageWriterChannel",
        "PipesS3ContextLoader",
        "PipesS3MessageWriter",
        "PipesS3MessageWriterChannel",
        "PipesUnityCatalogVolumesContextLoader",
        "PipesUnityCatalogVolumesMessageWriter",
    ),
    "dagsterpipes.typing": (
        "PipesAssetCheckSeverity",
        "PipesContextData",
        "PipesDataProvenance",
        "PipesException",
        "PipesExtras",
        "PipesMessage",
        "PipesMetadataRawValue",
        "PipesMetadataType",
        "PipesMetadataValue",
        "PipesOpenedData",
        "PipesParams",
        "PipesPartitionKeyRange",
        "PipesTimeWindow",
    ),
    "dagsterpipes.writers": (
        "PipesBlobStoreMessageWriter",
        "PipesBlobStoreMessageWriterChannel",
        "PipesBufferedStreamMessageWriterChannel",
        "PipesDefaultMessageWriter",
        "PipesFileMessageWriterChannel",
        "PipesMessageWriter",
        "PipesMessageWriterChannel",
        "PipesStreamMessageWriterChannel",
        "T_BlobStoreMessageWriterChannel",
    ),
}
_MODULE_OF = {name: module for module, names in _LATE.items() for name in names}


def __getattr__(name: str) -> Any:
    module = _MODULE_OF.get(name)
    if module is not None:
        import importlib  # noqa: PLC0415 because most jobs need none of these names

        value = globals()[name] = getattr(importlib.import_module(module), name)
        return value
    if name.startswith("Pipes") and name.endswith(("Loader", "Writer", "Channel")):
        raise AttributeError(
            f"dagsterpipes has no {name}. If dagster_pipes has it, pass an instance of that one to "
            "open_dagster_pipes(), as context_loader, message_writer or params_loader."
        )
    raise AttributeError(f"module 'dagsterpipes' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
