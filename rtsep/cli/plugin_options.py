"""``--plugin`` of the commands that play or separate."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from rtsep.errors import UsageError

if TYPE_CHECKING:
    from rtsep.plugins.spec import PluginSpec

F = TypeVar("F", bound=Callable[..., Any])


class PluginValue(click.ParamType[tuple[str, "PluginSpec"]]):
    """``STEM=PLUGIN[:PARAMETER=VALUE,...]`` as a stem and what it is to go through."""

    name = "STEM=PLUGIN"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, PluginSpec]:
        from rtsep.plugins.spec import parse_plugin

        if isinstance(value, tuple):
            return value
        stem, separator, plugin = str(value).partition("=")
        if not separator or not stem or not plugin:
            self.fail(f"{value!r} is not STEM=PLUGIN; for example vocals=Reverb:room_size=0.4", param, ctx)
        try:
            return stem, parse_plugin(plugin)
        except UsageError as error:
            self.fail(str(error), param, ctx)


def plugin_option(function: F) -> F:
    """Add ``--plugin``; `chains_of` makes chains of its values."""
    return click.option(
        "--plugin",
        "plugins",
        multiple=True,
        type=PluginValue(),
        help="An effect or VST3 for a stem, or for the master; may be repeated: vocals=Reverb:room_size=0.4. "
        "See: rtsep plugins list",
    )(function)


def chains_of(plugins: Iterable[tuple[str, PluginSpec]]) -> dict[str, list[PluginSpec]]:
    """Return chains, each in the order in which its plugins were given."""
    chains: dict[str, list[PluginSpec]] = {}
    for stem, spec in plugins:
        chains.setdefault(stem, []).append(spec)
    return chains
