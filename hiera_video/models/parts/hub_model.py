"""The methods that save a model to a folder and load it from there."""

import os
from collections.abc import Mapping
from typing import Any, TypeVar

from torch import nn
from typing_extensions import Unpack

from hiera_video.models.parts.settings import ModelSettings

M = TypeVar("M", bound="HubModel")


class HubModel(nn.Module):
    """A model that can be saved to a folder and loaded from it.

    `settings` are the keyword arguments that the model was built with.
    """

    settings: dict[str, Any]

    @classmethod
    def from_pretrained(
        cls: type[M],
        where: str | os.PathLike[str],
        *,
        revision: str | None = None,
        **changes: Unpack[ModelSettings],
    ) -> M:
        """Load a model from a folder or a hub repository "owner/name", in evaluation mode.

        `changes` override its settings. For another `input_size` the position embeddings are
        interpolated; for another `num_classes` the classifier is re-initialised. `revision` is a
        repository's branch, tag or commit. A repository needs huggingface_hub (the extra `hub`).

        Raises:
            UserError: there is no such model, it is broken, or it is one of another class.
        """
        from hiera_video.checkpoints import hub  # building a model needs no file readers

        return hub.read_model(cls, os.fspath(where), revision, changes)

    def save_pretrained(
        self, folder: str | os.PathLike[str], *, facts: Mapping[str, Any] | None = None
    ) -> None:
        """Write `config.json`, `model.safetensors` and, with `facts`, `hiera_video.json`.

        Other files in the folder are left alone. Each file is replaced completely or not at all.

        Raises:
            UserError: the folder cannot be written to, or a fact is of a wrong kind.
        """
        from hiera_video.checkpoints import hub

        hub.write_model(self, os.fspath(folder), facts)
